"""A web application in a thread of its own, so that gRPC and HTTP share one process."""

from __future__ import annotations

import math
import socket
import threading
from typing import Any

import uvicorn

from components.errors import UsageError

_SECONDS_TO_DRAIN = 30


class HttpServer:
    """Serves an ASGI application at a port until it is stopped."""

    def __init__(self, app: Any, host: str, port: int, flag: str = "--rest_api_port") -> None:
        """Binds the port, 0 for any free one, and starts serving.

        Raises:
            UsageError: the port, which `flag` names, is not free.
        """
        self._socket = _listen(host, port, flag)
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name=f"http-{self.port}", daemon=True
        )
        self._thread.start()

    def stop(self, grace: float = _SECONDS_TO_DRAIN) -> None:
        """Accepts no more connections, answers the requests in progress for `grace` seconds and ends."""
        self._server.config.timeout_graceful_shutdown = math.ceil(grace)
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def _listen(host: str, port: int, flag: str) -> socket.socket:
    # asyncio turns Nagle's algorithm off only for sockets that say they are TCP; with it, answers take 40 ms longer.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"{flag} {port}: found {error.strerror} at {host}, expected a free port") from None
    return listener
