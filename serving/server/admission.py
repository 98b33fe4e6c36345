"""Bounds the requests that run, and the number and the time of those that wait; the others are refused."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from serving.server.errors import exhausted, not_run, shutting_down


class Admission:
    """Lets `max_running` requests run and `max_waiting` wait, each for `max_wait` seconds at most."""

    def __init__(self, max_running: int, max_waiting: int, max_wait: float = 1.0) -> None:
        self._slots = threading.Semaphore(max_running)
        self._places = threading.Semaphore(max_running + max_waiting)
        self._limit = max_running + max_waiting
        self._max_wait = max_wait
        self._closed = False

    @contextlib.contextmanager
    def enter(self, deadline: float | None) -> Iterator[None]:
        """Waits for a turn, until a `time.monotonic()` or None, and holds it.

        Raises:
            ServingError: RESOURCE_EXHAUSTED if the queue is full or the wait too long, DEADLINE_EXCEEDED if the turn
                comes after the deadline, UNAVAILABLE if the server is about to end.
        """
        if self._closed:
            raise shutting_down()
        if not self._places.acquire(blocking=False):
            limit = f"{self._limit} requests running and waiting"
            raise exhausted(f"The server is at its limit of {limit}; try again later")
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
        """Admits no more requests; those running and waiting continue."""
        self._closed = True

    def wait_until_empty(self, grace: float) -> None:
        """Waits up to `grace` seconds for the requests running and waiting. None is admitted afterwards."""
        deadline = time.monotonic() + grace
        for _ in range(self._limit):
            if not self._places.acquire(timeout=max(deadline - time.monotonic(), 0)):
                return
