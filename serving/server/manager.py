"""Keeps the versions loaded that the configuration asks for: finds, loads, retries and unloads them.

One thread looks at the folders and decides, others load. As with TensorFlow Serving's
availability-preserving policy, a version goes only once its successor is there. As there too, a
version is known by its number: one that serves goes on doing so where its folder becomes another.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import threading
import time
from collections.abc import Callable

from serving.server.errors import status_of
from serving.server.loading import load
from serving.server.registry import ModelRegistry
from serving.server.requests import RequestLimits
from serving.server.runner import Runner
from serving.server.servable import AVAILABLE, END, LOADING, START, UNLOADING, Servable
from serving.server.version_policy import choose_versions, find_versions, fingerprint

_LOG = logging.getLogger("segpipe.serving")


@dataclasses.dataclass(frozen=True)
class ManagerOptions:
    """How versions are found and loaded; names and defaults are TensorFlow Serving's.

    Attributes:
        file_system_poll_wait_seconds: between looks at the version folders; 0 looks only after a new configuration.
        max_num_load_retries: attempts after a failed load.
        load_retry_interval_micros: between attempts, in microseconds.
        num_load_threads: versions that load at once, at least one.
        enable_model_warmup: whether a version's warm-up requests are sent before it serves.
        num_request_iterations_for_warmup: how often each warm-up request is sent.
    """

    file_system_poll_wait_seconds: float = 1
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 1
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 1


class ModelManager:
    """The threads behind a registry."""

    def __init__(
        self,
        registry: ModelRegistry,
        options: ManagerOptions,
        limits: RequestLimits,
        wrap: Callable[[Runner], Runner] = lambda runner: runner,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts the threads.

        Args:
            registry: the models.
            options: how versions are found and loaded.
            limits: of the clients' requests.
            wrap: puts batching around a loaded version, or nothing.
            on_change: is told of every change of a version's state, and at times without one.
        """
        self._registry = registry
        self._options = options
        self._limits = limits
        self._wrap = wrap
        self._on_change = on_change
        self._closing = False
        self._next_poll = 0.0
        self._pool = concurrent.futures.ThreadPoolExecutor(options.num_load_threads, "load")
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()

    def poll_now(self) -> None:
        """Looks at the folders at once."""
        with self._registry.changed:
            self._next_poll = 0.0
            self._registry.wake()

    def close(self) -> None:
        """Ends the threads and frees every model. No request may be in progress."""
        with self._registry.changed:
            self._closing = True
            self._registry.closed = True
            self._registry.wake()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        for servable in self._registry.all_servables():
            if servable.runner is not None:
                self._unload(servable)

    def _run(self) -> None:
        registry = self._registry
        while True:
            with registry.changed:
                registry.changed.wait_for(lambda: registry.dirty or self._closing, self._pause())
                if self._closing:
                    return
                registry.dirty = False
            try:
                self._poll()
                self._decide()
                self._on_change()
            except Exception:
                # Nothing here is expected to fail; if it does, what is loaded goes on serving.
                _LOG.exception("looking after the models failed; the next look follows")

    def _pause(self) -> float:
        """Returns the seconds until something is due."""
        due = [self._next_poll, *(s.retry_at for s in self._registry.all_servables() if s.retry_at is not None)]
        return min(max(min(due) - time.monotonic(), 0), threading.TIMEOUT_MAX)

    def _poll(self) -> None:
        """Looks at the folders, where that is due. The lock is free meanwhile, for the disk may be slow."""
        registry = self._registry
        with registry.changed:
            if time.monotonic() < self._next_poll:
                return
            wait = self._options.file_system_poll_wait_seconds
            self._next_poll = time.monotonic() + (wait if wait > 0 else float("inf"))
            models = dict(registry.models)
            broken = [s for s in registry.all_servables() if (s.state == END and s.broken) or s.retry_at is not None]
        found = {name: find_versions(model.base_path) for name, model in models.items()}
        repaired = [servable for servable in broken if fingerprint(servable.directory) != servable.fingerprint]
        with registry.changed:
            for name, versions in found.items():
                # What was found at a path that is no longer the model's says nothing.
                if name not in registry.models or registry.models[name].base_path != models[name].base_path:
                    continue
                registry.looked_at.add(name)
                # A base path that cannot be read keeps its versions: nothing is unloaded for a lost mount.
                if versions is not None:
                    registry.found[name] = versions
            for servable in repaired:
                registry.servables[servable.model].pop(servable.version, None)

    def _decide(self) -> None:
        registry = self._registry
        with registry.changed:
            for name in {*registry.models, *registry.servables}:
                self._plan(name)
            finished = [s for s in registry.all_servables() if s.state == UNLOADING and s.users == 0]
            due = sorted(filter(_is_due, registry.all_servables()), key=lambda s: s.version, reverse=True)
            for servable in due:
                servable.state = LOADING
                servable.retry_at = None
            registry.mark_considered()
        for servable in finished:
            self._unload(servable)
        for servable in due:
            self._pool.submit(self._load, servable)

    def _plan(self, name: str) -> None:
        """Adds the versions of a model that should serve, and sends away those that should not."""
        versions = self._registry.servables.setdefault(name, {})
        model, found = self._registry.models.get(name), self._registry.found.get(name, {})
        if model is not None and name not in self._registry.found:
            return
        # Idle versions whose folder is now another one. What happened to the old folder says nothing of the new one.
        replaced = {
            number
            for number, servable in versions.items()
            if number in found and servable.directory != found[number] and _is_idle(servable)
        }
        broken = {number for number, servable in versions.items() if servable.broken and number not in replaced}
        aspired = choose_versions(model.model_version_policy, found, broken) if model is not None else set()
        for number in replaced & aspired:
            del versions[number]
        moved = name not in self._registry.wanted
        before = self._registry.wanted.get(name, set())
        self._registry.wanted[name] = aspired
        for number in aspired:
            present = versions.get(number)
            # Asked for anew, a version that failed gets all its attempts again.
            if present is None or (present.state == END and (not present.broken or number not in before)):
                versions[number] = Servable(name, number, found[number])
            elif moved and present.directory != found[number] and present.state != UNLOADING:
                _LOG.warning(
                    "%s goes on from %s; %s is not loaded, for a version is known by its number. Give it another",
                    present,
                    present.directory,
                    found[number],
                )
        for number, servable in list(versions.items()):
            if number not in aspired and servable.state == START:
                del versions[number]
            elif number not in aspired and servable.retry_at is not None:
                servable.state, servable.retry_at = END, None
        serving = sorted((s for s in versions.values() if s.state == AVAILABLE), key=lambda s: s.version)
        surplus = [servable for servable in serving if servable.version not in aspired]
        if aspired and len(surplus) == len(serving):
            surplus = surplus[:-1]
        for servable in surplus:
            servable.state = UNLOADING

    def _load(self, servable: Servable) -> None:
        options = self._options
        began = time.monotonic()
        seen = fingerprint(servable.directory)
        try:
            session = load(
                servable.directory,
                self._limits,
                options.enable_model_warmup,
                max(options.num_request_iterations_for_warmup, 1),
            )
        except Exception as error:
            self._note_failure(servable, error, seen)
            return
        with self._registry.changed:
            servable.session, servable.runner = session, self._wrap(session)
            servable.state, servable.error = AVAILABLE, None
            self._registry.wake()
        _LOG.info("loaded %s in %.1f s from %s", servable, time.monotonic() - began, servable.directory)

    def _note_failure(self, servable: Servable, error: Exception, seen: tuple[tuple[str, int, int], ...]) -> None:
        code, message = status_of(error)
        with self._registry.changed:
            servable.error = code, message
            servable.attempts += 1
            servable.fingerprint = seen
            again = servable.attempts <= self._options.max_num_load_retries
            if again:
                servable.retry_at = time.monotonic() + max(self._options.load_retry_interval_micros, 0) / 1e6
            else:
                servable.state = END
            self._registry.reconsider(servable.model)
        then = "trying again later" if again else "not trying again until its files change"
        _LOG.warning("could not load %s from %s, %s: %s", servable, servable.directory, then, message)

    def _unload(self, servable: Servable) -> None:
        runner = servable.runner
        with self._registry.changed:
            servable.session = servable.runner = None
        if runner is not None:
            runner.close()
        with self._registry.changed:
            servable.state = END
            self._registry.reconsider(servable.model)
        _LOG.info("unloaded %s", servable)


def _is_idle(servable: Servable) -> bool:
    """Tells whether a version is neither loaded nor being loaded. The caller holds the registry's lock."""
    return servable.state in (START, END) or servable.retry_at is not None


def _is_due(servable: Servable) -> bool:
    """Tells whether a version should begin to load. The caller holds the registry's lock."""
    if servable.state == START:
        return True
    return servable.retry_at is not None and servable.retry_at <= time.monotonic()
