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
from serving.server.batching import Batcher, BatchScheduler
from serving.server.batching_options import read_batching_options
from serving.server.core import CoreOptions, ServerCore
from serving.server.errors import ServingError
from serving.server.grpc_server import GrpcServer
from serving.server.grpc_services import ModelService, PredictionService
from serving.server.health import Health
from serving.server.http_server import HttpServer
from serving.server.manager import ManagerOptions
from serving.server.model_config import check_config, labels_of, single_model
from serving.server.model_config_file import ConfigFollower, read_model_config
from serving.server.monitoring import Metrics, read_monitoring_path
from serving.server.options import ServeOptions
from serving.server.requests import RequestLimits
from serving.server.rest import RestOptions, create_app
from serving.server.runner import Runner
from serving.server.servable import AVAILABLE, State
from serving.server.tls import read_credentials

_LOG = logging.getLogger("segpipe.serving")
_SECONDS_TO_FLUSH = 1.0
_ENDING = (signal.SIGTERM, signal.SIGINT)


class Server:
    """A running server.

    Attributes:
        core: the models.
        port: of gRPC.
        rest_port: of REST, None where it is off.
    """

    def __init__(
        self,
        options: ServeOptions,
        on_ready: Callable[[Server], None] = lambda server: None,
        on_open: Callable[[Server], None] = lambda server: None,
    ) -> None:
        """Opens the ports and begins to load; until models serve, the health service says NOT_SERVING.

        Args:
            options: the flags.
            on_ready: is called once the first models serve, or cannot.
            on_open: is called once the ports are open. What it raises ends the server before a load begins, for one
                that has begun could not be ended.

        Raises:
            UsageError: a file or a port cannot be used.
        """
        config = _first_config(options)
        credentials = read_credentials(options.ssl_config_file) if options.ssl_config_file else None
        self._options = options
        self._health = Health()
        with contextlib.ExitStack() as opened:
            self._scheduler = self._start_batching()
            opened.callback(self._close_batching)
            self._metrics = Metrics(self._version_states, self._queued)
            self.core = ServerCore(
                _core_options(options),
                _manager_options(options),
                self._wrap,
                lambda core: self._health.update(core.registry),
            )
            opened.callback(self.core.close)
            self._grpc = GrpcServer(
                PredictionService(self.core, self._metrics),
                ModelService(self.core),
                self._health,
                options.host,
                options.port,
                options.max_concurrent_requests + options.max_queue,
                options.max_message_bytes,
                credentials,
            )
            opened.callback(self._grpc.stop)
            self.port = self._grpc.port
            self._rest = self._start_rest()
            if self._rest is not None:
                opened.callback(self._rest.stop)
            self.rest_port = self._rest.port if self._rest is not None else None
            on_open(self)
            self._follower = ConfigFollower(
                self.core,
                config,
                options.model_config_file,
                options.model_config_file_poll_wait_seconds,
                lambda: on_ready(self),
            )
            self._opened = opened.pop_all()

    def stop(self) -> None:
        """Drains: probes are told, new requests are refused, running ones are finished within the grace."""
        until = time.monotonic() + self._options.drain_seconds
        self.core.refuse_predictions()
        self._health.leave()
        self._follower.close()
        # The port stays open meanwhile: a late caller reads UNAVAILABLE and may try another server.
        self.core.wait_until_idle(self._options.drain_seconds)
        if self._rest is not None:
            self._rest.stop(_left(until))
        self._opened.close()

    def _start_batching(self) -> BatchScheduler | None:
        if not self._options.enable_batching:
            return None
        batching = read_batching_options(self._options.batching_parameters_file)
        return BatchScheduler(batching, lambda run: self._metrics.batch(run))

    def _close_batching(self) -> None:
        if self._scheduler is not None:
            self._scheduler.close()

    def _start_rest(self) -> HttpServer | None:
        options = self._options
        if options.rest_api_port is None:
            return None
        rest = RestOptions(
            timeout=options.rest_api_timeout_in_ms / 1000,
            num_threads=options.rest_api_num_threads,
            max_body_bytes=options.max_message_bytes,
            max_requests=options.max_concurrent_requests + options.max_queue,
            monitoring_path=read_monitoring_path(options.monitoring_config_file),
        )
        return HttpServer(create_app(self.core, self._metrics, rest), options.host, options.rest_api_port)

    def _wrap(self, runner: Runner) -> Runner:
        return runner if self._scheduler is None else Batcher(runner, self._scheduler)

    def _queued(self) -> int:
        return 0 if self._scheduler is None else self._scheduler.queued

    def _version_states(self) -> list[tuple[str, int, str]]:
        registry = self.core.registry
        return [
            (servable.model, servable.version, State.Name(servable.state))
            for name in registry.model_names()
            for servable in registry.versions(name)
        ]


