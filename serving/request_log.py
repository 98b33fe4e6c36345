"""Writes sampled predictions as TFRecords of `PredictionLog`, which `segpipe watch` reads.

The format is that of TensorFlow Serving's request logging (tensorflow_serving/apis/{prediction_log,logging}.proto at
9d981c5). TensorFlow is not imported, so a small process beside a server can log too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import struct
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf.message import DecodeError, Message

from components.errors import UsageError
from serving.client import protocol

_LOG = logging.getLogger("segpipe.serving")
_PREFIX, _SUFFIX = "requests-", ".tfrecord"
_SECONDS_TO_CLOSE = 10.0

# On the wire, a field of type bytes equals the message that prediction_log.proto has in its place.
_MESSAGES = protocol.declare(
    "segpipe.request_log",
    {
        "SamplingConfig": "double sampling_rate = 1",
        "LogMetadata": "SamplingConfig sampling_config = 2; int64 timestamp_secs = 4",
        "PredictLog": "bytes request = 1; bytes response = 2",
        "PredictionLog": "LogMetadata log_metadata = 1; PredictLog predict_log = 6",
    },
)


class RequestLog:
    """Logs predictions without slowing or failing them. Thread-safe.

    A file has a hidden name until it is complete: at `max_bytes`, after `max_seconds`, or at `close`. A prediction is
    dropped if it is larger than `max_bytes`, if too many bytes wait to be written, or if the disk fails; the server's
    log reports that once. The oldest files are deleted to stay below `max_total_bytes`.
    """

    def __init__(
        self,
        directory: str,
        sampling_rate: float = 1.0,
        *,
        max_bytes: int = 64 << 20,
        max_seconds: float = 60.0,
        max_total_bytes: int = 1 << 30,
        max_waiting_bytes: int = 64 << 20,
    ) -> None:
        """Creates the folder and starts a thread that writes.

        Args:
            directory: folder for the files. Each process needs its own, or `max_total_bytes` does not hold.
            sampling_rate: fraction of predictions to write, 0 to 1.
            max_bytes: largest file.
            max_seconds: longest time until a file is complete.
            max_total_bytes: limit on the size of all files.
            max_waiting_bytes: limit on the predictions in memory that wait to be written.

        Raises:
            UsageError: the folder is not writable, or the rate is not between 0 and 1.
        """
        if not 0 <= sampling_rate <= 1:
            raise UsageError(f"request log: found a sampling rate of {sampling_rate}, expected 0 to 1")
        self._directory = Path(directory)
        self._rate = sampling_rate
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._max_waiting_bytes = max_waiting_bytes
        self._lock = threading.Lock()
        self._closed = False
        self._warnings: set[str] = set()
        self._files = _Files(self._directory, max_bytes, max_seconds, max_total_bytes)
        prepare_folder(directory)
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def record(self, request: bytes | Message, response: bytes | Message | None = None) -> None:
        """Logs a prediction, if it is sampled. Never waits for the disk and never raises.

        Args:
            request: a `PredictRequest`, as a message or serialized.
            response: its `PredictResponse`, or None.
        """
        try:
            if self._closed or random.random() >= self._rate:
                return
            log = _MESSAGES["PredictionLog"]()
            log.log_metadata.timestamp_secs = int(time.time())
            log.log_metadata.sampling_config.sampling_rate = self._rate
            log.predict_log.request = _serialized(request)
            if response is not None:
                log.predict_log.response = _serialized(response)
            record = log.SerializeToString()
        except Exception as error:  # logging must never fail the caller's request
            self._warn_once(f"cannot log a prediction ({error!r})")
            return
        with self._lock:
            has_room = self._waiting_bytes + len(record) <= self._max_waiting_bytes
            self._waiting_bytes += len(record) if has_room else 0
        if has_room:
            self._waiting.put(record)
        else:
            self._warn_once("drops predictions, because the disk is slower than the requests")

    def close(self) -> None:
        """Writes the waiting predictions and completes the last file. Later predictions are not logged."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join(_SECONDS_TO_CLOSE)

    def _run(self) -> None:
        while True:
            try:
                record = self._waiting.get(timeout=self._files.seconds_left())
            except queue.Empty:
                self._attempt(self._files.complete)
                continue
            if record is None:
                self._attempt(self._files.complete)
                return
            with self._lock:
                self._waiting_bytes -= len(record)
            self._attempt(self._files.write, record)

    def _attempt(self, action: Any, *arguments: Any) -> None:
        try:
            action(*arguments)
        except ValueError as error:
            self._warn_once(str(error))
        except OSError as error:
            self._files.discard()
            self._warn_once(str(error))

    def _warn_once(self, text: str) -> None:
        """Reports a problem in the server's log, once."""
        if text not in self._warnings and len(self._warnings) < 100:
            self._warnings.add(text)
            _LOG.warning("request log %s: %s", self._directory, text)


