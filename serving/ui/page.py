"""Starts and stops the page's web server."""

from __future__ import annotations

from serving.client import Client, Retries, Tls
from serving.http_server import HttpServer
from serving.ui.app import create_app
from serving.ui.samples import Samples

# Somebody is looking at the page: an error after two seconds is better than an answer after a minute.
_RETRIES = Retries(attempts=4, first_pause=0.1)
_DEADLINE = 30.0


class Page:
    """A page that is being served."""

    def __init__(self, server: HttpServer, host: str, client: Client) -> None:
        self._server = server
        self._client = client
        self.port = server.port
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def stop(self) -> None:
        """Ends the page; requests under way are answered first."""
        self._server.stop()
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
    client = Client(target, model=model, tls=tls, retries=_RETRIES, deadline=_DEADLINE)
    try:
        return Page(HttpServer(create_app(client, samples), host, port, "--ui_port"), host, client)
    except BaseException:
        client.close()
        raise
