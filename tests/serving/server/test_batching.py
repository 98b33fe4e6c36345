"""Batching: which requests are merged, and that a bad, late or surplus request fails alone."""

import concurrent.futures
import dataclasses
import threading
import time

import grpc
import numpy as np
import pytest

from components.errors import UsageError
from serving.server.batching import BatchScheduler
from serving.server.configuration import BatchingOptions, read_batching_options
from serving.server.errors import ServingError, invalid_argument


class DoublingModel:
    """Returns each row doubled, rejects a batch with a negative number, and records its calls."""

    def __init__(self):
        self.calls = []

    def run(self, signature_name, inputs, outputs):
        array = inputs["x"]
        self.calls.append(array.copy())
        if array.dtype != object and (array < 0).any():
            raise invalid_argument(
                f"row {int(np.argmax((array < 0).any(axis=tuple(range(1, array.ndim)))))} is negative"
            )
        return dict.fromkeys(outputs, array + array)


class GatedModel(DoublingModel):
    """Waits in its first call until the test opens the gate, so that requests pile up behind it."""

    def __init__(self):
        super().__init__()
        self.busy = threading.Event()
        self.gate = threading.Event()

    def run(self, signature_name, inputs, outputs):
        if not self.busy.is_set():
            self.busy.set()
            assert self.gate.wait(20)
        return super().run(signature_name, inputs, outputs)


class Harness:
    """One batch thread, held by the gated model, with requests queued behind it in a known order."""

    def __init__(self, observe=lambda rows, waits: None, max_wait=60, **options):
        self.model = GatedModel()
        self.scheduler = BatchScheduler(BatchingOptions(num_batch_threads=1, **options), observe, max_wait)
        self.pool = concurrent.futures.ThreadPoolExecutor(32)
        self.first = self.pool.submit(self.ask, np.zeros((1, 2), np.float32))
        assert self.model.busy.wait(20)

    def ask(self, array, deadline=None, signature="serving_default", outputs=("y",)):
        return self.scheduler.run(self.model, signature, {"x": array}, outputs, deadline)

    def enqueue(self, array, **kwargs):
        """Sends a request from another thread and returns once it waits in the queue."""
        before = self.scheduler.queued
        future = self.pool.submit(self.ask, array, **kwargs)
        limit = time.monotonic() + 20
        while self.scheduler.queued == before and not future.done():
            assert time.monotonic() < limit
        return future

    def open(self):
        self.model.gate.set()
        self.first.result(20)

    def close(self):
        self.model.gate.set()
        self.pool.shutdown()
        self.scheduler.close()


@pytest.fixture
def harness():
    made = []

    def make(**options):
        made.append(Harness(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _row(*values, dtype=np.float32):
    return np.array([values], dtype)


def test_waiting_requests_run_as_one_call_and_each_gets_its_rows(harness):
    queue = harness()
    futures = [queue.enqueue(_row(i, i)) for i in range(5)]
    futures.append(queue.enqueue(np.full((3, 2), 7, np.float32)))

    queue.open()

    answers = [future.result(20)["y"] for future in futures]
    assert [len(call) for call in queue.model.calls] == [1, 8]
    for i in range(5):
        np.testing.assert_array_equal(answers[i], [[2 * i, 2 * i]])
    np.testing.assert_array_equal(answers[5], np.full((3, 2), 14))


def test_strings_are_merged_too(harness):
    queue = harness()
    futures = [queue.enqueue(np.array([data], object)) for data in (b"\x00a\x00", b"", b"bc")]

    queue.open()

    assert [future.result(20)["y"].tolist() for future in futures] == [[b"\x00a\x00\x00a\x00"], [b""], [b"bcbc"]]
    assert len(queue.model.calls) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"array": _row(1, 2, 3)},
        {"array": _row(1, 2, dtype=np.int32)},
        {"array": _row(1, 2), "signature": "probabilities"},
        {"array": _row(1, 2), "outputs": ("z",)},
    ],
    ids=["shape", "dtype", "signature", "outputs"],
)
def test_requests_of_another_kind_run_apart(harness, other):
    queue = harness()
    futures = [queue.enqueue(_row(1, 2)), queue.enqueue(**other), queue.enqueue(_row(3, 4))]

    queue.open()

    assert all(future.result(20) for future in futures)
    assert [len(call) for call in queue.model.calls] == [1, 2, 1]


