"""The models of a server: finds, loads, retries and unloads versions, and provides them to requests.

One thread lists the folders, others load and unload. Each change plans the next steps, under one lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import tensorflow as tf

from components import files
from serving.server.errors import ServingError, failed_precondition, invalid_argument, not_found, status_of
from serving.server.options import ServeOptions
from serving.server.servable import AVAILABLE, END, LOADING, START, UNLOADING, Model, Servable
from serving.server.session import SavedModelSession, load

_LOG = logging.getLogger("segpipe.serving")


class ModelRegistry:
    """`models` maps names to models, including removed ones. The condition `changed` guards them and is notified."""

    def __init__(self, options: ServeOptions, on_change: Callable[[ModelRegistry], None]) -> None:
        """Starts without models. Calls `on_change` under the lock."""
        self.changed = threading.Condition()
        self.models: dict[str, Model] = {}
        self._options = options
        self._on_change = on_change
        self._closed = False
        self._next_poll = 0.0
        self._loads = ThreadPoolExecutor(max(options.num_load_threads, 1), "load")
        self._unloads = ThreadPoolExecutor(1, "unload")
        self._poller = threading.Thread(target=self._run, name="models", daemon=True)
        self._poller.start()

    def reload(self, configs: list[Any]) -> None:
        """Replaces the configured models and their labels by `ModelConfig`s, all or nothing.

        Waits until every new model, and every model that another call waits for, is available or has failed.

        Raises:
            ServingError: FAILED_PRECONDITION if a label points to a version that is not available, UNKNOWN if one of
                the awaited models did not become available.
        """
        with self.changed:
            for config in configs:
                self._check_labels(config)
            wanted = {config.name: config for config in configs}
            wanted |= dict.fromkeys(self.models.keys() - wanted.keys())
            self.models = {name: self._model(name) for name in wanted}
            for name, model in self.models.items():
                model.configure(wanted[name])
            self._next_poll = 0.0
            self.changed.notify_all()
            awaited = [model for model in self.models.values() if model.awaited]
            self.changed.wait_for(lambda: self._closed or all(model.is_settled for model in awaited))
            for model in awaited:
                model.awaited = False
            missing = [_failure(model) for model in awaited if not model.serving]
        if missing:
            raise ServingError(
                grpc.StatusCode.UNKNOWN, f"{len(missing)} model(s) did not become available: {{{', '.join(missing)}}}"
            )

    @contextlib.contextmanager
    def use(self, spec: Any) -> Iterator[tuple[Servable, SavedModelSession]]:
        """Provides the version of a `ModelSpec`, which stays loaded inside the block.

        Raises ServingError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND if the version is not
        available.
        """
        with self.changed:
            servable = self._find(spec)
            servable.users += 1
            assert servable.session is not None
        try:
            yield servable, servable.session
        finally:
            with self.changed:
                servable.users -= 1
                if servable.state == UNLOADING:
                    self._update()

    def versions(self, name: str) -> list[Servable]:
        """Returns copies of a model's versions, newest first."""
        with self.changed:
            versions = self._model(name).versions
            return [dataclasses.replace(versions[number]) for number in sorted(versions, reverse=True)]

    def model_names(self) -> list[str]:
        """Returns the names of the configured models."""
        with self.changed:
            return [name for name, model in self.models.items() if model.config is not None]

    def is_available(self, name: str) -> bool:
        """Returns whether a model has an available version."""
        with self.changed:
            return bool(self._model(name).serving)

    def close(self) -> None:
        """Ends the threads and frees every model. No request may be in progress."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._poller.join()
        self._loads.shutdown(cancel_futures=True)
        self._unloads.shutdown()
        for servable in self._servables():
            if servable.session is not None:
                self._unload(servable, servable.session)

    def _model(self, name: str) -> Model:
        return self.models.get(name) or Model(name)

    def _servables(self) -> list[Servable]:
        """Returns every version of every model, newest first."""
        servables = [servable for model in self.models.values() for servable in model.versions.values()]
        return sorted(servables, key=lambda servable: servable.version, reverse=True)

    def _check_labels(self, config: Any) -> None:
        model, allowed = self._model(config.name), self._options.allow_version_labels_for_unavailable_models
        for label, number in config.version_labels.items():
            if number not in model.serving and not (allowed and model.labels.get(label, number) == number):
                raise failed_precondition(
                    f"Request to assign label to version {number} of model {config.name}, "
                    "which is not currently available for inference"
                )

    def _find(self, spec: Any) -> Servable:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        model = self._model(spec.name)
        serving = model.serving
        number = spec.version.value
        if spec.WhichOneof("version_choice") is None:
            if not serving:
                raise not_found(f"Servable not found for request: Latest({spec.name})")
            number = max(serving)
        if spec.HasField("version_label"):
            if spec.version_label not in model.labels:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            number = model.labels[spec.version_label]
        if number not in serving:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {number})")
        return serving[number]

    def _run(self) -> None:
        while not self._closed:
            with self.changed:
                retries = [servable.retry_at for servable in self._servables() if servable.retry_at is not None]
                pause = min(max(min([self._next_poll, *retries]) - time.monotonic(), 0), threading.TIMEOUT_MAX)
                # A change may bring the next action forward.
                if self._closed or self.changed.wait(pause):
                    continue
            try:
                self._poll()
            except Exception:
                # Not expected. Loaded models continue to serve.
                _LOG.exception("checking the models failed; trying again")

    def _poll(self) -> None:
        """Lists the folders if that is due, without the lock, because the disk may be slow."""
        paths = {}
        with self.changed:
            if time.monotonic() >= self._next_poll:
                wait = self._options.file_system_poll_wait_seconds
                self._next_poll = time.monotonic() + (wait if wait > 0 else math.inf)
                paths = {name: self.models[name].config.base_path for name in self.model_names()}
        found = {name: list_versions(path) for name, path in paths.items()}
        with self.changed:
            for name, versions in found.items():
                model = self.models[name]
                # Ignore the listing if the base path changed meanwhile.
                if model.config is not None and model.config.base_path == paths[name]:
                    model.polled = True
                    # Keep the versions if the base path cannot be listed: a lost mount must not unload models.
                    model.found = model.found if versions is None else versions
            self._update()

    def _update(self) -> None:
        """Plans and starts the next loads and unloads. The caller holds the lock."""
        if self._closed:
            return
        for model in self.models.values():
            model.plan()
        for servable in self._servables():
            retry = servable.retry_at is not None and servable.retry_at <= time.monotonic()
            if servable.state == START or retry:
                servable.state, servable.retry_at = LOADING, None
                self._loads.submit(self._load, servable)
            elif servable.state == UNLOADING and servable.users == 0 and servable.session is not None:
                self._unloads.submit(self._unload, servable, servable.session)
                servable.session = None
        self.changed.notify_all()
        self._on_change(self)

    def _load(self, servable: Servable) -> None:
        began = time.monotonic()
        try:
            session = load(servable.directory, self._options)
        except Exception as error:
            self._on_load_error(servable, *status_of(error))
            return
        with self.changed:
            servable.session, servable.state, servable.error = session, AVAILABLE, None
            self._update()
        _LOG.info("loaded %s in %.1f s from %s", servable, time.monotonic() - began, servable.directory)

    def _on_load_error(self, servable: Servable, code: grpc.StatusCode, message: str) -> None:
        with self.changed:
            servable.error = code, message
            servable.attempts += 1
            again = servable.attempts <= self._options.max_num_load_retries
            if again:
                servable.retry_at = time.monotonic() + max(self._options.load_retry_interval_micros, 0) / 1e6
            else:
                servable.state = END
            serves = self.is_available(servable.model)
            self._update()
        name, folder = servable.model, servable.directory
        then = "trying again later" if again else "not trying again unless its folder is removed and added"
        _LOG.warning(f"could not load {servable} from {folder}, {then}: {message}")
        if not serves:
            advice = f"delete {folder} to serve the newest other version, or push a valid newer one"
            _LOG.warning(f"no version of {name} is available; {advice}")

    def _unload(self, servable: Servable, session: SavedModelSession) -> None:
        try:
            session.close()
        except Exception:
            _LOG.exception("could not free %s", servable)
        with self.changed:
            servable.session, servable.state = None, END
            self._update()
        _LOG.info("unloaded %s", servable)


def list_versions(base_path: str) -> dict[int, str] | None:
    """Returns the path of each version below a base path, by number; None if the base path cannot be listed.

    Source: `file_system_storage_path_source.cc` of TensorFlow Serving at 9d981c5. Every child whose name
    `absl::SimpleAtoi` parses as an int64 is a version (ParseVersionNumber), whatever it contains. If several names
    parse to the same number, the last in sorted order wins (IndexChildrenByVersion). If the base path cannot be
    listed, nothing changes (PollFileSystemForServable).
    """
    try:
        names = sorted({name.partition("/")[0] for name in tf.io.gfile.listdir(base_path)})
    except tf.errors.OpError:
        return None
    numbers = {name: _version_number(name) for name in names}
    return {number: files.join(base_path, name) for name, number in numbers.items() if number is not None}


def _version_number(name: str) -> int | None:
    """Returns a version number, or None. Like absl, allows surrounding spaces and a sign, but no "_"."""
    try:
        number = int(name)
    except ValueError:
        return None
    return number if name.isascii() and "_" not in name and -(2**63) <= number < 2**63 else None


def _failure(model: Model) -> str:
    """Returns why a model is not available. The caller holds the lock."""
    if not model.versions:
        path = model.config.base_path if model.config is not None else "its base path"
        return f"{{name: {model.name}}} no version found in {path}"
    return ", ".join(
        f"{{name: {model.name} version: {number}}} due to error: {servable.error[1]}"
        for number, servable in sorted(model.versions.items(), reverse=True)
        if servable.error is not None
    )
