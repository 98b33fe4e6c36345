"""Runs MLflow's server, with SQLite, from a separate environment.

The server needs the package `mlflow`, whose requirements conflict with those of TensorFlow Extended 1.21, so the locks
have only its client. The server of the client's version is installed once, into the user's cache.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest
from filelock import FileLock

_ROOT = Path(__file__).parent.parent
_START_SECONDS = 120
# As in scripts/installer.sh: a network may have its own CA certificate.
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def _server_binary():
    """Returns the command `mlflow`, from SEGPIPE_MLFLOW or an environment that it creates; otherwise skips the test."""
    found = os.environ.get("SEGPIPE_MLFLOW")
    if found:
        return found
    version = metadata.version("mlflow-skinny")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path.home() / ".cache" / "segpipe" / f"mlflow-{version}-python{python}"
    binary = folder / "bin" / "mlflow"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        # The link to the interpreter may be broken.
        if not (binary.exists() and (folder / "bin" / "python").exists()):
            shutil.rmtree(folder, ignore_errors=True)
            uv = _ROOT / ".cache" / "uv" / "bin" / "uv"
            install = [str(uv), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
            if not uv.exists():
                install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            environment = {**os.environ, **({"UV_SYSTEM_CERTS": "true"} if _CERTIFICATES.exists() else {})}
            for command in (
                # The interpreter outside of this checkout, which may be deleted before the cache.
                [
                    os.path.realpath(sys.executable),
                    "-m",
                    "venv",
                    *(["--without-pip"] if uv.exists() else []),
                    str(folder),
                ],
                [*install, f"mlflow=={version}"],
            ):
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    shutil.rmtree(folder, ignore_errors=True)
                    pytest.skip(f"MLflow's server {version} could not be installed: {done.stderr[-500:]}")
    return str(binary)


@contextlib.contextmanager
def running(folder):
    """Runs a server on SQLite in a folder and yields its address."""
    binary = _server_binary()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [binary, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("PYTHONPATH", None)
    with open(folder / "server.log", "w") as log:
        # In a new session, so that its worker processes can be stopped with it.
        process = subprocess.Popen(
            [*command, *stores], stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, process, folder / "server.log")
            yield address
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def _wait(address, process, log):
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        assert process.poll() is None, log.read_text()[-2000:]
        time.sleep(0.2)
    raise AssertionError(f"MLflow's server did not start in {_START_SECONDS} s: {log.read_text()[-2000:]}")
