"""A real S3 server for tests, SeaweedFS, and a proxy in front of it that makes requests fail."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import http.server
import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from go_programs import program

KEYS = {"AWS_ACCESS_KEY_ID": "segpipe", "AWS_SECRET_ACCESS_KEY": "segpipe-secret", "AWS_REGION": "us-east-1"}
# Building it takes four minutes on two cores, and 4 GB for the caches of Go.
_WEED = ("weed", "SEGPIPE_WEED", "github.com/seaweedfs/seaweedfs", "weed", "0.0.0-20261109003541-7506e5f91cd6")
_START_SECONDS = 60


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Runs SeaweedFS with its data in a folder, unless SEGPIPE_S3 names a server. Yields the endpoint."""
    if endpoint := os.environ.get("SEGPIPE_S3"):
        yield endpoint
        return
    weed = program(*_WEED, only_if="SEGPIPE_BUILD_WEED")
    keys = folder / "keys.json"
    credentials = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
    keys.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "segpipe",
                        "credentials": credentials,
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    }
                ]
            }
        )
    )
    master, volume, filer, s3 = _free_ports()
    command = [
        *(weed, "server", f"-dir={folder}", "-ip=127.0.0.1", f"-master.port={master}"),
        # Small volumes, to save space, and many of them, because SeaweedFS keeps several for each bucket.
        *("-master.volumeSizeLimitMB=64", "-volume.max=1000", "-master.volumePreallocate=false"),
        *(f"-volume.port={volume}", f"-filer.port={filer}", "-s3", f"-s3.port={s3}", f"-s3.config={keys}"),
    ]
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _await(f"http://127.0.0.1:{s3}", process, folder / "log.txt")
        yield f"http://127.0.0.1:{s3}"
    finally:
        process.kill()
        process.wait()


def _free_ports() -> list[int]:
    """Returns four free ports whose gRPC ports, 10,000 higher, are free too."""
    found: list[int] = []
    for port in range(12000 + os.getpid() % 5000, 22000, 7):
        with contextlib.ExitStack() as opened:
            try:
                for each in (port, port + 10000):
                    opened.enter_context(socket.socket()).bind(("127.0.0.1", each))
            except OSError:
                continue
        found.append(port)
        if len(found) == 4:
            return found
    raise RuntimeError("found no free ports for SeaweedFS")


def _await(endpoint: str, process: subprocess.Popen, log: Path) -> None:
    """Waits until the server can create a bucket."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            make_bucket(endpoint, "ready")
            return
        time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text()[-3000:]}")


def make_bucket(endpoint: str, name: str) -> None:
    """Creates a bucket with a PUT request that obstore signs."""
    import obstore
    from obstore.store import S3Store

    keys = {key.lower(): os.environ.get(key, value) for key, value in KEYS.items()}
    store = S3Store(name, endpoint=endpoint, client_options={"allow_http": True}, **keys)
    address = obstore.sign(store, "PUT", "", datetime.timedelta(minutes=5))
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="PUT"), timeout=10).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it exists
            raise OSError(f"{name}: {error.code} {error.read()!r}") from error


Rule = Callable[[str, str], "int | str | None"]


class Proxy:
    """Forwards requests to a server, unless its rule answers them.

    Attributes:
        endpoint: its own address.
        rule: takes a request's method and path, and returns the status to answer instead, or `hang`, or `lose` to pass
            the request on and answer 503, or None to pass it on.
        requests: method and path of each request that came.
    """

    def __init__(self, endpoint: str) -> None:
        self.rule: Rule = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        proxy, target = self, urllib.parse.urlsplit(endpoint)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                verdict = proxy.rule(self.command, self.path)
                if verdict == "hang":
                    proxy.released.wait()
                    self.close_connection = True
                    return
                if verdict not in (None, "lose"):
                    self.send_response(int(verdict))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                # The client signed the host name, so it must not change.
                connection = http.client.HTTPConnection(str(target.hostname), int(target.port or 80))
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                content = answer.read()
                self.send_response(503 if verdict == "lose" else answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
                self.send_header("Content-Length", str(length or 0))
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                pass

        self.released = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stops the proxy and the requests that hang."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