def prepare_folder(directory: str) -> None:
    """Makes the folder of a log. Raises UsageError if it is not writable."""
    probe = Path(directory, f".{_PREFIX}probe-{os.getpid()}")
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"request log {directory}: found {error.strerror}, expected a writable folder") from None


class _Files:
    """The files of a log; not thread-safe."""

    def __init__(self, directory: Path, max_bytes: int, max_seconds: float, max_total_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._max_total_bytes = max_total_bytes
        self._file: BinaryIO | None = None
        self._name = ""
        self._size = 0
        self._until = 0.0
        self._count = 0

    def seconds_left(self) -> float | None:
        """Returns how long the open file may stay open, or None if no file is open."""
        return None if self._file is None else max(self._until - time.monotonic(), 0)

    def write(self, record: bytes) -> None:
        """Appends a record, in a new file if the open one is full or too old.

        Raises:
            OSError: the disk fails.
            ValueError: the record is too large for a file, or contains no PredictRequest.
        """
        framed = _frame(record)
        if len(framed) > self._max_bytes:
            raise ValueError(f"drops predictions of more than {self._max_bytes} bytes")
        request = _MESSAGES["PredictionLog"].FromString(record).predict_log.request
        try:
            protocol.MESSAGES["PredictRequest"].FromString(request)
        except DecodeError:
            raise ValueError("drops messages that are no PredictRequest") from None
        if self._file is not None and (self._size + len(framed) > self._max_bytes or not self.seconds_left()):
            self.complete()
        if self._file is None:
            self._open()
        assert self._file is not None
        self._file.write(framed)
        self._size += len(framed)

    def complete(self) -> None:
        """Renames the open file, so that readers see it."""
        if self._file is not None:
            self._file.close()
            os.replace(self._directory / f".{self._name}", self._directory / self._name)
            self._file = None

    def discard(self) -> None:
        """Deletes the open file, which may be incomplete."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                (self._directory / f".{self._name}").unlink()

    def _open(self) -> None:
        self._delete_oldest()
        self._count += 1
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._name = f"{_PREFIX}{moment}-{os.getpid()}-{self._count:06}{_SUFFIX}"
        self._file = open(self._directory / f".{self._name}", "wb")  # noqa: SIM115, it stays open
        self._size = 0
        self._until = time.monotonic() + self._max_seconds

    def _delete_oldest(self) -> None:
        """Makes room for one more file. Includes hidden files left behind by killed processes."""
        found = [path for start in ("", ".") for path in self._directory.glob(f"{start}{_PREFIX}*{_SUFFIX}")]
        files = sorted(((path.stat(), path) for path in found), key=lambda each: (each[0].st_mtime, str(each[1])))
        total = sum(status.st_size for status, _ in files)
        for status, path in files:
            if total + self._max_bytes <= self._max_total_bytes:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size


def _frame(record: bytes) -> bytes:
    """Frames a record for a TFRecord file: length, its CRC, the record, its CRC.

    The format is that of tensorflow/core/lib/io/record_writer.h.
    """
    length = struct.pack("<Q", len(record))
    return length + _masked_crc(length) + record + _masked_crc(record)


def _masked_crc(data: bytes) -> bytes:
    """Returns the masked CRC-32C, 4 bytes, of tensorflow/core/lib/hash/crc32c.h."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _serialized(message: bytes | Message) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
