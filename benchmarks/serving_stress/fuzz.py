"""Sends malformed requests of every kind: each must get a valid status, and the server must keep working."""

from __future__ import annotations

import collections
import concurrent.futures
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
import httpx

from benchmarks.local_server import (
    LocalServer,
    add_version,
    model_config,
    predict_request,
    server_config,
)
from benchmarks.serving_stress import malformed

_MODEL = "model"
_THREADS = 4
_DEADLINE = 60.0
_OVERSIZED_BYTES = 80 << 20
# gRPC's buffers for large messages grow to a plateau. The warm-up must reach it before memory is compared.
_OVERSIZED_IN_WARM_UP, _OVERSIZED = 12, 4
_MAX_GROWTH = 1.10
_GROWTH_MIB = 64.0
_WARM_UP_FRACTION = 0.2
_REST, _CUT, _TOO_LARGE = "REST", "cut connection", "too large"
# OK is allowed: a request may stay valid after a byte changes, and a decoder may accept a damaged image.
_ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
_ALLOWED_HTTP = {200, 400, 404, 405, 429, 501}


def fuzz(directory: Path, model: Path, images: Sequence[bytes], count: int, seed: int, flags: list[str]) -> bool:
    """Sends the requests, prints a table and returns whether the server handled all of them correctly."""
    add_version(model, directory / _MODEL, 1)
    server = LocalServer(directory, server_config(model_config(_MODEL, directory / _MODEL)), flags)
    try:
        attack = Attack(server, images)
        warm_up = int(count * _WARM_UP_FRACTION)
        attack.run(range(warm_up), seed)
        attack.oversize(_OVERSIZED_IN_WARM_UP)
        before = server.rss_mib()
        attack.run(range(warm_up, count), seed)
        attack.oversize(_OVERSIZED)
        after = server.rss_mib()
        stable = after < before * _MAX_GROWTH + _GROWTH_MIB
        valid = attack.valid_request_status()
        attack.print_table()
        print(f"memory: {before:.0f} MiB after the first {warm_up} requests, {after:.0f} MiB after all")
        print(f"server: {'running' if server.alive else 'exited'}; a valid request: {valid}")
        return server.alive and stable and not attack.violations and valid == "OK"
    finally:
        server.stop()


class Attack:
    """Sends malformed requests and counts the statuses by kind.

    Attributes:
        violations: a description of each response with a status that is not allowed.
    """

    def __init__(self, server: LocalServer, images: Sequence[bytes]) -> None:
        """Prepares requests from these images, in turns."""
        self.violations: list[str] = []
        self._server = server
        self._images = images
        self._tallies: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self._lock = threading.Lock()
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{server.rest_port}", timeout=_DEADLINE)

    def run(self, numbers: range, seed: int) -> None:
        """Sends the requests with these numbers; a request depends only on the seed and its number."""
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda number: self._send(random.Random(f"{seed}-{number}"), number), numbers))

    def oversize(self, count: int) -> None:
        """Sends messages above the server's size limit."""
        for _ in range(count):
            self.tally(_TOO_LARGE, *self.grpc_status(malformed.PREDICT, bytes(_OVERSIZED_BYTES)))

    def grpc_status(self, method: str, message: bytes) -> tuple[str, str]:
        """Sends a call with raw bytes as its message; returns the status, and an error text or ""."""
        try:
            self._server.channel.unary_unary(method)(message, timeout=_DEADLINE)
        except grpc.RpcError as error:
            # gRPC itself returns INTERNAL if it cannot parse the message.
            unparsable = error.code() is grpc.StatusCode.INTERNAL and "deserializing" in (error.details() or "")
            allowed = unparsable or error.code() in _ALLOWED
            return error.code().name, "" if allowed else f"{error.code().name}: {error.details()}"
        return grpc.StatusCode.OK.name, ""

    def tally(self, kind: str, status: str, issue: str) -> None:
        """Counts one response; `issue` is an error text or ""."""
        with self._lock:
            self._tallies[kind][status] += 1
            if issue:
                self.violations.append(f"{kind}: {issue}")

    def valid_request_status(self) -> str:
        """Returns the status of a valid request."""
        return self.grpc_status(malformed.PREDICT, predict_request(_MODEL, self._images[:1]).SerializeToString())[0]

    def print_table(self) -> None:
        """Prints the number of responses by kind of request and status."""
        print(f"{'kind':18}{'sent':>7}  statuses")
        for kind, tally in sorted(self._tallies.items()):
            print(f"{kind:18}{tally.total():7}  {', '.join(f'{name} {n}' for name, n in tally.most_common())}")
        for line, number in collections.Counter(self.violations).most_common():
            print(f"status not allowed, {number} times: {line[:300]}")

    def _send(self, rng: random.Random, number: int) -> None:
        kind = rng.choice((*malformed.GRPC_KINDS, _REST, _CUT))
        image = self._images[number % len(self._images)]
        if kind == _CUT:
            malformed.cut_connection(rng, self._server.port, self._server.rest_port)
            self.tally(kind, "none expected", "")
        elif kind == _REST:
            self.tally(kind, *self._http_status(*malformed.rest_call(rng, _MODEL, image)))
        else:
            self.tally(kind, *self.grpc_status(*malformed.GRPC_KINDS[kind](rng, _MODEL, image)))

    def _http_status(self, method: str, path: str, body: bytes) -> tuple[str, str]:
        try:
            response = self._http.request(method, path, content=body)
        except httpx.HTTPError as error:
            return type(error).__name__, str(error) or "no response"
        status = str(response.status_code)
        return status, "" if response.status_code in _ALLOWED_HTTP else f"{status}: {response.text}"
