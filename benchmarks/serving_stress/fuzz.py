"""Thousands of malformed requests of every kind: each must get a proper status, and the server must stay as it is."""

from __future__ import annotations

import collections
import concurrent.futures
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
import httpx

from benchmarks.serving_stress import malformed
from benchmarks.serving_stress.local_server import (
    LocalServer,
    add_version,
    model_config,
    predict_request,
    server_config,
)

_MODEL = "model"
_THREADS = 4
_DEADLINE = 60.0
_OVERSIZED_BYTES = 80 << 20
# gRPC's buffers for large messages grow to a plateau; it is to be reached before memory is compared.
_OVERSIZED_IN_WARM_UP, _OVERSIZED = 12, 4
_MOST_GROWTH = 1.10
_GROWTH_MIB = 64.0
_WARM_UP_SHARE = 0.2
_REST, _CUT, _TOO_LARGE = "REST", "cut connection", "too large"
# A changed byte may leave a request sound, and a decoder may forgive a broken image; so OK is proper too.
_PROPER = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
_PROPER_HTTP = {200, 400, 404, 405, 429, 501}


def fuzz(directory: Path, model: Path, images: Sequence[bytes], count: int, seed: int, flags: list[str]) -> bool:
    """Sends the requests, prints a table and returns whether the server took them as it should."""
    add_version(model, directory / _MODEL, 1)
    server = LocalServer(directory, server_config(model_config(_MODEL, directory / _MODEL)), flags)
    try:
        attack = Attack(server, images)
        warm_up = int(count * _WARM_UP_SHARE)
        attack.run(range(warm_up), seed)
        attack.oversize(_OVERSIZED_IN_WARM_UP)
        before = server.rss_mib()
        attack.run(range(warm_up, count), seed)
        attack.oversize(_OVERSIZED)
        after = server.rss_mib()
        flat = after < before * _MOST_GROWTH + _GROWTH_MIB
        sound = attack.sound_answer()
        attack.print_table()
        print(f"memory: {before:.0f} MiB after the first {warm_up} requests, {after:.0f} MiB after all")
        print(f"server: {'alive' if server.alive else 'ended'}; a sound request: {sound}")
        return server.alive and flat and not attack.improper and sound == "OK"
    finally:
        server.stop()


class Attack:
    """Sends malformed requests and counts the statuses by kind.

    Attributes:
        improper: a sentence for each answer that is no proper status.
    """

    def __init__(self, server: LocalServer, images: Sequence[bytes]) -> None:
        """Breaks these images in turns."""
        self.improper: list[str] = []
        self._server = server
        self._images = images
        self._tallies: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self._lock = threading.Lock()
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{server.rest_port}", timeout=_DEADLINE)

    def run(self, numbers: range, seed: int) -> None:
        """Sends the requests of these numbers; each is drawn from the seed and its number alone."""
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda number: self._send(random.Random(f"{seed}-{number}"), number), numbers))

    def oversize(self, count: int) -> None:
        """Sends messages that are larger than the server takes."""
        for _ in range(count):
            self.tally(_TOO_LARGE, *self.grpc_status(malformed.PREDICT, bytes(_OVERSIZED_BYTES)))

    def grpc_status(self, method: str, message: bytes) -> tuple[str, str]:
        """Sends bytes as a call's message; returns the status, and what is wrong with it or "" for a proper one."""
        try:
            self._server.channel.unary_unary(method)(message, timeout=_DEADLINE)
        except grpc.RpcError as error:
            # gRPC itself says INTERNAL of bytes that are no message at all.
            no_message = error.code() is grpc.StatusCode.INTERNAL and "deserializing" in (error.details() or "")
            proper = no_message or error.code() in _PROPER
            return error.code().name, "" if proper else f"{error.code().name}: {error.details()}"
        return grpc.StatusCode.OK.name, ""

    def tally(self, kind: str, status: str, issue: str) -> None:
        """Counts one answer; `issue` says what is wrong with it, if anything."""
        with self._lock:
            self._tallies[kind][status] += 1
            if issue:
                self.improper.append(f"{kind}: {issue}")

    def sound_answer(self) -> str:
        """Returns the status of a request without issue."""
        return self.grpc_status(malformed.PREDICT, predict_request(_MODEL, self._images[:1]).SerializeToString())[0]

    def print_table(self) -> None:
        """Prints how often each kind of request got which status."""
        print(f"{'kind':18}{'sent':>7}  statuses")
        for kind, tally in sorted(self._tallies.items()):
            print(f"{kind:18}{tally.total():7}  {', '.join(f'{name} {n}' for name, n in tally.most_common())}")
        for line, number in collections.Counter(self.improper).most_common():
            print(f"not a proper status, {number} times: {line[:300]}")

    def _send(self, chance: random.Random, number: int) -> None:
        kind = chance.choice((*malformed.GRPC_KINDS, _REST, _CUT))
        image = self._images[number % len(self._images)]
        if kind == _CUT:
            malformed.cut_connection(chance, self._server.port, self._server.rest_port)
            self.tally(kind, "none expected", "")
        elif kind == _REST:
            self.tally(kind, *self._http_status(*malformed.rest_call(chance, _MODEL, image)))
        else:
            self.tally(kind, *self.grpc_status(*malformed.GRPC_KINDS[kind](chance, _MODEL, image)))

    def _http_status(self, method: str, path: str, body: bytes) -> tuple[str, str]:
        try:
            response = self._http.request(method, path, content=body)
        except httpx.HTTPError as error:
            return type(error).__name__, str(error) or "no answer"
        status = str(response.status_code)
        return status, "" if response.status_code in _PROPER_HTTP else f"{status}: {response.text}"
