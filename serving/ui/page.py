"""Starts and stops the page's web server."""

from __future__ import annotations

from serving.client import Client, Retries, Tls
from serving.http_server import HttpServer, host_port
from serving.ui.app import Samples, create_app

# For a user who waits, an error after two seconds is better than an answer after a minute.
_RETRIES = Retries(attempts=4, first_pause=0.1)
_DEADLINE = 30.0


class Page:
    """A running page."""

    def __init__(self, server: HttpServer, host: str, client: Client) -> None:
        self._server = server
        self._client = client
        self.port = server.port
        self.address = f"http://{host_port(host, self.port)}/"

    def stop(self) -> None:
        """Finishes in-flight requests and stops the page."""
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
    """Starts the page for a model server.

    Args:
        target: HOST:PORT of the model server's gRPC port; it need not run yet.
        host: address to listen on.
        port: port to listen on; 0 picks a free one, see `Page.port`.
        samples_dir: folder of sample images; None for no samples.
        model: name of the served model.
        tls: None for an unencrypted connection.

    Raises:
        UsageError: the port is in use, or the folder does not exist.
    """
    samples = Samples(samples_dir)
    client = Client(target, model=model, tls=tls, retries=_RETRIES, deadline=_DEADLINE)
    try:
        return Page(HttpServer(create_app(client, samples), host, port, "--ui_port"), host, client)
    except BaseException:
        client.close()
        raise
