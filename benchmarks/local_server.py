"""Runs `segpipe serve` on 127.0.0.1 for the serving benchmarks, and measures its memory."""

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
_AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


class LocalServer:
    """A server in a separate process.

    Attributes:
        port: gRPC port.
        rest_port: REST port.
        channel: gRPC channel of the stubs `predictions` and `models`.
    """

    def __init__(self, directory: Path, config: str, flags: Sequence[str] = (), wait: bool = True) -> None:
        """Starts the server.

        Args:
            directory: existing folder for `models.config` and `server.log`.
            config: a `ModelServerConfig` in text format.
            flags: additional flags of `segpipe serve`.
            wait: whether to wait until every configured model has an available version.

        Raises:
            RuntimeError: the server exited or was not ready in time.
        """
        self.port, self.rest_port = _free_port(), _free_port()
        (directory / "models.config").write_text(config)
        self._log = directory / "server.log"
        command = [sys.executable, "-m", "pipeline.cli.main", "serve", "--port", str(self.port)]
        command += ["--rest_api_port", str(self.rest_port), "--model_config_file", str(directory / "models.config")]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen([*command, *flags], stdout=log, stderr=subprocess.STDOUT)
        # Clients send messages of any size, and receive the probabilities of large images.
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", unlimited)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        try:
            if wait:
                for model in parse_config(config).model_config_list.config:
                    self.wait_until(lambda states: _AVAILABLE in states.values(), model.name)
        except BaseException:
            self.stop()
            raise

    def wait_until(self, condition: Any, model: str) -> None:
        """Waits until the states of a model's versions meet a condition.

        Args:
            condition: called with {version: state}.
            model: name of the model.

        Raises:
            RuntimeError: the server exited or did not reach the condition in time.
        """
        limit = time.monotonic() + _SECONDS_TO_START
        while not condition(self.states(model)):
            if not self.alive or time.monotonic() > limit:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{model}: unexpected version states {self.states(model)}; end of the log:\n{tail}")
            time.sleep(0.05)

    def states(self, model: str) -> Mapping[int, int]:
        """Returns the state of each version of a model; empty if the server does not respond or know the model."""
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
        """Reloads the server's configuration.

        Raises:
            grpc.RpcError: the server rejects it.
        """
        request = model_management_pb2.ReloadConfigRequest(config=parse_config(config))
        self.models.HandleReloadConfigRequest(request, timeout=_SECONDS_TO_START)

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def rss_mib(self) -> float:
        """Returns the process's resident memory in MiB; 0 if it has exited."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)

    def stop(self) -> None:
        """Terminates the server, and kills it if it does not exit in time."""
        self.channel.close()
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def parse_config(text: str) -> Any:
    """Parses a `ModelServerConfig` in text format."""
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def server_config(*models: str) -> str:
    """Returns a `ModelServerConfig` in text format.

    Args:
        models: results of `model_config`.
    """
    return f"model_config_list {{\n{''.join(models)}}}\n"


def model_config(name: str, base_path: Path, policy: str = "latest {}", labels: Mapping[str, int] | None = None) -> str:
    """Returns the configuration of one model in text format.

    Args:
        name: name of the model.
        base_path: folder of versions.
        policy: content of `model_version_policy`.
        labels: version of each label.
    """
    label_text = "".join(f' version_labels {{ key: "{key}" value: {value} }}' for key, value in (labels or {}).items())
    return (
        f'  config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" '
        f"model_version_policy {{ {policy} }}{label_text} }}\n"
    )


def add_version(model: Path, base_path: Path, version: int) -> None:
    """Adds a copy of a model to a folder of versions by one rename, so the server never sees a partial copy."""
    base_path.mkdir(parents=True, exist_ok=True)
    partial = base_path / f".partial-{version}"
    shutil.copytree(model, partial)
    os.rename(partial, base_path / str(version))


def predict_request(
    model: str,
    images: Sequence[bytes],
    label: str | None = None,
    signature: str = "",
    outputs: Sequence[str] = ("mask_png_bytes", "confidence"),
) -> Any:
    """Returns a request for outputs of encoded images, or for all outputs if `outputs` is empty."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if label is not None:
        request.model_spec.version_label = label
    tensor = request.inputs["image"]
    tensor.dtype = 7  # DT_STRING
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(images)
    request.output_filter.extend(outputs)
    return request


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
