"""Starts all parts of the server, and stops them in order: new requests first, then running ones."""

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
from serving.http_server import HttpServer, host_port
from serving.request_log import RequestLog
from serving.server.batching import BatchScheduler
from serving.server.configuration import first_config, read_batching_options, read_credentials, read_model_config
from serving.server.core import ServerCore
from serving.server.errors import ServingError
from serving.server.grpc_server import GrpcServer, Health
from serving.server.monitoring import Metrics
from serving.server.options import ServeOptions
from serving.server.rest import RestApp
from serving.server.servable import AVAILABLE, State

_LOG = logging.getLogger("segpipe.serving")
_SECONDS_TO_FLUSH = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server:
    """A running server.

    Attributes:
        core: answers the calls.
        port: the gRPC port; 0 without one.
        rest_port: the REST port; None without REST.
        addresses: lines for the user.
    """

    def __init__(self, options: ServeOptions, on_ready: Callable[[Server], None]) -> None:
        """Opens the ports and starts to load models; the health service answers NOT_SERVING until they are available.

        Calls `on_ready` when the first models are available or have failed. Raises UsageError if a file or a port
        cannot be used.
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
            opened.callback(self.core.registry.close)
            grpc_server = GrpcServer(self.core, metrics, self._health, options, credentials)
            opened.callback(grpc_server.stop)
            self.port = grpc_server.port
            targets = [host_port(options.host, self.port)] if self.port else []
            targets += [f"unix:{options.grpc_socket_path}"] if options.grpc_socket_path else []
            self.addresses = [f"gRPC  {', '.join(targets)}{' with TLS' if credentials else ''}"]
            if options.rest_api_port is not None:
                self._rest = HttpServer(RestApp(self.core, metrics, options), options.host, options.rest_api_port)
                opened.callback(self._rest.stop)
                self.addresses.append(f"REST  http://{host_port(options.host, self._rest.port)}/v1/models/")
            self.rest_port = self._rest.port if self._rest is not None else None
            # Loading cannot be cancelled, so everything that may fail comes first.
            if options.ui:
                self._start_page(targets[0], str(config.model_config_list.config[0].name))
            following = (config, lambda: on_ready(self))
            threading.Thread(target=self._follow_config, args=following, name="model-config", daemon=True).start()
            self._opened = opened.pop_all()

    def stop(self) -> None:
        """Drains: reports NOT_SERVING, rejects new requests, and gives running ones `drain_seconds` to finish."""
        until = time.monotonic() + self._options.drain_seconds
        # Requests of the page drain at the same time.
        page = threading.Thread(target=self._stop_page, name="page", daemon=True)
        page.start()
        self.core.admission.close()
        self._health.enter_graceful_shutdown()
        self._closing.set()
        # The port stays open meanwhile, so that late callers get UNAVAILABLE and can try another server.
        self.core.admission.wait_until_empty(self._options.drain_seconds)
        if self._rest is not None:
            self._rest.stop(_left(until))
        self._opened.close()
        page.join(_left(until))

    def _start_page(self, target: str, model: str) -> None:
        from serving.ui import page

        options = self._options
        if self.port and options.host in ("0.0.0.0", "::"):
            target = host_port("127.0.0.1", self.port)
        started = page.start(target, options.host, options.ui_port, options.ui_samples, model=model)
        self._stop_page = started.stop
        self.addresses.append(f"page  {started.address}")

    def _follow_config(self, config: Any, on_ready: Callable[[], None]) -> None:
        """Applies a configuration, then polls its file."""
        path, wait = self._options.model_config_file, self._options.model_config_file_poll_wait_seconds
        problem = self._apply(lambda: config, "")
        on_ready()
        while path is not None and wait > 0 and not self._closing.wait(wait):
            problem = self._apply(lambda: read_model_config(path), problem)

    def _apply(self, read: Callable[[], Any], logged: str) -> str:
        """Applies a configuration; returns the problem, or "", and logs it if it is new."""
        problem = ""
        try:
            self.core.reload(read())
        except UsageError as error:
            problem = str(error)
        except ServingError as error:
            problem = f"the model configuration was not fully applied: {error.message}"
        if problem not in ("", logged):
            _LOG.warning("%s", problem)
        return problem

    def _version_states(self) -> list[tuple[str, int, str]]:
        registry = self.core.registry
        servables = [servable for name in registry.model_names() for servable in registry.versions(name)]
        return [(servable.model, servable.version, State.Name(servable.state)) for servable in servables]


def run(options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once.

    `say` prints a line for the user. Raises UsageError if a file or a port cannot be used.
    """
    # The interpreter's C handler writes a byte to the socket. A Python handler that sets an Event could deadlock: it
    # runs in the main thread, which may hold the Event's lock at that moment.
    signalled, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    try:
        server = Server(options, lambda ready: _announce_models(ready, say))
        for line in server.addresses:
            say(line)
        signalled.recv(1)
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    say("draining: rejecting new requests, finishing running ones; signal again to stop at once")
    server.stop()


def _announce_models(server: Server, say: Callable[[str], None]) -> None:
    registry = server.core.registry
    for name in registry.model_names():
        serving = [servable.version for servable in registry.versions(name) if servable.state == AVAILABLE]
        labels = [f"{label}={version}" for label, version in sorted(registry.models[name].labels.items())]
        found = f"version {', '.join(map(str, serving))} ready" if serving else "no version is available yet"
        say(f"{name}  {found}{' (' + ', '.join(labels) + ')' if labels else ''}")


def _left(until: float) -> float:
    """Returns the seconds until a time, but enough to flush finished responses."""
    return max(until - time.monotonic(), _SECONDS_TO_FLUSH)
