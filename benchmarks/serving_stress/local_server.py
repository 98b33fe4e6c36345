"""A `segpipe serve` process on 127.0.0.1 for the serving benchmarks: starts it, asks it, measures its memory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

_SECONDS_TO_START = 180
_SECONDS_TO_STOP = 60
_MESSAGE_BYTES = 256 << 20
_AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


class LocalServer:
    """A server in a process of its own.

    Attributes:
        port: of gRPC.
        rest_port: of REST.
        channel: to the gRPC port; `predictions` and `models` are stubs on it.
    """

    def __init__(self, directory: Path, config: str, flags: Sequence[str] = ()) -> None:
        """Starts the server and waits until every model of its configuration has a version that serves.

        Args:
            directory: an existing folder for the configuration and the log, `server.log`.
            config: a `ModelServerConfig` as text.
            flags: further flags of `segpipe serve`.

        Raises:
            RuntimeError: it ended or did not become ready in time.
        """
        self.port, self.rest_port = _free_port(), _free_port()
        (directory / "models.config").write_text(config)
        self._log = directory / "server.log"
        command = [sys.executable, "-m", "pipeline.cli.main", "serve", "--port", str(self.port)]
        command += ["--rest_api_port", str(self.rest_port), "--model_config_file", str(directory / "models.config")]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen([*command, *flags], stdout=log, stderr=subprocess.STDOUT)
        options = [
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        try:
            for model in parse_config(config).model_config_list.config:
                self.wait_until(lambda states: _AVAILABLE in states.values(), model.name)
        except BaseException:
            self.stop()
            raise

    def wait_until(self, condition: Any, model: str) -> None:
        """Waits until `condition`, given {version: state} of a model, holds. Raises RuntimeError."""
        limit = time.monotonic() + _SECONDS_TO_START
        while not condition(self.states(model)):
            if not self.alive or time.monotonic() > limit:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{model} did not get where it should: {self.states(model)}; the log ends:\n{tail}")
            time.sleep(0.05)

    def states(self, model: str) -> Mapping[int, int]:
        """Returns the state of each version of a model; empty where the server does not answer or know it."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            answer = self.models.GetModelStatus(request, timeout=10)
        except grpc.RpcError:
            return {}
        return {status.version: status.state for status in answer.model_version_status}

    def serves_only(self, model: str, *versions: int) -> None:
        """Waits until exactly these versions of a model are available."""
        wanted = set(versions)
        self.wait_until(lambda states: {v for v, state in states.items() if state == _AVAILABLE} == wanted, model)

    def reload(self, config: str) -> None:
        """Gives the server another configuration. Raises grpc.RpcError where it refuses."""
        request = model_management_pb2.ReloadConfigRequest(config=parse_config(config))
        self.models.HandleReloadConfigRequest(request, timeout=_SECONDS_TO_START)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def rss_mib(self) -> float:
        """Returns the process's resident memory in MiB; 0 where it has ended."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)

    def stop(self) -> None:
        """Ends the server, politely first."""
        self.channel.close()
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def parse_config(text: str) -> Any:
    """Returns a `ModelServerConfig` from its text."""
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def server_config(*models: str) -> str:
    """Returns a `ModelServerConfig` of these models, as text."""
    return f"model_config_list {{\n{''.join(models)}}}\n"


def model_config(name: str, base_path: Path, policy: str = "latest {}", labels: Mapping[str, int] | None = None) -> str:
    """Returns one model's part of a configuration, as text.

    Args:
        name: the model.
        base_path: its folder of versions.
        policy: of `model_version_policy`.
        labels: version by label.
    """
    label_text = "".join(f' version_labels {{ key: "{key}" value: {value} }}' for key, value in (labels or {}).items())
    return (
        f'  config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" '
        f"model_version_policy {{ {policy} }}{label_text} }}\n"
    )


def add_version(model: Path, base_path: Path, version: int) -> None:
    """Copies a model into a folder of versions, whole at once: a server never sees half of it."""
    base_path.mkdir(parents=True, exist_ok=True)
    partial = base_path / f".partial-{version}"
    shutil.copytree(model, partial)
    os.rename(partial, base_path / str(version))


def predict_request(model: str, images: Sequence[bytes], label: str | None = None) -> Any:
    """Returns a request for the class maps of encoded images, masks only, as a labelling tool would ask."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if label is not None:
        request.model_spec.version_label = label
    tensor = request.inputs["image"]
    tensor.dtype = 7  # DT_STRING
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(images)
    request.output_filter.extend(["mask_png_bytes", "confidence"])
    return request


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
