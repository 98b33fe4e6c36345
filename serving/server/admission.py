"""Limits how many requests run, how many wait, and how long they wait; rejects the rest."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from serving.server.errors import exhausted, not_run, shutting_down


class Admission:
    """Lets `max_running` requests run, and `max_waiting` wait for up to `max_wait` seconds each."""

    def __init__(self, max_running: int, max_waiting: int, max_wait: float = 1.0) -> None:
        self._slots = threading.Semaphore(max_running)
        self._places = threading.Semaphore(max_running + max_waiting)
        self._limit = max_running + max_waiting
        self._max_wait = max_wait
        self._closed = False

    @contextlib.contextmanager
    def enter(self, deadline: float | None) -> Iterator[None]:
        """Waits for a free slot and holds it.

        Args:
            deadline: `time.monotonic()` of the request's deadline, or None.

        Raises:
            ServingError: RESOURCE_EXHAUSTED if the queue is full or the wait too long, DEADLINE_EXCEEDED if the
                deadline passes first, UNAVAILABLE during shutdown.
        """
        if self._closed:
            raise shutting_down()
        if not self._places.acquire(blocking=False):
            raise exhausted(
                f"The server is at its limit of {self._limit} running and waiting requests; try again later"
            )
        try:
            left = math.inf if deadline is None else deadline - time.monotonic()
            if not self._slots.acquire(timeout=max(min(left, self._max_wait), 0)):
                raise not_run(left, self._max_wait)
            try:
                if deadline is not None and deadline <= time.monotonic():
                    raise not_run(0)
                yield
            finally:
                self._slots.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """Rejects new requests; those running and waiting continue."""
        self._closed = True

    def wait_until_empty(self, grace: float) -> None:
        """Waits up to `grace` seconds until no request runs or waits. Takes all slots, so no request can follow."""
        deadline = time.monotonic() + grace
        for _ in range(self._limit):
            if not self._places.acquire(timeout=max(deadline - time.monotonic(), 0)):
                return
