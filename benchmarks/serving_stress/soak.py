"""Clients ask without pause while versions are swapped, rolled back and reconfigured every few seconds.

No request may fail, and none may be answered by a version that did not serve while it was under way.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from benchmarks.serving_stress.load import Answer, ClosedLoop, milliseconds
from benchmarks.serving_stress.local_server import (
    LocalServer,
    add_version,
    model_config,
    predict_request,
    server_config,
)

_DEADLINE = 60.0
_FOLDER, _LABELS = "by-folder", "by-label"


class Timeline:
    """Which versions may answer at which time."""

    def __init__(self, version: int) -> None:
        """Begins with one version."""
        self._spans: list[tuple[float, frozenset[int]]] = [(0.0, frozenset({version}))]

    def allow(self, *versions: int) -> None:
        """Says that from now on these versions may answer, and no others."""
        self._spans.append((time.monotonic(), frozenset(versions)))

    def allows(self, answer: Answer) -> bool:
        """Tells whether a version was allowed at any time between a request and its answer."""
        ends = [*(begin for begin, _ in self._spans[1:]), float("inf")]
        return any(
            begin <= answer.received and end >= answer.sent and answer.version in versions
            for (begin, versions), end in zip(self._spans, ends, strict=True)
        )


class Operator:
    """Changes what one model serves, one step after the other, in a thread."""

    def __init__(self, steps: Sequence[Callable[[], None]], pause: float) -> None:
        """Begins with the first step after a pause.

        Args:
            steps: are taken in turns.
            pause: seconds between the end of a step and the next one.
        """
        self.taken = 0
        self.errors: list[str] = []
        self._steps = steps
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finishes the step in progress."""
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


class FolderSteps:
    """A new version appears in the folder, which the server finds and swaps in; then it is withdrawn."""

    def __init__(self, server: LocalServer, model: Path, base_path: Path, timeline: Timeline) -> None:
        """Version 1 serves at the beginning."""
        self._server, self._model, self._base_path, self._timeline = server, model, base_path, timeline
        self._newest = 1

    def steps(self) -> list[Callable[[], None]]:
        """Returns one round."""
        return [self.hot_swap, self.roll_back]

    def hot_swap(self) -> None:
        """Adds the next version and waits until it serves alone."""
        self._timeline.allow(1, self._newest + 1)
        add_version(self._model, self._base_path, self._newest + 1)
        self._newest += 1
        self._server.serves_only(_FOLDER, self._newest)
        self._timeline.allow(self._newest)

    def roll_back(self) -> None:
        """Takes the newest version away and waits until version 1 serves again."""
        self._timeline.allow(1, self._newest)
        os.rename(self._base_path / str(self._newest), self._base_path / f".withdrawn-{self._newest}")
        self._server.serves_only(_FOLDER, 1)
        self._timeline.allow(1)


class LabelSteps:
    """Version 2 is loaded beside version 1, the label `stable` moves to it, version 1 goes; then all the way back."""

    def __init__(self, server: LocalServer, base_path: Path, other_config: str, timeline: Timeline) -> None:
        """Version 1 serves at the beginning."""
        self._server, self._base_path, self._other, self._timeline = server, base_path, other_config, timeline

    def steps(self) -> list[Callable[[], None]]:
        """Returns one round."""
        return [
            lambda: self.configure((1, 2), stable=1),
            lambda: self.move_label(1, 2),
            lambda: self.configure((2,), stable=2),
            lambda: self.configure((2,), stable=2),
            lambda: self.configure((1, 2), stable=2),
            lambda: self.move_label(2, 1),
            lambda: self.configure((1,), stable=1),
        ]

    def config(self, versions: Sequence[int], stable: int) -> str:
        """Returns the configuration of both models in which these versions of this one serve."""
        policy = f"specific {{ {' '.join(f'versions: {version}' for version in versions)} }}"
        return server_config(self._other, model_config(_LABELS, self._base_path, policy, {"stable": stable}))

    def configure(self, versions: Sequence[int], stable: int) -> None:
        """Has exactly these versions served."""
        self._server.reload(self.config(versions, stable))
        self._server.serves_only(_LABELS, *versions)

    def move_label(self, old: int, new: int) -> None:
        """Points `stable` to another version that serves already."""
        self._timeline.allow(old, new)
        self._server.reload(self.config((1, 2), new))
        self._timeline.allow(new)


def soak(
    directory: Path, model: Path, images: Sequence[bytes], seconds: float, pause: float, clients: int, flags: list[str]
) -> bool:
    """Runs the soak, prints a table and returns whether every answer was right."""
    folders = {name: directory / name for name in (_FOLDER, _LABELS)}
    for name, version in ((_FOLDER, 1), (_LABELS, 1), (_LABELS, 2)):
        add_version(model, folders[name], version)
    timelines = {name: Timeline(1) for name in folders}
    other = model_config(_FOLDER, folders[_FOLDER])
    labelled = model_config(_LABELS, folders[_LABELS], "specific { versions: 1 }")
    # More clients than the server can answer within its bound on the wait: what is counted here is swaps.
    patient = ["--file_system_poll_wait_seconds", "1", "--max_queue_wait_in_ms", "60000"]
    server = LocalServer(directory, server_config(other, labelled), [*patient, *flags])
    try:
        labels = LabelSteps(server, folders[_LABELS], other, timelines[_LABELS])
        # A label may only point to a version that serves already, so it cannot be in the first configuration.
        labels.configure((1,), stable=1)
        before = server.rss_mib()
        loops = {
            name: ClosedLoop(
                server, [predict_request(name, [image], label) for image in images], clients // 2, _DEADLINE
            )
            for name, label in ((_FOLDER, None), (_LABELS, "stable"))
        }
        operators = {
            _FOLDER: Operator(FolderSteps(server, model, folders[_FOLDER], timelines[_FOLDER]).steps(), pause),
            _LABELS: Operator(labels.steps(), pause),
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
