"""The server that `segpipe serve --engine` starts, with fake engines that record their arguments."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.errors import UsageError
from serving.engine import IMAGE, Engine, choose

_ROOT = Path(__file__).parents[2]
_OWN = frozenset({"ui", "max_queue", "host"})


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The only folder of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def _install(folder, name, *, has_image=True):
    """Writes a command that records its arguments in NAME.log; `has_image` is its answer about the image."""
    command = folder / name
    inspect = f'[ "$2" = inspect ] && exit {0 if has_image else 1}\n'
    command.write_text(f'#!/bin/sh\n{inspect}printf "%s\\n" "$@" > "{command}.log"\n')
    command.chmod(0o755)


def _serve(*flags):
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-m", "pipeline.cli.main", "serve", *flags]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)


def test_an_installed_tensorflow_serving_is_started_with_the_flags_given(commands, tmp_path):
    _install(commands, "tensorflow_model_server")
    flags = ["--enable_batching", "--model_config_file_poll_wait_seconds=5", "--tensorflow_intra_op_parallelism=4"]

    done = _serve("--model_base_path", os.path.relpath(tmp_path), "--rest_api_port", "8501", *flags)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"engine  TensorFlow Serving, {commands}/tensorflow_model_server; it listens on all")
    assert (commands / "tensorflow_model_server.log").read_text().splitlines() == [
        f"--model_base_path={tmp_path}",
        "--model_config_file_poll_wait_seconds=5",
        "--rest_api_port=8501",
        "--enable_batching=true",
        "--tensorflow_intra_op_parallelism=4",
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ui": True}, "has no --ui"),
        ({"max_queue": 3}, "has no --max_queue"),
        ({"file_system_poll_wait_seconds": 0.5}, "takes whole seconds"),
        ({"port": 0}, "does not choose a free port for --port=0"),
        ({"rest_api_port": 0, "grpc_socket_path": "/run/s"}, "does not choose a free port for --rest_api_port=0"),
    ],
)
def test_a_flag_of_the_local_server_only_selects_it_or_is_an_error(commands, given, reason):
    _install(commands, "tensorflow_model_server")

    command, why = choose(Engine.auto, given, _OWN)

    assert command is None
    assert why.startswith("local server")
    assert reason in why
    with pytest.raises(UsageError, match=f"--engine tensorflow-serving: .*{reason}.*use --engine local"):
        choose(Engine.tensorflow_serving, given, _OWN)


def test_port_0_with_a_socket_is_passed_to_tensorflow_serving(commands):
    _install(commands, "tensorflow_model_server")

    command, _ = choose(Engine.auto, {"port": 0, "grpc_socket_path": "/run/s"}, _OWN)

    assert command == [f"{commands}/tensorflow_model_server", "--port=0", "--grpc_socket_path=/run/s"]


def test_engine_local_starts_the_local_server(commands):
    _install(commands, "tensorflow_model_server")

    assert choose(Engine.local, {}, _OWN) == (None, "local server, because of --engine local")


@pytest.mark.parametrize("has_image", [False, None])
def test_without_tensorflow_serving_the_local_server_is_started(commands, has_image):
    if has_image is not None:
        _install(commands, "docker", has_image=has_image)

    command, why = choose(Engine.auto, {}, _OWN)

    assert command is None
    assert f"tensorflow_model_server is not on PATH, and neither docker nor podman has the image {IMAGE}" in why
    with pytest.raises(UsageError, match="Install one of them, or use --engine local"):
        choose(Engine.tensorflow_serving, {}, _OWN)


def test_a_container_mounts_folders_and_files_at_their_own_paths(commands, tmp_path):
    _install(commands, "docker", has_image=False)
    _install(commands, "podman")
    config = tmp_path / "config" / "models.config"
    config.parent.mkdir()
    models = tmp_path / "models"
    models.mkdir()
    base_paths = (models, "gs://bucket/b", "relative", tmp_path / "absent")
    entries = " ".join(f'config {{ name: "a" base_path: "{base_path}" }}' for base_path in base_paths)
    config.write_text(f"model_config_list {{ {entries} }}")
    given = {"model_config_file": str(config), "rest_api_port": 8501, "grpc_socket_path": "/run/tf/grpc.sock"}

    command, why = choose(Engine.auto, given, _OWN)

    assert why == f"TensorFlow Serving, {IMAGE} in podman; it listens on 127.0.0.1"
    assert command == [
        *("podman", "run", "--rm", "--init", "--pull=never"),
        *("--publish=127.0.0.1:8500:8500", "--publish=127.0.0.1:8501:8501"),
        f"--volume={config.parent}:{config.parent}:ro",
        *(f"--volume={models}:{models}:ro", "--volume=/run/tf:/run/tf"),
        *("--entrypoint=tensorflow_model_server", IMAGE),
        *(f"--{name}={value}" for name, value in given.items()),
    ]


def test_an_unreadable_configuration_for_a_container_is_an_error(commands, tmp_path):
    _install(commands, "docker")

    with pytest.raises(UsageError, match=f"--model_config_file {tmp_path}: found .*expected a readable text file"):
        choose(Engine.auto, {"model_config_file": str(tmp_path)}, _OWN)


def test_the_manifest_command_is_in_the_image_and_starts_the_local_server(commands):
    _install(commands, "segpipe")
    image = _ROOT / "kubernetes" / "images"

    subprocess.run([image / "tensorflow_model_server", "--port=8500", "--model_name=a b"], check=True)

    assert (commands / "segpipe.log").read_text().splitlines() == ["serve", "--port=8500", "--model_name=a b"]
    dockerfile = (image / "serving-tools.Dockerfile").read_text()
    assert "kubernetes/images/tensorflow_model_server /usr/local/bin/" in dockerfile
    assert "SEGPIPE_ENGINE=local" in dockerfile


def test_the_engine_can_be_set_in_the_environment(commands, tmp_path, monkeypatch):
    _install(commands, "tensorflow_model_server")
    monkeypatch.setenv("SEGPIPE_ENGINE", "local")

    done = _serve("--model_base_path", str(tmp_path), "--grpc_channel_arguments=wrong")

    assert done.stdout == "engine  local server, because of --engine local\n"
    assert not (commands / "tensorflow_model_server.log").exists()


def test_the_image_is_that_of_the_manifest():
    pod = yaml.safe_load((_ROOT / "kubernetes/serving/base/deployment.yaml").read_text())["spec"]["template"]["spec"]

    images = {each["name"]: each["image"] for each in (*pod.get("initContainers", ()), *pod["containers"])}
    assert images["tensorflow-serving"] == IMAGE


@pytest.mark.skipif(shutil.which("tensorflow_model_server") is None, reason="TensorFlow Serving is not installed")
def test_the_real_tensorflow_serving_is_started(tmp_path):
    done = _serve("--model_base_path", str(tmp_path), "--engine=tensorflow-serving", "--ssl_config_file=/nowhere")

    assert done.stdout.startswith("engine  TensorFlow Serving, ")
    assert "/nowhere" in done.stdout + done.stderr
    assert done.returncode not in (0, 2)