def test_a_batch_holds_at_most_max_batch_size_rows(harness):
    queue = harness(max_batch_size=4)
    futures = [queue.enqueue(np.full((rows, 2), rows, np.float32)) for rows in (3, 2, 2, 1)]

    queue.open()

    assert all((future.result(20)["y"] == 2 * rows).all() for future, rows in zip(futures, (3, 2, 2, 1), strict=True))
    assert [len(call) for call in queue.model.calls] == [1, 3, 4, 1]


def test_one_bad_request_fails_alone(harness):
    queue = harness()
    futures = [queue.enqueue(_row(value, value)) for value in (1, -5, 3)]

    queue.open()

    assert futures[0].result(20)["y"].tolist() == [[2, 2]]
    assert futures[2].result(20)["y"].tolist() == [[6, 6]]
    with pytest.raises(ServingError, match="row 0 is negative") as caught:
        futures[1].result(20)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_full_queue_rejects_immediately_and_serves_the_rest(harness):
    queue = harness(max_batch_size=2, max_enqueued_batches=2)
    taken = [queue.enqueue(_row(i, i)) for i in range(4)]

    with pytest.raises(ServingError, match="2 batches enqueued and max_enqueued_batches is 2") as caught:
        queue.ask(_row(9, 9))

    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    queue.open()
    assert [future.result(20)["y"][0, 0] for future in taken] == [0, 2, 4, 6]
    assert queue.ask(_row(9, 9))["y"].tolist() == [[18, 18]]


def test_a_request_whose_deadline_passed_is_not_run(harness):
    queue = harness()
    late = queue.enqueue(_row(1, 1), deadline=time.monotonic() + 0.05)
    patient = queue.enqueue(_row(2, 2), deadline=time.monotonic() + 60)
    with pytest.raises(ServingError) as caught:
        late.result(20)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED

    queue.open()

    assert patient.result(20)["y"].tolist() == [[4, 4]]
    assert [call.tolist() for call in queue.model.calls[1:]] == [[[2, 2]]]


def test_a_request_that_waits_too_long_is_rejected_and_not_run(harness):
    queue = harness(max_wait=0.05)
    with pytest.raises(ServingError, match="waited 50 ms for its turn") as caught:
        queue.enqueue(_row(1, 1)).result(20)

    queue.open()

    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert queue.ask(_row(2, 2))["y"].tolist() == [[4, 4]]
    assert [call.tolist() for call in queue.model.calls] == [[[0, 0]], [[2, 2]]]


def test_a_batch_waits_until_it_is_full_or_times_out():
    model = DoublingModel()
    scheduler = BatchScheduler(BatchingOptions(max_batch_size=3, batch_timeout_micros=600_000_000, num_batch_threads=2))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda value: scheduler.run(model, "s", {"x": _row(value)}, ("y",), None), range(3), timeout=60))
    assert [len(call) for call in model.calls] == [3]
    scheduler.close()


def test_a_single_request_runs_after_the_batch_timeout():
    model = DoublingModel()
    scheduler = BatchScheduler(BatchingOptions(batch_timeout_micros=50_000, num_batch_threads=2))
    began = time.monotonic()

    assert scheduler.run(model, "s", {"x": _row(4)}, ("y",), None)["y"].tolist() == [[8]]
    assert time.monotonic() - began >= 0.05
    scheduler.close()


