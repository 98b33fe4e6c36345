"""Clients that keep a server busy and record the status, version and time of every response."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from benchmarks.local_server import LocalServer


@dataclasses.dataclass(frozen=True)
class Answer:
    """The response to one request.

    Attributes:
        sent: `time.monotonic()` before the call.
        received: `time.monotonic()` after the call.
        code: the status.
        version: version of the model that answered; 0 if the request failed.
    """

    sent: float
    received: float
    code: grpc.StatusCode
    version: int

    @property
    def seconds(self) -> float:
        """Duration of the request."""
        return self.received - self.sent


class ClosedLoop:
    """Clients that each send one request at a time, without a pause."""

    def __init__(self, server: LocalServer, requests: Sequence[Any], clients: int, deadline: float) -> None:
        """Starts the clients.

        Args:
            server: server to send requests to.
            requests: requests, which each client sends in turns.
            clients: number of clients.
            deadline: timeout of a request in seconds.
        """
        self.answers: list[Answer] = []
        self._server = server
        self._requests = requests
        self._deadline = deadline
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops the clients after their current requests."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
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


def answers_of(
    server: LocalServer, requests: Sequence[Any], clients: int, seconds: float, deadline: float
) -> list[Answer]:
    """Returns the responses to clients that send requests for some time; the arguments are those of `ClosedLoop`."""
    loop = ClosedLoop(server, requests, clients, deadline)
    time.sleep(seconds)
    loop.stop()
    return loop.answers


def rate(answers: Sequence[Answer]) -> float:
    """Returns responses per second."""
    return len(answers) / (max(a.received for a in answers) - min(a.sent for a in answers))


def milliseconds(seconds: Sequence[float], percentile: float) -> float:
    """Returns a percentile of durations in milliseconds; NaN without durations."""
    return float(np.percentile(seconds, percentile)) * 1000 if len(seconds) else float("nan")
