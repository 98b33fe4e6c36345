"""Starts every part of the server, and takes them down in order: first no new requests, then no running ones."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from components.errors import UsageError
from serving.http_server import HttpServer
from serving.request_log import RequestLog
from serving.server.batching import BatchScheduler, read_batching_options
from serving.server.core import ServerCore
from serving.server.errors import ServingError
from serving.server.grpc_server import GrpcServer
from serving.server.health import Health
from serving.server.model_config import first_config, read_model_config
from serving.server.monitoring import Metrics
from serving.server.options import ServeOptions
from serving.server.rest import RestApp
from serving.server.servable import AVAILABLE, State
from serving.server.tls import read_credentials

_LOG = logging.getLogger("segpipe.serving")
_SECONDS_TO_FLUSH = 1.0
_ENDING = (signal.SIGTERM, signal.SIGINT)


class Server:
    """A running server. `port` is 0 without a gRPC port, `rest_port` None without REST; `addresses` are for users."""

    def __init__(self, options: ServeOptions, on_ready: Callable[[Server], None]) -> None:
        """Opens the ports and begins to load; until models serve, the health service says NOT_SERVING.

        `on_ready` is called once the first models serve, or cannot. Raises UsageError if a file or a port cannot be
        used.
        """
        config = first_config(options)
        credentials = read_credentials(options.ssl_config_file) if options.ssl_config_file else None
        self._options = options
        self._health = Health()
        scheduler: BatchScheduler | None = None
        request_log: RequestLog | None = None
        self._rest: HttpServer | None = None
        self._stop_page: Callable[[], None] = lambda: None
        self._closing = threading.Event()
        metrics = Metrics(self._version_states, lambda: scheduler.queued if scheduler else 0)
        with contextlib.ExitStack() as opened:
            if options.enable_batching:
                batching = read_batching_options(options.batching_parameters_file)
                scheduler = BatchScheduler(batching, metrics.batch, options.max_queue_wait_in_ms / 1000)
                opened.callback(scheduler.close)
            if options.request_log_dir is not None:
                request_log = RequestLog(options.request_log_dir, options.request_log_sampling_rate)
                opened.callback(request_log.close)
            self.core = ServerCore(options, self._health.update, scheduler, request_log)
            opened.callback(self.core.close)
            grpc_server = GrpcServer(self.core, metrics, self._health, options, credentials)
            opened.callback(grpc_server.stop)
            self.port = grpc_server.port
            targets = [_address(options.host, self.port)] if self.port else []
            targets += [f"unix:{options.grpc_socket_path}"] if options.grpc_socket_path else []
            self.addresses = [f"gRPC  {', '.join(targets)}{' with TLS' if credentials else ''}"]
            if options.rest_api_port is not None:
                self._rest = HttpServer(RestApp(self.core, metrics, options), options.host, options.rest_api_port)
                opened.callback(self._rest.stop)
                self.addresses.append(f"REST  http://{_address(options.host, self._rest.port)}/v1/models/")
            self.rest_port = self._rest.port if self._rest is not None else None
            # A load that has begun could not be ended, so whatever may fail comes before the first.
            if options.ui:
                self._start_page(targets[0], str(config.model_config_list.config[0].name))
            following = (config, lambda: on_ready(self))
            threading.Thread(target=self._follow_config, args=following, name="model-config", daemon=True).start()
            self._opened = opened.pop_all()

    def stop(self) -> None:
        """Drains: the health service says NOT_SERVING, new requests are refused, running ones have the grace to end."""
        until = time.monotonic() + self._options.drain_seconds
        # What the page has asked is answered within the same grace.
        page = threading.Thread(target=self._stop_page, name="page", daemon=True)
        page.start()
        self.core.admission.close()
        self._health.enter_graceful_shutdown()
        self._closing.set()
        # The port stays open meanwhile: a late caller reads UNAVAILABLE and may try another server.
        self.core.admission.wait_until_empty(self._options.drain_seconds)
        if self._rest is not None:
            self._rest.stop(_left(until))
        self._opened.close()
        page.join(_left(until))

    def _start_page(self, target: str, model: str) -> None:
        from serving.ui import page

        options = self._options
        if self.port and options.host in ("0.0.0.0", "::"):
            target = _address("127.0.0.1", self.port)
        shown = page.start(target, options.host, options.ui_port, options.ui_samples, model=model)
        self._stop_page = shown.stop
        self.addresses.append(f"page  {shown.address}")

    def _follow_config(self, config: Any, on_ready: Callable[[], None]) -> None:
        """Applies a configuration, then at intervals what the file says; logs a complaint once."""
        path, wait = self._options.model_config_file, self._options.model_config_file_poll_wait_seconds
        complaint = self._apply(lambda: config, "")
        on_ready()
        while path is not None and wait > 0 and not self._closing.wait(wait):
            complaint = self._apply(lambda: read_model_config(path), complaint)

    def _apply(self, read: Callable[[], Any], known: str) -> str:
        complaint = ""
        try:
            self.core.reload(read())
        except UsageError as error:
            complaint = str(error)
        except ServingError as error:
            complaint = f"the model configuration was not applied in full: {error.message}"
        if complaint not in ("", known):
            _LOG.warning("%s", complaint)
        return complaint

    def _version_states(self) -> list[tuple[str, int, str]]:
        registry = self.core.registry
        found = [servable for name in registry.model_names() for servable in registry.versions(name)]
        return [(servable.model, servable.version, State.Name(servable.state)) for servable in found]


def run(options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once.

    `say` prints a line for the user. Raises UsageError if a file or a port cannot be used.
    """
    # The interpreter itself writes a byte to the socket. A handler in Python would run in the main thread alone, which
    # may be about to wait for good, and what it waits for, such as an Event, may be locked by the code it interrupts.
    asked, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    for number in _ENDING:
        signal.signal(number, lambda *_: None)
    try:
        server = Server(options, lambda ready: _announce_models(ready, say))
        for line in server.addresses:
            say(line)
        asked.recv(1)
    finally:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
    say("draining: no new requests, running ones are finished; asked once more, the server ends at once")
    server.stop()


def _announce_models(server: Server, say: Callable[[str], None]) -> None:
    registry = server.core.registry
    for name in registry.model_names():
        serving = [servable.version for servable in registry.versions(name) if servable.state == AVAILABLE]
        labels = [f"{label}={version}" for label, version in sorted(registry.models[name].labels.items())]
        found = f"version {', '.join(map(str, serving))} ready" if serving else "no version serves yet"
        say(f"{name}  {found}{' (' + ', '.join(labels) + ')' if labels else ''}")


def _left(until: float) -> float:
    """Returns the seconds left of a grace, enough in any case for answers that are ready to leave."""
    return max(until - time.monotonic(), _SECONDS_TO_FLUSH)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
