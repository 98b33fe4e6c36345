"""Sends requests at a fixed rate of several times the server's capacity.

The server must reject requests that it cannot answer soon, and its memory must not grow.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks.load import Answer, answers_of, milliseconds, rate
from benchmarks.local_server import (
    LocalServer,
    add_version,
    model_config,
    predict_request,
    server_config,
)

_MODEL = "model"
_SECONDS_TO_MEASURE = 10.0
_DEADLINE = 120.0
# The default of --max_queue_wait_in_ms, plus time to send the rejection.
_MAX_REFUSAL_MS = 1500.0
_MAX_GROWTH = 1.10


def overload(
    directory: Path, model: Path, images: Sequence[bytes], seconds: float, factor: float, clients: int, flags: list[str]
) -> bool:
    """Runs the overload, prints a table and returns whether the server kept its guarantees."""
    add_version(model, directory / _MODEL, 1)
    server = LocalServer(directory, server_config(model_config(_MODEL, directory / _MODEL)), flags)
    try:
        requests = [predict_request(_MODEL, [image]) for image in images]
        capacity = measure_capacity(server, requests, clients)
        print(
            f"capacity: {capacity:.1f} requests/s from {clients} clients; offered: {factor * capacity:.1f} requests/s"
        )
        # Fill the queue once, so that memory is compared with full queues both times.
        offer(server, requests, factor * capacity, min(seconds, _SECONDS_TO_MEASURE))
        before = server.rss_mib()
        answers, rss = offer(server, requests, factor * capacity, seconds)
        return report(answers, before, rss) and server.alive
    finally:
        server.stop()


def measure_capacity(server: LocalServer, requests: Sequence[Any], clients: int) -> float:
    """Returns the requests per second that clients with a long deadline get answered."""
    answers = answers_of(server, requests, clients, _SECONDS_TO_MEASURE, _DEADLINE)
    good = [answer for answer in answers if answer.code is grpc.StatusCode.OK]
    if len(good) < 2:
        raise RuntimeError(
            f"{len(good)} of {len(answers)} requests were answered before the overload, expected at least 2"
        )
    return rate(good)


def offer(
    server: LocalServer, requests: Sequence[Any], rate: float, seconds: float
) -> tuple[list[Answer], list[float]]:
    """Sends requests at a fixed rate without waiting for responses; returns the responses and memory samples in MiB."""
    answers: list[Answer] = []
    rss = []
    pending = threading.Semaphore(0)

    def record(sent: float, call: Any) -> None:
        answers.append(Answer(sent, time.monotonic(), call.code(), 0))
        pending.release()

    begin = time.monotonic()
    count = int(rate * seconds)
    for index in range(count):
        time.sleep(max(0.0, begin + index / rate - time.monotonic()))
        call = server.predictions.Predict.future(requests[index % len(requests)], _DEADLINE)
        call.add_done_callback(functools.partial(record, time.monotonic()))
        if index % max(1, int(rate)) == 0:
            rss.append(server.rss_mib())
    for _ in range(count):
        pending.acquire()
    return answers, [*rss, server.rss_mib()]


def report(answers: Sequence[Answer], before: float, rss: Sequence[float]) -> bool:
    """Prints the table; returns whether rejections were quick, nothing else failed and memory did not grow."""
    accepted = [answer.seconds for answer in answers if answer.code is grpc.StatusCode.OK]
    refused = [answer.seconds for answer in answers if answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED]
    failed = len(answers) - len(accepted) - len(refused)
    print(f"{'answers':10}{'count':>8}{'of all':>8}{'p50, ms':>10}{'p99, ms':>10}{'max, ms':>10}")
    for name, seconds in (("accepted", accepted), ("refused", refused)):
        columns = "".join(f"{milliseconds(seconds, percentile):10.1f}" for percentile in (50, 99, 100))
        print(f"{name:10}{len(seconds):8}{len(seconds) / len(answers):8.0%}{columns}")
    print(f"{'failed':10}{failed:8}{failed / len(answers):8.0%}")
    print(f"memory: {before:.0f} MiB before, at most {max(rss):.0f} MiB, {rss[-1]:.0f} MiB after")
    quick = milliseconds(refused, 99) < _MAX_REFUSAL_MS
    return bool(accepted) and quick and not failed and rss[-1] < before * _MAX_GROWTH
