"""The sink of mirrored requests: the gRPC messages that it accepts, and complete files at its end."""

import gzip
import os
import signal
import struct
import subprocess
import sys
import zlib

import httpx
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from serving.request_sink import message_of


def _frame(message, is_compressed=0):
    return struct.pack(">BI", is_compressed, len(message)) + message


def test_the_message_follows_the_frame_header():
    assert message_of(_frame(b"hello")) == b"hello"
    assert message_of(_frame(b"")) == b""
    assert message_of(_frame(gzip.compress(b"hello", mtime=0), 1), "gzip") == b"hello"
    assert message_of(_frame(zlib.compress(b"hello"), 1), "deflate") == b"hello"


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"\0\0", "identity", "found 2 bytes, expected a gRPC message"),
        (_frame(b"hello")[:-1], "identity", "found 4 bytes, expected one gRPC message of 5 bytes"),
        (_frame(b"hello") + _frame(b"again"), "identity", "found 15 bytes, expected one gRPC message of 5 bytes"),
        (_frame(b"hello", 1), "snappy", "grpc-encoding 'snappy', expected gzip or deflate"),
        (_frame(b"hello", 1), "identity", "grpc-encoding 'identity', expected gzip or deflate"),
        (_frame(b"hello", 1), "gzip", "found a broken gzip message"),
        (_frame(gzip.compress(b"hello", mtime=0)[:-9], 1), "gzip", "truncated"),
        (_frame(gzip.compress(bytes(1000), mtime=0), 1), "gzip", "longer than 100 bytes"),
    ],
)
def test_incomplete_messages_are_errors(body, encoding, message):
    with pytest.raises(ValueError, match=message):
        message_of(body, encoding, max_bytes=100)


@pytest.fixture
def sink(tmp_path):
    """A sink in its own process, its address and its folder."""
    words = [sys.executable, "-m", "serving.request_sink", "--directory", str(tmp_path / "log"), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().rpartition(" ")[2].strip()
        yield process, f"http://{address}", tmp_path / "log"
        process.kill()


def test_sigterm_completes_the_file(sink):
    process, address, folder = sink
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "fcn8"

    with httpx.Client(base_url=address, trust_env=False) as client:
        taken = client.post(
            "/tensorflow.serving.PredictionService/Predict", content=_frame(request.SerializeToString())
        )
        broken = client.post("/", content=b"hello")
        wrong = client.get("/")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0

    assert [taken.status_code, broken.status_code, wrong.status_code] == [204, 400, 405]
    (file,) = folder.iterdir()
    (record,) = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    assert prediction_log_pb2.PredictionLog.FromString(record).predict_log.request == request


def test_the_sink_does_not_import_tensorflow():
    program = "import sys, serving.request_sink; sys.exit('tensorflow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "99999"], "--port: found 99999, expected 0 to 65535"),
        (["--directory", os.devnull], "expected a writable folder"),
    ],
)
def test_an_unusable_folder_or_port_is_reported(tmp_path, words, message):
    command = [sys.executable, "-m", "serving.request_sink", "--directory", str(tmp_path), *words]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode in (1, 2)
    assert message in done.stderr
