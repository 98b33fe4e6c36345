"""Chooses the server of `segpipe serve`: TensorFlow Serving if it is installed, otherwise the local server."""

from __future__ import annotations

import enum
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import UsageError
from serving.server.options import ServeOptions

# The release in kubernetes/serving/base/deployment.yaml.
IMAGE = "tensorflow/serving:2.20.0"
_BINARY = "tensorflow_model_server"
_CONTAINER_ENGINES = ("docker", "podman")
_SECONDS_TO_INSPECT = 10
_BASE_PATH = re.compile(r"base_path\s*:\s*[\"']([^\"']+)[\"']")


class Engine(str, enum.Enum):
    """The servers that `segpipe serve` can start."""

    auto = "auto"
    tensorflow_serving = "tensorflow-serving"
    local = "local"


def choose(wanted: Engine, given: Mapping[str, Any], own: frozenset[str]) -> tuple[list[str] | None, str]:
    """Returns the command that starts TensorFlow Serving, or None for the local server, and the reason in one line.

    Args:
        wanted: `auto` chooses TensorFlow Serving if it is installed and supports every given flag.
        given: the flags of the command line with their values, without dashes. Paths are absolute.
        own: names of the flags that only the local server has.

    Raises:
        UsageError: TensorFlow Serving is wanted but not installed, or does not support a given flag.
    """
    if wanted is Engine.local:
        return None, "local server, because of --engine local"
    for name, value in given.items():
        if obstacle := _obstacle(name, value, given, own):
            if wanted is Engine.auto:
                return None, f"local server, because TensorFlow Serving {obstacle}"
            raise UsageError(
                f"--engine {wanted.value}: TensorFlow Serving {obstacle}. Leave the flag out, or use --engine local"
            )
    flags = [f"--{name}={_text(value)}" for name, value in given.items()]
    binary = shutil.which(_BINARY)
    if binary is not None:
        return [binary, *flags], f"TensorFlow Serving, {binary}; it listens on all addresses"
    for engine in _CONTAINER_ENGINES:
        if _has_image(engine):
            command = _container(engine, given)
            return [*command, *flags], f"TensorFlow Serving, {IMAGE} in {engine}; it listens on 127.0.0.1"
    missing = f"{_BINARY} is not on PATH, and neither docker nor podman has the image {IMAGE}"
    if wanted is Engine.auto:
        return None, f"local server, because {missing}"
    raise UsageError(f"--engine {wanted.value}: {missing}. Install one of them, or use --engine local")


def _obstacle(name: str, value: Any, given: Mapping[str, Any], own: frozenset[str]) -> str | None:
    """Returns why TensorFlow Serving does not support a flag, or None."""
    if name in own:
        return f"has no --{name}"
    # Seconds are int32 (tensorflow_serving/model_servers/server.h).
    if isinstance(value, float) and not value.is_integer():
        return f"takes whole seconds, not --{name}={value}"
    # In its server.cc, port 0 disables the port.
    if value == 0 and (name == "rest_api_port" or (name == "port" and not given.get("grpc_socket_path"))):
        return f"does not choose a free port for --{name}=0"
    return None


def _text(value: Any) -> str:
    """Formats a value for TensorFlow's flags."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) else str(value)


def _has_image(engine: str) -> bool:
    if shutil.which(engine) is None:
        return False
    try:
        command = [engine, "image", "inspect", IMAGE]
        return subprocess.run(command, capture_output=True, timeout=_SECONDS_TO_INSPECT).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _container(engine: str, given: Mapping[str, Any]) -> list[str]:
    """Returns the start of a command that runs the image; the server's flags follow.

    Folders have the same path inside and outside, so flags and configuration files stay valid. Files are mounted with
    their folder, because a bind-mounted file does not follow its replacement.
    """
    ports = [given.get("port", ServeOptions.port), given.get("rest_api_port")]
    folders = [str(given["model_base_path"])] if given.get("model_base_path") else []
    for name, value in given.items():
        if name.endswith("_file"):
            folders.append(str(Path(value).parent))
    if given.get("model_config_file"):
        folders += _base_paths(given["model_config_file"])
    # Docker would create a missing folder, and takes a relative path for the name of a volume.
    found = [folder for folder in dict.fromkeys(folders) if os.path.isabs(folder) and os.path.isdir(folder)]
    mounts = [f"--volume={folder}:{folder}:ro" for folder in found]
    if given.get("grpc_socket_path"):
        folder = os.path.dirname(given["grpc_socket_path"])
        mounts.append(f"--volume={folder}:{folder}")
    published = [f"--publish=127.0.0.1:{port}:{port}" for port in ports if port]
    # Without an init process, the server would be process 1 and ignore SIGTERM.
    command = [engine, "run", "--rm", "--init", "--pull=never", *published, *mounts]
    return [*command, f"--entrypoint={_BINARY}", IMAGE]


def _base_paths(config_file: str) -> list[str]:
    """Returns the base paths in a text `ModelServerConfig`. Raises UsageError for an unreadable file."""
    try:
        return _BASE_PATH.findall(Path(config_file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--model_config_file {config_file}: found {error}, expected a readable text file") from None
