"""Dynamic batching: requests that wait at one signature run together, as one call of the model.

The rules are those of TensorFlow Serving's shared batch scheduler, but one bad request fails alone: after
a merged call fails, its members run one by one.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import grpc
import numpy as np

from serving.server import merging
from serving.server.batching_options import BatchingOptions
from serving.server.errors import ServingError, deadline_exceeded, invalid_argument
from serving.server.runner import Runner


@dataclasses.dataclass(frozen=True)
class BatchRun:
    """What is known of a batch when it runs.

    Attributes:
        rows: rows of each request in it.
        size: rows that the model is given, padding included.
        waits: how long each request waited, in seconds.
    """

    rows: tuple[int, ...]
    size: int
    waits: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Queue:
    """Where requests wait that the same call of the same version could answer."""

    runner: Runner
    signature_name: str
    outputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.runner.run(self.signature_name, inputs, self.outputs, None)


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    inputs: Mapping[str, np.ndarray]
    rows: int
    deadline: float | None
    submitted: float
    answer: concurrent.futures.Future[dict[str, np.ndarray]] = dataclasses.field(
        default_factory=concurrent.futures.Future
    )


@dataclasses.dataclass(eq=False)
class _Batch:
    queue: _Queue
    kind: Hashable
    due: float
    tasks: list[_Task] = dataclasses.field(default_factory=list)
    rows: int = 0


class BatchScheduler:
    """Threads that run batches for every model of the server, oldest batch first."""

    def __init__(self, options: BatchingOptions, on_batch: Callable[[BatchRun], None] = lambda run: None) -> None:
        """Starts the threads.

        Args:
            options: sizes, delays and bounds.
            on_batch: is told of each batch before it runs, in the thread that runs it.
        """
        self.options = options
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._waiting: collections.deque[_Batch] = collections.deque()
        self._open: dict[tuple[_Queue, Hashable], _Batch] = {}
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

    def submit(self, queue: _Queue, kind: Hashable, task: _Task) -> None:
        """Adds a request to the open batch of its kind, or opens one. Raises ServingError at a full queue."""
        options = self.options
        with self._changed:
            if self._closed:
                raise ServingError(grpc.StatusCode.UNAVAILABLE, "The server is shutting down")
            batch = self._open.get((queue, kind))
            if batch is None or batch.rows + task.rows > options.max_batch_size:
                self._refuse_if_full(queue)
                if batch is not None:
                    batch.due = task.submitted
                batch = _Batch(queue, kind, task.submitted + options.batch_timeout_micros / 1e6)
                self._waiting.append(batch)
                self._open[queue, kind] = batch
            batch.tasks.append(task)
            batch.rows += task.rows
            if batch.rows == options.max_batch_size:
                batch.due = task.submitted
                del self._open[queue, kind]
            self._changed.notify()

    def _refuse_if_full(self, queue: _Queue) -> None:
        enqueued = sum(batch.queue is queue for batch in self._waiting)
        if enqueued >= self.options.max_enqueued_batches:
            raise ServingError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "The batch scheduling queue to which this task was submitted is full; "
                f"currently {enqueued} batches enqueued and max_enqueued_batches is "
                f"{self.options.max_enqueued_batches}",
            )

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Waits for a batch and runs it. A function of its own, so that a waiting thread keeps no model alive."""
        batch = self._next()
        if batch is None:
            return False
        self._run(batch)
        return True

    def _next(self) -> _Batch | None:
        """Waits for the oldest batch that is full or has waited long enough; None after the last one."""
        with self._changed:
            while True:
                now = time.monotonic()
                batch = next((batch for batch in self._waiting if batch.due <= now or self._closed), None)
                if batch is not None:
                    self._waiting.remove(batch)
                    if self._open.get((batch.queue, batch.kind)) is batch:
                        del self._open[batch.queue, batch.kind]
                    if self._waiting:
                        # This thread may have been woken on behalf of more than one batch.
                        self._changed.notify()
                    return batch
                if self._closed:
                    return None
                soonest = min((batch.due for batch in self._waiting), default=None)
                self._changed.wait(None if soonest is None else soonest - now)

    def _run(self, batch: _Batch) -> None:
        now = time.monotonic()
        tasks = [task for task in batch.tasks if not _expired(task, now)]
        if not tasks:
            return
        size = self.options.padded_size(sum(task.rows for task in tasks))
        waits = tuple(now - task.submitted for task in tasks)
        self._on_batch(BatchRun(tuple(task.rows for task in tasks), size, waits))
        try:
            answers = _run_merged(batch.queue, tasks, size)
        except Exception as error:
            if len(tasks) == 1:
                _fail(tasks[0], error)
            else:
                self._run_one_by_one(batch.queue, tasks)
        else:
            for task, answer in zip(tasks, answers, strict=True):
                task.answer.set_result(answer)

    def _run_one_by_one(self, queue: _Queue, tasks: Sequence[_Task]) -> None:
        for task in tasks:
            if _expired(task, time.monotonic()):
                continue
            try:
                (answer,) = _run_merged(queue, [task], self.options.padded_size(task.rows))
            except Exception as error:
                _fail(task, error)
            else:
                task.answer.set_result(answer)


class Batcher:
    """A runner whose concurrent calls are merged along axis 0 before they reach the model."""

    def __init__(self, runner: Runner, scheduler: BatchScheduler) -> None:
        """Wraps a loaded version.

        Args:
            runner: the version.
            scheduler: the server's; every version shares it.
        """
        self._runner = runner
        self._scheduler = scheduler
        self._queues: dict[tuple[str, tuple[str, ...]], _Queue] = {}

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None,
        interrupt: bool = False,
    ) -> dict[str, np.ndarray]:
        """Runs one signature, together with other requests for it; see `Runner.run`.

        Raises:
            ServingError: INVALID_ARGUMENT for inputs that differ in axis 0 or are larger than a batch,
                RESOURCE_EXHAUSTED at a full queue, DEADLINE_EXCEEDED, or what the model says.
        """
        rows = merging.common_rows(inputs)
        if rows == 0:
            return self._runner.run(signature_name, inputs, outputs, deadline, interrupt)
        if rows > self._scheduler.options.max_batch_size:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size {self._scheduler.options.max_batch_size}"
            )
        key = (signature_name, tuple(sorted(set(outputs))))
        queue = self._queues.setdefault(key, _Queue(self._runner, *key))
        kind = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items()))
        now = time.monotonic()
        task = _Task(inputs, rows, deadline, now)
        self._scheduler.submit(queue, kind, task)
        try:
            return task.answer.result(None if deadline is None else max(0.0, deadline - now))
        except concurrent.futures.TimeoutError:
            raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline passed before the model answered") from None

    def close(self) -> None:
        """Frees the model; no run is in progress or follows."""
        self._runner.close()


def _fail(task: _Task, error: Exception) -> None:
    """Hands an error to the caller, a refusal without its traceback, whose frames would hold every image."""
    task.answer.set_exception(error.with_traceback(None) if isinstance(error, ServingError) else error)


def _expired(task: _Task, now: float) -> bool:
    """Tells whether a request's deadline has passed, and if so answers it."""
    if task.deadline is None or now < task.deadline:
        return False
    _fail(task, deadline_exceeded())
    return True


def _run_merged(queue: _Queue, tasks: Sequence[_Task], size: int) -> list[dict[str, np.ndarray]]:
    """Runs requests as one batch of `size` rows and returns the outputs of each."""
    rows = [task.rows for task in tasks]
    inputs = merging.merge([task.inputs for task in tasks], padding=size - sum(rows))
    return merging.split(queue.run(inputs), rows, size)
