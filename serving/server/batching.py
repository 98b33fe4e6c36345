"""Dynamic batching: merges waiting requests for the same signature into one call of the model.

Follows the rules of TensorFlow Serving's shared batch scheduler, with one difference: if a merged call fails, its
requests run one by one, so that only the bad one fails.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from serving.server import errors
from serving.server.configuration import BatchingOptions
from serving.server.session import SavedModelSession

# Session, signature and outputs. Requests for the same call, with inputs of the same types and shapes, are merged.
_Call = tuple[SavedModelSession, str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Request:
    inputs: Mapping[str, np.ndarray]
    rows: int
    deadline: float
    submitted: float
    answer: concurrent.futures.Future[dict[str, np.ndarray]]


@dataclasses.dataclass(eq=False)
class _Batch:
    call: _Call
    input_specs: Hashable
    due: float
    requests: list[_Request] = dataclasses.field(default_factory=list)
    rows: int = 0


class BatchScheduler:
    """Threads that run the batches of all models of the server, oldest first."""

    def __init__(
        self,
        options: BatchingOptions,
        on_batch: Callable[[int, list[float]], None] = lambda rows, waits: None,
        max_wait: float = 1.0,
    ) -> None:
        """Starts the threads.

        Args:
            options: sizes, delays and limits.
            on_batch: called before each batch with its rows and the seconds that each of its requests waited.
            max_wait: seconds that a batch may wait for a free thread after it is due.
        """
        self._options = options
        self._max_wait = max_wait + options.batch_timeout_micros / 1e6
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
        """The number of waiting requests."""
        with self._changed:
            return sum(len(batch.requests) for batch in self._waiting)

    def close(self) -> None:
        """Runs the waiting batches, then ends the threads. Rejects later requests."""
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
    ) -> dict[str, np.ndarray]:
        """Runs one signature like `SavedModelSession.run`, merged along axis 0 with other requests for it.

        Also raises ServingError for inputs that differ in axis 0 or exceed a batch, if the queue is full, and if the
        wait is too long.
        """
        sizes = {array.shape[:1] for array in inputs.values()}
        if len(sizes) != 1 or () in sizes:
            shapes = {name: array.shape for name, array in inputs.items()}
            raise errors.invalid_argument(f"found inputs of shapes {shapes}, expected the same batch size in all")
        ((rows,),) = sizes
        if rows == 0:
            return session.run(signature_name, inputs, outputs)
        limit = self._options.max_batch_size
        if rows > limit:
            raise errors.invalid_argument(
                f"found {rows} rows, expected at most max_batch_size, {limit}; send several requests"
            )
        now = time.monotonic()
        left = math.inf if deadline is None else deadline - now
        request = _Request(inputs, rows, now + left, now, concurrent.futures.Future())
        self._enqueue((session, signature_name, tuple(sorted(set(outputs)))), request)
        wait = max(min(left, self._max_wait), 0)
        if not concurrent.futures.wait([request.answer], wait).done and request.answer.cancel():
            raise errors.not_run(left, self._max_wait)
        try:
            return request.answer.result(None if deadline is None else max(deadline - time.monotonic(), 0))
        except concurrent.futures.TimeoutError:
            raise errors.deadline_exceeded("Deadline passed before the model answered") from None

    def _enqueue(self, call: _Call, request: _Request) -> None:
        """Adds a request to the newest batch that it fits, or a new one. Raises ServingError if the queue is full."""
        specs = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(request.inputs.items()))
        options = self._options
        with self._changed:
            if self._closed:
                raise errors.shutting_down()
            queue = [batch for batch in self._waiting if batch.call == call]
            batch = next((batch for batch in reversed(queue) if batch.input_specs == specs), None)
            if batch is None or batch.rows + request.rows > options.max_batch_size:
                if len(queue) >= options.max_enqueued_batches:
                    raise errors.exhausted(
                        f"The batch queue is full: found {len(queue)} batches enqueued and max_enqueued_batches is "
                        f"{options.max_enqueued_batches}; try again later"
                    )
                if batch is not None:
                    batch.due = request.submitted
                batch = _Batch(call, specs, request.submitted + options.batch_timeout_micros / 1e6)
                self._waiting.append(batch)
            batch.requests.append(request)
            batch.rows += request.rows
            if batch.rows == options.max_batch_size:
                batch.due = request.submitted
            self._changed.notify()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            now = time.monotonic()
            # A caller cancels its future when it stops waiting.
            requests = [
                request
                for request in batch.requests
                if now < request.deadline and request.answer.set_running_or_notify_cancel()
            ]
            if requests:
                self._on_batch(sum(each.rows for each in requests), [now - each.submitted for each in requests])
                _run(batch.call, requests)
            # Else this thread would keep the model in memory while it waits.
            del batch, requests

    def _next(self) -> _Batch | None:
        """Waits for the oldest batch that is due and returns it, or None when the scheduler is closed and empty."""
        with self._changed:
            while True:
                now = time.monotonic()
                batch = next((batch for batch in self._waiting if batch.due <= now or self._closed), None)
                if batch is not None:
                    self._waiting.remove(batch)
                    if self._waiting:
                        # One notification may stand for several batches.
                        self._changed.notify()
                    return batch
                if self._closed:
                    return None
                soonest = min((batch.due for batch in self._waiting), default=None)
                self._changed.wait(None if soonest is None else soonest - now)


def _run(call: _Call, requests: Sequence[_Request]) -> None:
    """Runs requests as one batch and sets their answers; if that fails, runs each alone before its deadline."""
    try:
        answers = _run_merged(call, requests)
    except Exception as error:
        if len(requests) == 1:
            # The traceback's frames would keep every image in memory.
            known = isinstance(error, errors.ServingError)
            requests[0].answer.set_exception(error.with_traceback(None) if known else error)
            return
        for request in requests:
            if time.monotonic() < request.deadline:
                _run(call, [request])
    else:
        for request, answer in zip(requests, answers, strict=True):
            request.answer.set_result(answer)


def _run_merged(call: _Call, requests: Sequence[_Request]) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of each request. Raises ServingError, also if inputs and outputs differ in rows."""
    inputs = requests[0].inputs
    if len(requests) > 1:
        inputs = {name: np.concatenate([request.inputs[name] for request in requests]) for name in inputs}
    *ends, size = np.cumsum([request.rows for request in requests]).tolist()
    session, signature_name, wanted = call
    outputs = session.run(signature_name, inputs, wanted)
    for name, array in outputs.items():
        if array.shape[:1] != (size,):
            raise errors.failed_precondition(
                f"output {name}: found shape {array.shape}, expected {size} rows as in the input"
            )
    parts = {name: np.split(array, ends) for name, array in outputs.items()}
    return [{name: split[index] for name, split in parts.items()} for index in range(len(requests))]