def run(options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second of them ends the process, whatever it waits for.

    Args:
        options: the flags.
        say: prints a line for the user.

    Raises:
        UsageError: a file or a port cannot be used.
    """
    asked = _listen_for_signals()
    shown = _shown_model(options) if options.ui_port is not None else ""
    page: Any = None

    def open_page(opened: Server) -> None:
        nonlocal page
        page = _start_page(options, opened.port, shown)

    try:
        server = Server(options, lambda ready: _announce_models(ready, say), open_page)
        _announce_ports(options, server, page, say)
        asked.recv(1)
    finally:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
    say("draining: no new requests, running ones are finished; asked once more, the server ends at once")
    _stop(server, page, options.drain_seconds)


def _listen_for_signals() -> socket.socket:
    """Returns a socket that has a byte to read once the process is asked to end.

    The interpreter itself writes it. A handler in Python would run in the main thread alone, which may be about to
    wait for good, and what it waits for, such as an Event, may be locked by the very code that it interrupts.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    for number in _ENDING:
        signal.signal(number, lambda *_: None)
    return reader


def _stop(server: Server, page: Any, grace: float) -> None:
    """Stops the server and, beside it, the page: what the page has asked is answered within the same grace."""
    if page is None:
        server.stop()
        return
    until = time.monotonic() + grace
    ending = threading.Thread(target=page.stop, name="page", daemon=True)
    ending.start()
    server.stop()
    ending.join(_left(until))


def _left(until: float) -> float:
    """Returns the seconds left of a grace, enough in any case for answers that are ready to leave."""
    return max(until - time.monotonic(), _SECONDS_TO_FLUSH)


def _first_config(options: ServeOptions) -> Any:
    """Returns the configuration to begin with. Raises UsageError where it can never be applied."""
    if options.model_config_file is None:
        config = single_model(options.model_name, options.model_base_path)
    else:
        config = read_model_config(options.model_config_file)
    try:
        models = check_config(config)
    except ServingError as error:
        raise UsageError(f"{options.model_config_file or '--model_base_path'}: {error.message}") from None
    labelled = [name for name, labels in labels_of(models).items() if labels]
    if labelled and not options.allow_version_labels_for_unavailable_models:
        raise UsageError(
            f"--model_config_file {options.model_config_file}: found version_labels of model {labelled[0]}, expected "
            "none, for no version serves yet that a label could point to; "
            "add --allow_version_labels_for_unavailable_models"
        )
    return config


def _core_options(options: ServeOptions) -> CoreOptions:
    # The batch scheduler needs to see waiting requests to merge them, so with batching all of them may enter.
    total = options.max_concurrent_requests + options.max_queue
    running = total if options.enable_batching else options.max_concurrent_requests
    return CoreOptions(
        max_running=running,
        max_waiting=total - running,
        limits=RequestLimits(
            options.max_image_pixels, options.max_images_per_request, max_tensor_bytes=options.max_message_bytes
        ),
        allow_version_labels_for_unavailable_models=options.allow_version_labels_for_unavailable_models,
        enable_serialization_as_tensor_content=options.enable_serialization_as_tensor_content,
    )


def _manager_options(options: ServeOptions) -> ManagerOptions:
    return ManagerOptions(
        file_system_poll_wait_seconds=options.file_system_poll_wait_seconds,
        max_num_load_retries=options.max_num_load_retries,
        load_retry_interval_micros=options.load_retry_interval_micros,
        num_load_threads=max(options.num_load_threads, 1),
        enable_model_warmup=options.enable_model_warmup,
        num_request_iterations_for_warmup=options.num_request_iterations_for_warmup,
    )


def _announce_ports(options: ServeOptions, server: Server, page: Any, say: Callable[[str], None]) -> None:
    say(f"gRPC  {_address(options.host, server.port)}{' with TLS' if options.ssl_config_file else ''}")
    if server.rest_port is not None:
        say(f"REST  http://{_address(options.host, server.rest_port)}/v1/models/")
    if page is not None:
        say(f"page  {page.address}")


def _announce_models(server: Server, say: Callable[[str], None]) -> None:
    registry = server.core.registry
    for name in registry.model_names():
        serving = [servable.version for servable in registry.versions(name) if servable.state == AVAILABLE]
        labels = [f"{label}={version}" for label, version in sorted(registry.labels().get(name, {}).items())]
        found = f"version {', '.join(map(str, serving))} ready" if serving else "no version serves yet"
        say(f"{name}  {found}{' (' + ', '.join(labels) + ')' if labels else ''}")


def _shown_model(options: ServeOptions) -> str:
    """Returns the name of the model that the page asks, the first."""
    models = _first_config(options).model_config_list.config
    if not models:
        raise UsageError(
            f"--ui: found no model in {options.model_config_file}, expected at least one, for the page asks the first; "
            "leave out --ui or add a model"
        )
    return str(models[0].name)


def _start_page(options: ServeOptions, port: int, model: str) -> Any:
    if options.ui_port is None:
        return None
    from serving.ui import page

    host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    return page.start(_address(host, port), options.host, options.ui_port, options.ui_samples, model=model)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
