"""Runs a web application in a thread, so that gRPC and HTTP share one process."""

from __future__ import annotations

import math
import socket
import threading
from typing import Any

import uvicorn

from components.errors import UsageError

_SECONDS_TO_DRAIN = 30


class HttpServer:
    """Serves an ASGI application until it is stopped."""

    def __init__(self, app: Any, host: str, port: int, flag: str = "--rest_api_port") -> None:
        """Binds the port, 0 for any free one, and starts serving.

        Raises:
            UsageError: the port, given by `flag`, is in use.
        """
        self._socket = _listen(host, port, flag)
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name=f"http-{self.port}", daemon=True
        )
        self._thread.start()

    def stop(self, grace: float = _SECONDS_TO_DRAIN) -> None:
        """Stops accepting connections, and waits up to `grace` seconds for the requests in progress."""
        self._server.config.timeout_graceful_shutdown = math.ceil(grace)
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def host_port(host: str, port: int) -> str:
    """Returns HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(host: str, port: int, flag: str) -> socket.socket:
    # asyncio disables Nagle's algorithm only for sockets with the protocol TCP; with it, answers take 40 ms longer.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"{flag} {port}: found {error.strerror} at {host}, expected a free port") from None
    return listener