def test_batches_are_reported_before_they_run(harness):
    batches = []
    queue = harness(observe=lambda rows, waits: batches.append((rows, waits)))
    futures = [queue.enqueue(np.full((rows, 2), rows, np.float32)) for rows in (1, 3)]

    queue.open()

    assert all(future.result(20) for future in futures)
    assert [(rows, len(waits)) for rows, waits in batches] == [(1, 1), (4, 2)]
    assert all(wait >= 0 for _, waits in batches for wait in waits)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.float32(1)[...]}, "expected the same batch size in all"),
        ({"x": np.zeros((2, 1)), "z": np.zeros((3, 1))}, "expected the same batch size in all"),
        ({"x": np.zeros((5, 1))}, "found 5 rows, expected at most max_batch_size, 4"),
        ({}, "expected the same batch size in all"),
    ],
)
def test_inputs_that_cannot_be_batched_are_refused(inputs, message):
    scheduler = BatchScheduler(BatchingOptions(max_batch_size=4, num_batch_threads=1))

    with pytest.raises(ServingError, match=message) as caught:
        scheduler.run(DoublingModel(), "s", inputs, ("y",), None)

    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    scheduler.close()


def test_an_output_without_the_batch_s_axis_is_refused():
    class Summing(DoublingModel):
        def run(self, signature_name, inputs, outputs):
            return {"y": inputs["x"].sum(axis=0)}

    scheduler = BatchScheduler(BatchingOptions(num_batch_threads=1))
    with pytest.raises(ServingError, match=r"output y: found shape \(2,\), expected 1 rows") as caught:
        scheduler.run(Summing(), "s", {"x": _row(1, 2)}, ("y",), None)

    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    scheduler.close()


def test_close_runs_waiting_requests_and_rejects_later_ones(harness):
    queue = harness()
    waiting = queue.enqueue(_row(1, 1))
    closer = threading.Thread(target=queue.scheduler.close)
    closer.start()
    queue.open()
    closer.join(20)

    assert waiting.result(20)["y"].tolist() == [[2, 2]]
    with pytest.raises(ServingError, match="shutting down"):
        queue.ask(_row(1, 1))


def test_sixteen_clients_all_get_their_own_answers():
    scheduler = BatchScheduler(BatchingOptions(max_batch_size=8, max_enqueued_batches=100, num_batch_threads=2))
    model = DoublingModel()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda value: scheduler.run(model, "s", {"x": _row(value)}, ("y",), None)["y"], range(2000))
        )

    assert [answer.item() for answer in answers] == [2 * value for value in range(2000)]
    assert scheduler.queued == 0
    scheduler.close()


def _file(tmp_path, text):
    path = tmp_path / "batching.txt"
    path.write_text(text)
    return str(path)


def test_a_parameters_file_of_tensorflow_serving_is_read(tmp_path):
    text = """
        max_batch_size { value: 16 }
        batch_timeout_micros { value: 2000 }
        max_enqueued_batches { value: 4 }
        num_batch_threads { value: 2 }
    """

    assert read_batching_options(_file(tmp_path, text)) == BatchingOptions(16, 2000, 4, 2)
    # The defaults of TensorFlow Serving.
    assert read_batching_options(None) == read_batching_options(_file(tmp_path, "")) == BatchingOptions()
    assert dataclasses.astuple(BatchingOptions())[:3] == (1000, 0, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pad_variable_length_inputs: true", "with the fields max_batch_size, batch_timeout_micros, .*num_batch_thr"),
        ("allowed_batch_sizes: 4", 'no field named "allowed_batch_sizes"'),
        ("max_batch_size { value: 0 }", "max_batch_size is 0, expected at least 1"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1, expected at least 0"),
        ("max_batch: 8", "BatchingParameters"),
        ("max_batch_size: 8", "BatchingParameters"),
    ],
)
def test_an_invalid_parameters_file_is_explained(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_batching_options(_file(tmp_path, text))


def test_a_missing_parameters_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--batching_parameters_file .*absent\.txt"):
        read_batching_options(str(tmp_path / "absent.txt"))
