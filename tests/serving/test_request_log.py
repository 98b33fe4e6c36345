"""The request log: files that `segpipe watch` and TensorFlow can read, within the size limits, even after failures."""

import os
import random
import subprocess
import sys
import threading

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from toy_servicer import picture

from components.errors import UsageError
from pipeline.watch import sources
from serving import request_log
from serving.client.protocol import MESSAGES, strings_tensor
from serving.request_log import RequestLog

_SIZE = 1000


def _request(image=b"\xff" * _SIZE):
    request = MESSAGES["PredictRequest"]()
    request.model_spec.name = "toy"
    request.inputs.add(key="image", value=strings_tensor([image]))
    return request


def _logs(folder):
    """Returns the PredictionLogs of the complete files, by file, as TensorFlow reads them."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    records = {path: tf.data.TFRecordDataset(str(path)).as_numpy_iterator() for path in files}
    return [[prediction_log_pb2.PredictionLog.FromString(each) for each in found] for found in records.values()]


def test_a_log_contains_requests_and_responses_like_tensorflow_serving(tmp_path):
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = 3
    log = RequestLog(str(tmp_path / "new" / "folder"), sampling_rate=1)
    log.record(_request(), response)
    log.record(_request().SerializeToString(), response.SerializeToString())
    log.record(_request(b"alone"))
    log.close()
    log.record(_request(b"after the end"))

    ((first, second, third),) = _logs(tmp_path / "new" / "folder")
    expected = predict_pb2.PredictRequest.FromString(_request().SerializeToString())
    assert first.predict_log.request == second.predict_log.request == expected
    assert first.predict_log.response == second.predict_log.response == response
    assert first.log_metadata.sampling_config.sampling_rate == 1
    assert first.log_metadata.timestamp_secs > 0
    assert third.predict_log.request.inputs["image"].string_val == [b"alone"]
    assert not third.predict_log.HasField("response")


def test_watch_reads_the_images(tmp_path):
    log = RequestLog(str(tmp_path))
    for light in (10, 250):
        log.record(_request(picture(light)))
    log.close()

    found = sources.read_source(str(tmp_path), 10, "train")

    assert (found.kind, found.unreadable) == (sources.REQUESTS, 0)
    assert [each.image for each in found.images] == [picture(10), picture(250)]


def test_a_file_is_hidden_until_it_is_full(tmp_path):
    log = RequestLog(str(tmp_path), max_bytes=3 * _SIZE)
    for _ in range(5):
        log.record(_request())
    log.close()

    assert [len(each) for each in _logs(tmp_path)] == [2, 2, 1]
    assert all(path.stat().st_size <= 3 * _SIZE for path in tmp_path.iterdir())


def test_an_open_file_has_a_hidden_name_and_is_completed_after_its_time(tmp_path):
    files = request_log._Files(tmp_path, 1 << 20, 1e9, 1 << 30)
    record = request_log._MESSAGES["PredictionLog"]().SerializeToString()
    files.write(record)
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    files._until = 0.0
    assert files.seconds_left() == 0
    files.write(record)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == [".", "r"]
    files.complete()

    log = RequestLog(str(tmp_path / "idle"), max_seconds=0)
    log.record(_request())
    while not _logs(tmp_path / "idle"):  # without another request and without an end
        threading.Event().wait(0.01)
    log.close()


def test_the_oldest_files_are_deleted_including_those_of_killed_processes(tmp_path):
    left_behind = tmp_path / ".requests-20250101T000000Z-1-000001.tfrecord"
    left_behind.write_bytes(bytes(2 * _SIZE))
    foreign = tmp_path / "notes.txt"
    foreign.write_bytes(bytes(9 * _SIZE))
    for path in (left_behind, foreign):
        os.utime(path, (0, 0))
    log = RequestLog(str(tmp_path), max_bytes=2 * _SIZE, max_total_bytes=6 * _SIZE)
    for number in range(9):
        log.record(_request(bytes([number]) * _SIZE))
    log.close()

    foreign.unlink()
    assert not left_behind.exists()
    kept = [each.predict_log.request.inputs["image"].string_val[0][0] for logs in _logs(tmp_path) for each in logs]
    assert kept == list(range(9))[-len(kept) :]
    assert 3 * _SIZE < sum(path.stat().st_size for path in tmp_path.iterdir()) <= 6 * _SIZE


def test_requests_are_sampled(tmp_path, monkeypatch):
    draws = iter([0.1, 0.5, 0.49, 0.99])
    monkeypatch.setattr(random, "random", lambda: next(draws))
    log = RequestLog(str(tmp_path), sampling_rate=0.5)
    for name in (b"a", b"b", b"c", b"d"):
        log.record(_request(name))
    log.close()

    (logs,) = _logs(tmp_path)
    assert [each.predict_log.request.inputs["image"].string_val[0] for each in logs] == [b"a", b"c"]


def test_invalid_messages_are_dropped_and_reported_once(tmp_path, caplog):
    log = RequestLog(str(tmp_path), max_bytes=3 * _SIZE)
    for _ in range(2):
        log.record(_request(bytes(4 * _SIZE)))
        log.record(b"\xff no PredictRequest")
        log.record(None)
        log.record(_request())
    log.close()

    assert sum(map(len, _logs(tmp_path))) == 2
    messages = [record.message for record in caplog.records]
    assert len(messages) == 3
    assert any("drops predictions of more than 3000 bytes" in message for message in messages)
    assert any("no PredictRequest" in message for message in messages)
    assert any("cannot log a prediction" in message for message in messages)


def test_a_failing_disk_loses_records_but_fails_no_request(tmp_path, caplog, monkeypatch):
    class FullDisk:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    log = RequestLog(str(tmp_path))
    monkeypatch.setattr(request_log, "open", lambda path, mode: path.touch() or FullDisk(), raising=False)
    for _ in range(3):
        log.record(_request())
    log.close()

    assert list(tmp_path.iterdir()) == []
    assert [record.message for record in caplog.records] == [
        f"request log {tmp_path}: [Errno 28] No space left on device"
    ]


def test_a_slow_disk_never_blocks_a_request(tmp_path, caplog, monkeypatch):
    entered, released = threading.Event(), threading.Event()
    write = request_log._Files.write

    def slow_write(files, record):
        entered.set()
        assert released.wait(60)
        write(files, record)

    monkeypatch.setattr(request_log._Files, "write", slow_write)
    log = RequestLog(str(tmp_path), max_waiting_bytes=3 * _SIZE)
    log.record(_request())
    assert entered.wait(60)
    for _ in range(5):  # two of them fit into what may wait
        log.record(_request())
    released.set()
    log.close()

    assert sum(map(len, _logs(tmp_path))) == 3
    assert "because the disk is slower than the requests" in caplog.text


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_an_invalid_sampling_rate_is_rejected(tmp_path, rate):
    with pytest.raises(UsageError, match="sampling rate"):
        RequestLog(str(tmp_path), rate)


def test_a_read_only_folder_is_rejected(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match="expected a writable folder"):
        RequestLog(str(tmp_path / "file"))


def test_tensorflow_is_not_imported():
    program = "import sys, serving.request_log; print('tensorflow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], text=True, capture_output=True).stdout == "False\n"
