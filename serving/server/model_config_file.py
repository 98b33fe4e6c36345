"""Follows a `--model_config_file`: what it says is served, and what it says later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from components.errors import UsageError
from serving.server.core import ServerCore
from serving.server.errors import ServingError
from serving.server.text_protos import read_text_proto

_LOG = logging.getLogger("segpipe.serving")


def read_model_config(path: str) -> Any:
    """Reads a text `ModelServerConfig`. Raises UsageError."""
    return read_text_proto("--model_config_file", path, model_server_config_pb2.ModelServerConfig())


class ConfigFollower:
    """Applies the first configuration, then what the file says every few seconds, in a thread of its own."""

    def __init__(
        self,
        core: ServerCore,
        first: Any,
        path: str | None,
        poll_wait_seconds: float,
        on_first: Callable[[], None],
    ) -> None:
        """Starts the thread.

        Args:
            core: what serves.
            first: the configuration to begin with.
            path: the file that may change later, None where there is none.
            poll_wait_seconds: between looks; 0 for none.
            on_first: is called once the first configuration's models serve, or cannot.
        """
        self._core = core
        self._path = path
        self._wait = poll_wait_seconds
        self._on_first = on_first
        self._closing = threading.Event()
        self._complaint = ""
        threading.Thread(target=self._run, args=(first,), name="model-config", daemon=True).start()

    def close(self) -> None:
        """Looks no more."""
        self._closing.set()

    def _run(self, first: Any) -> None:
        self._apply(first)
        self._on_first()
        if self._path is None or self._wait <= 0:
            return
        while not self._closing.wait(self._wait):
            try:
                config = read_model_config(self._path)
            except UsageError as error:
                self._complain(str(error))
            else:
                self._apply(config)

    def _apply(self, config: Any) -> None:
        try:
            self._core.reload(config)
        except ServingError as error:
            self._complain(f"the model configuration was not applied in full: {error.message}")
        else:
            self._complaint = ""

    def _complain(self, text: str) -> None:
        """Logs a complaint once, not at every look."""
        if text != self._complaint:
            _LOG.warning("%s", text)
        self._complaint = text
