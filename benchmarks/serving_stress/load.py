"""Clients that keep a server busy and remember every answer: its status, version and time."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from benchmarks.serving_stress.local_server import LocalServer


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answered request.

    Attributes:
        sent: `time.monotonic()` before the call.
        received: the same after it.
        code: the status.
        version: of the model that answered; 0 where none did.
    """

    sent: float
    received: float
    code: grpc.StatusCode
    version: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.received - self.sent


class ClosedLoop:
    """Clients that each send the next request when the last one is answered."""

    def __init__(self, server: LocalServer, requests: Sequence[Any], clients: int, deadline: float) -> None:
        """Starts the clients.

        Args:
            server: is asked.
            requests: what the clients send, in turns.
            clients: how many there are.
            deadline: seconds for one answer.
        """
        self.answers: list[Answer] = []
        self._server = server
        self._requests = requests
        self._deadline = deadline
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Waits for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            request = self._requests[number % len(self._requests)]
            number += 1
            sent = time.monotonic()
            code, version = grpc.StatusCode.OK, 0
            try:
                version = self._server.predictions.Predict(request, self._deadline).model_spec.version.value
            except grpc.RpcError as error:
                code = error.code()
            self.answers.append(Answer(sent, time.monotonic(), code, version))


def milliseconds(seconds: Sequence[float], percentile: float) -> float:
    """Returns a percentile of durations in milliseconds; not a number where there are none."""
    return float(np.percentile(seconds, percentile)) * 1000 if len(seconds) else float("nan")
