"""`segpipe serve` as a process: its output, its shutdown, and its restart after a kill."""

import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, prediction_service_pb2_grpc
from toy_models import ONE, Channel, connected, predict_request, push, serving, stage, write_warmup

from pipeline.cli.main import main
from serving.server.configuration import check_flags
from serving.server.options import IGNORED_FLAGS, ServeOptions

_ROOT = Path(__file__).parents[3]
_X = {"x": np.ones((1, 2), np.float32)}
_ENVIRONMENT = {**os.environ, "TF_NUM_INTEROP_THREADS": "4"}


class _Process:
    """A running `segpipe serve`."""

    def __init__(self, base_path, *flags):
        command = [sys.executable, "-m", "pipeline.cli.main", "serve", "--model_base_path", str(base_path)]
        more = ["--model_name", "toy", "--port", "0", "--file_system_poll_wait_seconds", "0.05", *flags]
        self.process = subprocess.Popen(
            [*command, *more], cwd=_ROOT, env=_ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._passed_over = []
        self.connection = Channel(int(self.line("gRPC").rsplit(":", 1)[1]))

    def line(self, start):
        """Returns the first new line with this prefix; threads print in any order."""
        for line in self._passed_over:
            if line.startswith(start):
                self._passed_over.remove(line)
                return line.strip()
        for line in self.process.stdout:
            if line.startswith(start):
                return line.strip()
            self._passed_over.append(line)
        raise AssertionError(self.process.stderr.read())


@pytest.fixture
def start():
    """Starts processes, and kills those that still run after the test."""
    processes = []

    def start(*arguments):
        processes.append(_Process(*arguments))
        return processes[-1]

    yield start
    for started in processes:
        started.process.kill()
        started.process.communicate()


def _run(*flags, timeout=None):
    command = [sys.executable, "-m", "pipeline.cli.main", "serve", *flags]
    return subprocess.run(command, cwd=_ROOT, text=True, capture_output=True, timeout=timeout)


def _states(connection):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "toy"
    answer = connection.models.GetModelStatus(request, timeout=20)
    return {status.version: status.state for status in answer.model_version_status}


def _begin_upload(port, address):
    """Sends the first bytes of a body and returns the connection once the server reads it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(
        f"POST {address} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    connection.sendall(b"{")
    return connection


def test_killed_while_a_version_is_loaded_and_drained_after_a_restart(toys, tmp_path, start):
    push(toys, tmp_path, 1)
    first = start(tmp_path, "--max_num_load_retries=0", "--enable_model_warmup=true")
    assert first.line("toy") == "toy  version 1 ready"
    staging = stage(toys, tmp_path, 2)
    write_warmup(staging, predict_request({"steps": np.int64(1 << 40)}, signature="slow"))  # loads forever
    os.rename(staging, tmp_path / "2")
    while _states(first.connection).get(2) != get_model_status_pb2.ModelVersionStatus.LOADING:
        threading.Event().wait(0.05)
    assert first.connection.predict(_X).model_spec.version.value == 1
    first.process.kill()
    first.process.wait()

    # The copy in progress when the machine crashed is truncated.
    (weights,) = (tmp_path / "2" / "variables").glob("variables.data-*")
    os.truncate(weights, 1)
    second = start(tmp_path, "--max_num_load_retries=0", "--max_concurrent_requests=4")
    assert second.line("toy") == "toy  no version is available yet"
    shutil.rmtree(tmp_path / "2")
    while _states(second.connection).get(1) != get_model_status_pb2.ModelVersionStatus.AVAILABLE:
        threading.Event().wait(0.05)
    assert second.connection.predict(_X).model_spec.version.value == 1

    running = second.connection.prediction.Predict.future(
        predict_request({"steps": np.int64(50_000)}, signature="slow"), timeout=60
    )
    second.connection.predict(ONE, signature="await_entry")
    second.process.send_signal(signal.SIGTERM)
    health = health_pb2_grpc.HealthStub(second.connection.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert any(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING for answer in health)

    assert second.connection.refusal(_X) == (grpc.StatusCode.UNAVAILABLE, "The server is shutting down")
    assert list(running.result().outputs["steps"].int64_val) == [50_000]
    assert second.process.wait(60) == 0


def test_a_second_signal_ends_a_server_that_waits_for_a_load(toys, tmp_path, start):
    staging = stage(toys, tmp_path, 1)
    write_warmup(staging, predict_request({"steps": np.int64(1 << 40)}, signature="slow"))  # loads forever
    os.rename(staging, tmp_path / "1")
    server = start(tmp_path)
    while _states(server.connection).get(1) != get_model_status_pb2.ModelVersionStatus.LOADING:
        threading.Event().wait(0.05)

    server.process.send_signal(signal.SIGTERM)
    server.line("draining")
    while server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        threading.Event().wait(0.05)

    assert server.process.returncode == -signal.SIGTERM


def test_slow_callers_of_the_page_and_of_rest_do_not_hold_up_the_drain(toys, tmp_path, start):
    push(toys, tmp_path, 1)
    server = start(tmp_path, "--rest_api_port=0", "--ui", "--ui_port=0", "--drain_seconds=4")
    ports = [int(server.line(name).rsplit(":", 1)[1].split("/")[0]) for name in ("REST", "page")]
    server.line("toy")
    uploads = [
        _begin_upload(port, address)
        for port, address in zip(ports, ("/v1/models/toy:predict", "/segment"), strict=True)
    ]
    server.process.send_signal(signal.SIGTERM)
    health = health_pb2_grpc.HealthStub(server.connection.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert any(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING for answer in health)

    assert server.connection.refusal(_X) == (grpc.StatusCode.UNAVAILABLE, "The server is shutting down")
    assert server.process.wait(20) == 0
    for upload in uploads:
        upload.close()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "found neither --model_base_path nor --model_config_file"),
        (["--model_base_path", "nowhere"], "found nothing, expected a folder of numbered versions"),
        (["--model_base_path", ".", "--batching_parameters_file", "x"], "without --enable_batching"),
        (["--model_base_path", ".", "--monitoring_config_file", "x"], "add --rest_api_port"),
        (["--model_base_path", ".", "--ui", "--ssl_config_file", "x"], "--ui"),
        (["--model_base_path", ".", "--rest_api_port=70000"], "Invalid value for '--rest_api_port'"),
        (["--model_base_path", ".", "--enable_batching=false", "--batching_parameters_file", "x"], "--enable_batching"),
        (["--tensorflow_intra_op_paralelism=4"], "did you mean --tensorflow_intra_op_parallelism?"),
        (["--model_base", "."], "did you mean --model_name?"),
        (["--model_base_path", ".", "--engine=local", "--use_alts_credentials"], "use --ssl_config_file for TLS"),
        (
            ["--model_base_path", ".", "--engine=local", "--grpc_channel_arguments=grpc.x"],
            "found 'grpc.x', expected NAME=VALUE",
        ),
    ],
)
def test_flags_that_cannot_work_are_explained(flags, text, monkeypatch, capsys):
    monkeypatch.chdir(_ROOT)
    monkeypatch.setattr("sys.argv", ["segpipe", "serve", *flags])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_a_socket_that_cannot_be_listened_on_is_explained():
    result = _run("--model_base_path", ".", "--port=0", "--grpc_socket_path=/nowhere/s")

    assert result.returncode == 2
    assert "--grpc_socket_path: could not listen" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_page_without_a_model_is_rejected(tmp_path):
    (tmp_path / "models.config").write_text("model_config_list {}\n")

    result = _run("--model_config_file", str(tmp_path / "models.config"), "--port=0", "--ui", "--ui_port=0")

    assert result.returncode == 2
    assert f"--ui: found no model in {tmp_path / 'models.config'}, expected at least one" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_page_that_cannot_start_stops_the_server(toys, tmp_path):
    staging = stage(toys, tmp_path, 1)
    write_warmup(staging, predict_request({"steps": np.int64(1 << 40)}, signature="slow"))  # loads forever
    os.rename(staging, tmp_path / "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        result = _run("--model_base_path", str(tmp_path), "--port=0", "--ui", f"--ui_port={port}", timeout=120)

    assert result.returncode == 2
    assert f"--ui_port {port}: found Address already in use at 127.0.0.1, expected a free port" in result.stderr


def test_wrong_flags_are_rejected_before_tensorflow_loads(tmp_path):
    (tmp_path / "wrong").write_text("wrong")
    monitoring = tmp_path / "monitoring"
    monitoring.write_text('prometheus_config { enable: true, path: "metrics" }')
    flags = {
        "--ui_samples nowhere: found no folder": ["--ui", "--ui_port=0", "--ui_samples=nowhere"],
        f"--ssl_config_file {tmp_path}/absent: found": ["--ssl_config_file", f"{tmp_path}/absent"],
        f"--model_config_file {tmp_path}/wrong: found": ["--model_config_file", f"{tmp_path}/wrong"],
        f"--batching_parameters_file {tmp_path}/wrong: found": [
            "--enable_batching",
            "--batching_parameters_file",
            f"{tmp_path}/wrong",
        ],
        "found 'metrics' as path of prometheus_config": [
            "--rest_api_port=0",
            "--monitoring_config_file",
            str(monitoring),
        ],
        "--grpc_channel_arguments: found 'x'": ["--grpc_channel_arguments=x"],
        f"request log {tmp_path}/wrong: found": ["--request_log_dir", f"{tmp_path}/wrong"],
    }
    common = ["serve", "--model_base_path", str(tmp_path), "--port=0", "--engine=local"]
    program = (
        "import sys; from typer.testing import CliRunner; from pipeline.cli.main import app;"
        f"errors = [repr(CliRunner().invoke(app, {common!r} + each).exception) for each in {list(flags.values())!r}];"
        "print(*errors, 'tensorflow' in sys.modules, sep='\\n')"
    )

    result = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, text=True, capture_output=True, timeout=120)

    *errors, loaded = result.stdout.splitlines()
    for text, error in zip(flags, errors, strict=True):
        assert text in error
    assert loaded == "False"


def test_a_pipe_is_left_for_the_server_to_read(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b'server_key: "secret"')
    os.close(writer)

    check_flags(ServeOptions(model_base_path=str(tmp_path), ssl_config_file=f"/dev/fd/{reader}"))

    assert os.read(reader, 100) == b'server_key: "secret"'
    os.close(reader)


def test_single_version_in_place_of_the_folder_above_it_is_explained(toys):
    result = _run("--model_base_path", str(toys / "1"))

    assert result.returncode == 2
    assert f"expected the folder above it, {toys}" in result.stderr


def test_a_folder_of_models_is_explained(tmp_path):
    (tmp_path / "street" / "1").mkdir(parents=True)

    result = _run("--model_base_path", str(tmp_path))

    assert result.returncode == 2
    assert f"found no numbered version, expected a folder of versions, such as {tmp_path}/street" in result.stderr


def test_the_arguments_of_the_manifest_are_taken(toys, tmp_path, start):
    pod = yaml.safe_load((_ROOT / "kubernetes/serving/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    containers = {each["name"]: each for each in (*pod.get("initContainers", ()), *pod["containers"])}
    of_the_pod = (
        "--port",
        "--grpc_socket_path",
        "--rest_api_port",
        "--model_config_file=",
        "--batching",
        "--monitoring",
    )
    flags = [flag for flag in containers["tensorflow-serving"]["args"] if not flag.startswith(of_the_pod)]
    assert {"--tensorflow_intra_op_parallelism=4", "--enable_batching=true"} < set(flags)
    push(toys, tmp_path, 1)

    server = start(tmp_path, *flags)

    ignored = "--tensorflow_intra_op_parallelism, --tensorflow_inter_op_parallelism: no effect on the local server"
    assert server.line("ignored") == f"ignored  {ignored}"
    assert server.line("toy") == "toy  version 1 ready"


def test_a_unix_socket_replaces_port_0(toys, tmp_path):
    (tmp_path / "toy").mkdir()
    push(toys, tmp_path / "toy", 1)
    socket_path = tmp_path / "grpc.sock"
    with serving(model_base_path=tmp_path / "toy", grpc_socket_path=socket_path) as server:
        with grpc.insecure_channel(f"unix:{socket_path}") as channel:
            answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(predict_request(_X), timeout=20)

        assert answer.model_spec.version.value == 1
        assert server.port == 0


def test_arguments_of_the_channel_are_obeyed(toys, tmp_path):
    push(toys, tmp_path, 1)
    limit = "grpc.max_receive_message_length=100,grpc.primary_user_agent=x"
    with connected(model_base_path=tmp_path, grpc_channel_arguments=limit) as connection:
        assert connection.predict(_X).model_spec.version.value == 1
        code, text = connection.refusal({"x": np.ones((100, 2), np.float32)})

    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in text


def test_the_host_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SEGPIPE_HOST", "no.such.host.invalid")

    result = _run("--model_base_path", ".", "--port=0", "--engine=local")

    assert "could not listen on no.such.host.invalid:0" in result.stderr
    for image in ("serving-tools", "pipeline"):
        dockerfile = (_ROOT / "kubernetes" / "images" / f"{image}.Dockerfile").read_text()
        assert "SEGPIPE_HOST=0.0.0.0" in dockerfile


def test_the_version_is_that_of_tensorflow():
    assert f"TensorFlow {tf.__version__}" in _run("--version").stdout


def test_help_names_tensorflow_servings_flags_without_loading_it():
    result = _run("--help")

    for flag in ("--model_config_file", "--enable_batching", "--ssl_config_file", "--monitoring_config_file"):
        assert flag in result.stdout


def test_the_documentation_lists_every_flag_and_marks_our_own():
    page = (_ROOT / "docs" / "serving.md").read_text()

    for field in dataclasses.fields(ServeOptions):
        assert f"| `--{field.name}`{' *' if field.metadata['own'] else ''} |" in page
    for name in IGNORED_FLAGS:
        assert f"`--{name}`" in page


@pytest.mark.skipif(shutil.which("tensorflow_model_server") is None, reason="TensorFlow Serving is not installed")
def test_every_flag_of_tensorflow_serving_is_known():
    usage = subprocess.run(["tensorflow_model_server", "--help"], text=True, capture_output=True, timeout=120).stdout
    known = {field.name for field in dataclasses.fields(ServeOptions) if not field.metadata["own"]}

    assert set(re.findall(r"^\s*--(\w+)=", usage, re.MULTILINE)) <= known | {*IGNORED_FLAGS, "version", "help"}
