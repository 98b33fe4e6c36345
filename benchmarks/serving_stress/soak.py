"""Sends requests without a pause while versions are swapped, rolled back and reconfigured every few seconds.

No request may fail, and each must be answered by a version that was serving at the time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from benchmarks.load import Answer, ClosedLoop, milliseconds
from benchmarks.local_server import (
    LocalServer,
    add_version,
    model_config,
    predict_request,
    server_config,
)

_DEADLINE = 60.0
_FOLDER, _LABELS = "by-folder", "by-label"


class Timeline:
    """Records which versions may answer at which time."""

    def __init__(self, version: int) -> None:
        """Allows one version from the start."""
        self._spans: list[tuple[float, frozenset[int]]] = [(0.0, frozenset({version}))]

    def allow(self, *versions: int) -> None:
        """Allows only these versions from now on."""
        self._spans.append((time.monotonic(), frozenset(versions)))

    def allows(self, answer: Answer) -> bool:
        """Returns whether the version of a response was allowed at any time between request and response."""
        ends = [*(begin for begin, _ in self._spans[1:]), float("inf")]
        return any(
            begin <= answer.received and end >= answer.sent and answer.version in versions
            for (begin, versions), end in zip(self._spans, ends, strict=True)
        )


class Operator:
    """Changes the served versions of one model, step by step, in a thread."""

    def __init__(self, steps: Sequence[Callable[[], None]], pause: float) -> None:
        """Starts the thread, which runs the first step after a pause.

        Args:
            steps: functions to call in turns.
            pause: seconds between the end of a step and the next step.
        """
        self.taken = 0
        self.errors: list[str] = []
        self._steps = steps
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread after the current step."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._pause):
            step = self._steps[self.taken % len(self._steps)]
            try:
                step()
            except (grpc.RpcError, RuntimeError, OSError) as error:
                self.errors.append(f"{step.__name__}: {error}")
            self.taken += 1


def folder_steps(server: LocalServer, model: Path, base_path: Path, timeline: Timeline) -> list[Callable[[], None]]:
    """Returns steps that add a version to the model's folder and remove it again. Version 1 must be serving."""
    newest = 1

    def hot_swap() -> None:
        """Adds the next version and waits until it serves alone."""
        nonlocal newest
        timeline.allow(1, newest + 1)
        add_version(model, base_path, newest + 1)
        newest += 1
        server.serves_only(_FOLDER, newest)
        timeline.allow(newest)

    def roll_back() -> None:
        """Removes the newest version and waits until version 1 serves again."""
        timeline.allow(1, newest)
        os.rename(base_path / str(newest), base_path / f".withdrawn-{newest}")
        server.serves_only(_FOLDER, 1)
        timeline.allow(1)

    return [hot_swap, roll_back]


def label_steps(
    server: LocalServer, base_path: Path, other_config: str, timeline: Timeline
) -> list[Callable[[], None]]:
    """Returns steps that load version 2, move the label `stable` to it, unload version 1, and then do the reverse.

    Version 1 must be serving. After the last step only version 1 is loaded, with the label.
    """

    def config(versions: Sequence[int], stable: int) -> str:
        """Returns the configuration of both models, with these versions and label of the labelled model."""
        policy = f"specific {{ {' '.join(f'versions: {version}' for version in versions)} }}"
        return server_config(other_config, model_config(_LABELS, base_path, policy, {"stable": stable}))

    def configure(versions: Sequence[int], stable: int) -> None:
        """Reconfigures the server and waits until exactly these versions serve."""
        server.reload(config(versions, stable))
        server.serves_only(_LABELS, *versions)

    def move_label(old: int, new: int) -> None:
        """Moves `stable` to another version, which must be serving."""
        timeline.allow(old, new)
        server.reload(config((1, 2), new))
        timeline.allow(new)

    return [
        lambda: configure((1, 2), stable=1),
        lambda: move_label(1, 2),
        lambda: configure((2,), stable=2),
        lambda: configure((2,), stable=2),
        lambda: configure((1, 2), stable=2),
        lambda: move_label(2, 1),
        lambda: configure((1,), stable=1),
    ]


def soak(
    directory: Path, model: Path, images: Sequence[bytes], seconds: float, pause: float, clients: int, flags: list[str]
) -> bool:
    """Runs the soak, prints a table and returns whether every response was correct."""
    folders = {name: directory / name for name in (_FOLDER, _LABELS)}
    for name, version in ((_FOLDER, 1), (_LABELS, 1), (_LABELS, 2)):
        add_version(model, folders[name], version)
    timelines = {name: Timeline(1) for name in folders}
    other = model_config(_FOLDER, folders[_FOLDER])
    labelled = model_config(_LABELS, folders[_LABELS], "specific { versions: 1 }")
    # The clients exceed what the server can answer within its default queue limit, and this test is about swaps.
    options = ["--file_system_poll_wait_seconds", "1", "--max_queue_wait_in_ms", "60000"]
    server = LocalServer(directory, server_config(other, labelled), [*options, *flags])
    try:
        moves = label_steps(server, folders[_LABELS], other, timelines[_LABELS])
        # A label must point to a version that is serving, so the first configuration cannot have it. The last step of
        # a round sets it to version 1.
        moves[-1]()
        before = server.rss_mib()
        loops = {
            name: ClosedLoop(
                server, [predict_request(name, [image], label) for image in images], clients // 2, _DEADLINE
            )
            for name, label in ((_FOLDER, None), (_LABELS, "stable"))
        }
        operators = {
            _FOLDER: Operator(folder_steps(server, model, folders[_FOLDER], timelines[_FOLDER]), pause),
            _LABELS: Operator(moves, pause),
        }
        time.sleep(seconds / 2)
        halfway = server.rss_mib()
        time.sleep(seconds / 2)
        for operator in operators.values():
            operator.stop()
        for loop in loops.values():
            loop.stop()
        print(f"{'model':10}{'answers':>9}{'failed':>8}{'wrong version':>15}{'steps':>7}{'p50, ms':>9}{'p99, ms':>9}")
        rows = [_row(name, loops[name].answers, timelines[name], operators[name]) for name in folders]
        print(f"memory: {before:.0f} MiB before, {halfway:.0f} MiB at half-time, {server.rss_mib():.0f} MiB after")
        return all(rows) and server.alive
    finally:
        server.stop()


def _row(name: str, answers: Sequence[Answer], timeline: Timeline, operator: Operator) -> bool:
    good = [answer for answer in answers if answer.code is grpc.StatusCode.OK]
    failed = len(answers) - len(good)
    wrong = sum(not timeline.allows(answer) for answer in good)
    seconds = [answer.seconds for answer in good]
    p50, p99 = milliseconds(seconds, 50), milliseconds(seconds, 99)
    print(f"{name:10}{len(answers):9}{failed:8}{wrong:15}{operator.taken:7}{p50:9.0f}{p99:9.0f}")
    for error in operator.errors:
        print(f"  {error}")
    return bool(good) and not failed and not wrong and not operator.errors
