"""Dynamic batching: requests that wait at one signature run together, as one call of the model.

The rules are those of TensorFlow Serving's shared batch scheduler, but one bad request fails alone: after
a merged call fails, its members run one by one.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from components.errors import UsageError
from serving.server.errors import (
    ServingError,
    deadline_exceeded,
    exhausted,
    failed_precondition,
    invalid_argument,
    not_run,
    shutting_down,
)
from serving.server.session import SavedModelSession
from serving.server.text_protos import BatchingParameters, read_text_proto

_FLAG = "--batching_parameters_file"


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """TensorFlow Serving's `BatchingParameters` and their defaults; a batch size is a number of rows."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)


def read_batching_options(path: str | None) -> BatchingOptions:
    """Reads a batching parameters file; returns the defaults without one. Raises UsageError for a wrong file."""
    if path is None:
        return BatchingOptions()
    fields = read_text_proto(_FLAG, path, BatchingParameters()).ListFields()
    values = {field.name: value.value for field, value in fields}
    for name, value in values.items():
        least = 0 if name == "batch_timeout_micros" else 1
        if value < least:
            raise UsageError(f"{_FLAG} {path}: {name} is {value}, expected at least {least}")
    return BatchingOptions(**values)


# Session, signature and outputs: requests for the same and with inputs of the same kind run together.
_Call = tuple[SavedModelSession, str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    inputs: Mapping[str, np.ndarray]
    rows: int
    deadline: float
    submitted: float
    answer: concurrent.futures.Future[dict[str, np.ndarray]]


@dataclasses.dataclass(eq=False)
class _Batch:
    call: _Call
    kind: Hashable
    due: float
    tasks: list[_Task] = dataclasses.field(default_factory=list)
    rows: int = 0


class BatchScheduler:
    """Threads that run batches for every model of the server, oldest batch first."""

    def __init__(
        self,
        options: BatchingOptions,
        on_batch: Callable[[int, list[float]], None] = lambda rows, waits: None,
        max_wait: float = 1.0,
    ) -> None:
        """Starts the threads.

        Args:
            options: sizes, delays and bounds.
            on_batch: is called before each batch with its rows and the seconds that each of its requests waited.
            max_wait: how long a batch that is due waits for a thread, in seconds.
        """
        self._options = options
        self._longest_wait = max_wait + options.batch_timeout_micros / 1e6
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._waiting: list[_Batch] = []
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{index}", daemon=True)
            for index in range(options.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        with self._changed:
            return sum(len(batch.tasks) for batch in self._waiting)

    def close(self) -> None:
        """Runs what waits, then ends the threads. Later requests are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def run(
        self,
        session: SavedModelSession,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None,
        interrupt: bool = False,
    ) -> dict[str, np.ndarray]:
        """Runs one signature like `SavedModelSession.run`, merged along axis 0 with other requests for it.

        Also raises ServingError for inputs that differ in axis 0 or are larger than a batch, if the queue is full, or
        if the wait is too long.
        """
        sides = {array.shape[:1] for array in inputs.values()}
        if len(sides) != 1 or () in sides:
            shapes = {name: array.shape for name, array in inputs.items()}
            raise invalid_argument(
                f"found inputs of shapes {shapes}, expected one first side, the batch, in all of them"
            )
        ((rows,),) = sides
        if rows == 0:
            return session.run(signature_name, inputs, outputs, deadline, interrupt)
        if rows > (most := self._options.max_batch_size):
            raise invalid_argument(f"found {rows} rows, expected at most max_batch_size, {most}; send several requests")
        kind = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items()))
        now = time.monotonic()
        left = math.inf if deadline is None else deadline - now
        task = _Task(inputs, rows, now + left, now, concurrent.futures.Future())
        self._submit((session, signature_name, tuple(sorted(set(outputs)))), kind, task)
        wait = max(min(left, self._longest_wait), 0)
        if not concurrent.futures.wait([task.answer], wait).done and task.answer.cancel():
            raise not_run(left, self._longest_wait)
        try:
            return task.answer.result(None if deadline is None else max(deadline - time.monotonic(), 0))
        except concurrent.futures.TimeoutError:
            raise deadline_exceeded("Deadline passed before the model answered") from None

    def _submit(self, call: _Call, kind: Hashable, task: _Task) -> None:
        """Adds a request to the newest batch of its kind, or starts one. Raises ServingError if the queue is full."""
        options = self._options
        with self._changed:
            if self._closed:
                raise shutting_down()
            queue = [batch for batch in self._waiting if batch.call == call]
            batch = next((batch for batch in reversed(queue) if batch.kind == kind), None)
            if batch is None or batch.rows + task.rows > options.max_batch_size:
                if len(queue) >= options.max_enqueued_batches:
                    raise exhausted(
                        f"The batch queue is full: found {len(queue)} batches enqueued and max_enqueued_batches is "
                        f"{options.max_enqueued_batches}; try again later"
                    )
                if batch is not None:
                    batch.due = task.submitted
                batch = _Batch(call, kind, task.submitted + options.batch_timeout_micros / 1e6)
                self._waiting.append(batch)
            batch.tasks.append(task)
            batch.rows += task.rows
            if batch.rows == options.max_batch_size:
                batch.due = task.submitted
            self._changed.notify()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            now = time.monotonic()
            # A caller that no longer waits has cancelled its future.
            tasks = [task for task in batch.tasks if now < task.deadline and task.answer.set_running_or_notify_cancel()]
            if tasks:
                self._on_batch(sum(task.rows for task in tasks), [now - task.submitted for task in tasks])
                _run(batch.call, tasks)
            # A thread that waits keeps no model alive.
            del batch, tasks

    def _next(self) -> _Batch | None:
        """Waits for the oldest batch that is full or has waited long enough; returns None after the last one."""
        with self._changed:
            while True:
                now = time.monotonic()
                batch = next((batch for batch in self._waiting if batch.due <= now or self._closed), None)
                if batch is not None:
                    self._waiting.remove(batch)
                    if self._waiting:
                        # This thread may have been woken on behalf of more than one batch.
                        self._changed.notify()
                    return batch
                if self._closed:
                    return None
                soonest = min((batch.due for batch in self._waiting), default=None)
                self._changed.wait(None if soonest is None else soonest - now)


def _run(call: _Call, tasks: Sequence[_Task]) -> None:
    """Runs requests as one batch and answers them; if it fails, runs each alone that is not late by then."""
    try:
        answers = _run_merged(call, tasks)
    except Exception as error:
        if len(tasks) == 1:
            # The frames of a refusal's traceback would hold every image.
            tasks[0].answer.set_exception(error.with_traceback(None) if isinstance(error, ServingError) else error)
            return
        for task in tasks:
            if time.monotonic() < task.deadline:
                _run(call, [task])
    else:
        for task, answer in zip(tasks, answers, strict=True):
            task.answer.set_result(answer)


def _run_merged(call: _Call, tasks: Sequence[_Task]) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of each request. Raises ServingError, also if an output has other rows than the inputs."""
    inputs = tasks[0].inputs
    if len(tasks) > 1:
        inputs = {name: np.concatenate([task.inputs[name] for task in tasks]) for name in inputs}
    *ends, size = np.cumsum([task.rows for task in tasks]).tolist()
    session, signature_name, wanted = call
    outputs = session.run(signature_name, inputs, wanted)
    for name, array in outputs.items():
        if array.shape[:1] != (size,):
            raise failed_precondition(f"output {name}: found shape {array.shape}, expected {size} rows as in the input")
    parts = {name: np.split(array, ends) for name, array in outputs.items()}
    return [{name: split[index] for name, split in parts.items()} for index in range(len(tasks))]
