"""Runs a real nginx with the configuration of the manifests, in front of a server of this machine."""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="nginx is not on the PATH; the proxy's tests run it (Debian: apt-get install nginx-light)"
)
SERVING = Path(__file__).parent.parent.parent.parent / "kubernetes" / "serving"
_SECONDS_TO_START = 20


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A running nginx.

    Attributes:
        port: of gRPC.
        rest_port: of REST.
        metrics_port: for Prometheus and the probes.
        process: nginx's main process.
        log: what it wrote, errors and refused calls.
    """

    port: int
    rest_port: int
    metrics_port: int
    process: subprocess.Popen
    log: Path

    def quit(self):
        """Sends the stop signal of nginx's image, on which it finishes the requests in progress."""
        self.process.send_signal(signal.SIGQUIT)


@contextlib.contextmanager
def proxy(folder, socket_path, rest_port, files=(), replace=None):
    """Runs the manifests' nginx.conf with paths and ports of a test.

    Args:
        folder: where nginx keeps its files.
        socket_path: the Unix socket of the server behind it.
        rest_port: the server's REST port, or any port for no REST.
        files: a component's files, which the configuration includes.
        replace: further texts to replace, by what, in those files.
    """
    folder.mkdir()
    ports = dict(zip(("8500", "8501", "8503"), _free_ports(3), strict=True))
    changes = {
        " /tmp/": f" {folder}/",
        "unix:/run/serving/grpc.sock": f"unix:{socket_path}",
        "/config/serving": str(folder),
        "127.0.0.1:8502": f"127.0.0.1:{rest_port}",
        **{f"listen {port};": f"listen 127.0.0.1:{free};" for port, free in ports.items()},
        **(replace or {}),
    }
    if _version() < (1, 25, 1):
        # The directive `http2 on` came with nginx 1.25.1.
        changes |= {"http2 on;": "", f"127.0.0.1:{ports['8500']};": f"127.0.0.1:{ports['8500']} http2;"}
    for source in (SERVING / "base" / "nginx.conf", *files):
        text = source.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        (folder / source.name).write_text(text)
    log = folder / "log"
    with log.open("w") as output:
        # As root, nginx would change to another user, who may not enter the test's folder.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), *user], stdout=output, stderr=output)
    try:
        for port in ports.values():
            _await_listener(port, process, log)
        yield Proxy(*ports.values(), process, log)
    finally:
        process.terminate()
        process.wait(30)


def _version():
    shown = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(number) for number in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", shown).groups())


def _free_ports(count):
    """Returns free ports."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def _await_listener(port, process, log):
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
