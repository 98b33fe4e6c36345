"""How many requests run and how many wait: past that, a request is refused at once instead of waiting ever longer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import grpc

from serving.server.errors import ServingError, deadline_exceeded


class Admission:
    """A gate with a bounded queue."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        """Opens the gate.

        Args:
            max_running: requests inside at once.
            max_waiting: requests that wait to get in.
        """
        self._slots = threading.Semaphore(max_running)
        self._places = threading.Semaphore(max_running + max_waiting)
        self._limit = max_running + max_waiting
        self._closed = False

    @contextlib.contextmanager
    def enter(self, deadline: float | None) -> Iterator[None]:
        """Waits for a turn and holds it.

        Args:
            deadline: `time.monotonic()` until which to wait, or None.

        Raises:
            ServingError: RESOURCE_EXHAUSTED at a full queue, DEADLINE_EXCEEDED where the turn comes too late,
                UNAVAILABLE where the server is about to end.
        """
        if self._closed:
            raise ServingError(grpc.StatusCode.UNAVAILABLE, "The server is shutting down")
        if not self._places.acquire(blocking=False):
            raise ServingError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"The server is at its limit of {self._limit} requests running and waiting; try again later",
            )
        try:
            wait = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not self._slots.acquire(timeout=wait):
                raise deadline_exceeded()
            try:
                if deadline is not None and deadline <= time.monotonic():
                    raise deadline_exceeded()
                yield
            finally:
                self._slots.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """Admits nobody more; those inside and waiting go on."""
        self._closed = True

    def wait_until_empty(self, grace: float) -> None:
        """Waits up to `grace` seconds for those inside and waiting. Nobody is admitted afterwards."""
        deadline = time.monotonic() + grace
        for _ in range(self._limit):
            if not self._places.acquire(timeout=max(deadline - time.monotonic(), 0)):
                return
