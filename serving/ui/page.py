"""Starts and stops the page's web server, in a thread beside whatever else the process does."""

from __future__ import annotations

import socket
import threading

import uvicorn

from components.errors import UsageError
from serving.client import Client, Retries, Tls
from serving.ui.app import create_app
from serving.ui.samples import Samples

# Somebody is looking at the page: an error after two seconds is better than an answer after a minute.
_RETRIES = Retries(attempts=4, first_pause=0.1)
_DEADLINE = 30.0


class Page:
    """A page that is being served."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket, client: Client) -> None:
        self._server = server
        self._client = client
        host, self.port = listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        self._thread = threading.Thread(target=server.run, args=([listener],), name="segpipe-ui", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the page; requests under way are answered first, within seconds."""
        self._server.should_exit = True
        self._thread.join()
        self._client.close()


def start(
    target: str,
    host: str = "127.0.0.1",
    port: int = 8502,
    samples_dir: str | None = None,
    *,
    model: str = "default",
    tls: Tls | None = None,
) -> Page:
    """Serves the page that asks a model server over gRPC, and returns at once.

    Args:
        target: HOST:PORT of the model server's gRPC port; it need not answer yet.
        host: address to listen on.
        port: port to listen on; 0 for a free one, which `Page.port` tells.
        samples_dir: folder of images that the page offers, None for none.
        model: name of the served model.
        tls: how the server is reached, None for a plain connection.

    Raises:
        UsageError: the port is taken, or the folder is not there.
    """
    samples = Samples(samples_dir)
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(
            f"--ui_port {port}: found {error.strerror} on {host}, expected a free port. Give another"
        ) from None
    client = Client(target, model=model, tls=tls, retries=_RETRIES, deadline=_DEADLINE)
    config = uvicorn.Config(
        create_app(client, samples), log_level="warning", access_log=False, timeout_graceful_shutdown=5, ws="none"
    )
    return Page(uvicorn.Server(config), listener, client)
