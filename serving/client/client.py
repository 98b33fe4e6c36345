"""The synchronous client. Blocks until the response is there; sends requests for many images in parallel."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

from serving.client import batching, protocol
from serving.client.core import ClientCore, Pause, Steps
from serving.client.results import Answer, Description, Key, Result, VersionStatus
from serving.client.retries import Retries
from serving.client.settings import ClientSettings


class Client:
    """A model on a server with TensorFlow Serving's protocol. Thread-safe.

    ```python
    with Client("localhost:8500", model="fcn8") as client:
        answer = client.segment(Path("frame.png").read_bytes())
    ```
    """

    def __init__(self, target: str, *, retries: Retries | None = None, **settings: Any) -> None:
        """Opens a channel, which connects with the first call.

        Args:
            target: HOST:PORT of the server's gRPC port.
            retries: number and timing of retries.
            settings: the other fields of `ClientSettings`: model, version, label, tls, deadline, batch_size,
                concurrency, max_message_bytes, score_threshold, max_instances.

        Raises:
            UsageError: a setting is invalid, or a TLS file cannot be read.
        """
        self.settings = ClientSettings(target, **settings)
        self._core = ClientCore(self.settings, retries or Retries())
        self._channel = self.settings.open_channel()
        self._calls = protocol.methods(self._channel)
        self._pool = ThreadPoolExecutor(self.settings.concurrency, "segpipe-client")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; in-flight requests are cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._channel.close()

    def segment(self, image: bytes) -> Answer:
        """Segments one encoded PNG or JPEG image.

        Returns:
            A `Segmentation`, or an `InstanceSegmentation` from an instance model.

        Raises:
            RequestRefusedError: the model cannot read the image.
            ServerError: the server cannot be reached, is busy, or does not serve the model.
            UsageError: the settings limit instances, but the model is a semantic one.
        """
        return self._run(self._core.segment_one(image))

    def segment_batch(self, images: Sequence[bytes]) -> list[Result]:
        """Segments many images, in requests of `batch_size`. The result of an unreadable image is `Refused`.

        Raises ServerError if the server cannot be reached, is busy, or does not serve the model.
        """
        return [result for _, result in self.segment_all(enumerate(images))]

    def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Result]]:
        """Yields the key, such as a file name, and the result of each image, in order.

        Reads images only when it needs them, so a video need not fit in memory. Raises as `segment_batch`.
        """
        in_flight: collections.deque[tuple[list[Key], Future[list[Result]]]] = collections.deque()
        try:
            for keys, batch in batching.requests(images, self.settings.batch_size, self.settings.max_message_bytes):
                in_flight.append((keys, self._pool.submit(self._run, self._core.segment(batch))))
                if len(in_flight) == self.settings.concurrency:
                    yield from _finished(in_flight)
            while in_flight:
                yield from _finished(in_flight)
        finally:
            for _, future in in_flight:
                future.cancel()

    def describe(self) -> Description:
        """Returns the model's classes, palette, input size and metrics. Raises ServerError."""
        return self._run(self._core.describe())

    def status(self) -> list[VersionStatus]:
        """Returns the state of the model's versions, newest first. Raises ServerError."""
        return self._run(self._core.status())

    def signatures(self) -> dict[str, dict[str, dict[str, str]]]:
        """Returns inputs and outputs of the model's signatures, with type and shape. Raises ServerError."""
        return self._run(self._core.signatures())

    def _run(self, steps: Steps[Any]) -> Any:
        """Runs the calls and pauses of a `ClientCore` method."""
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Pause):
                    answer = None
                    time.sleep(step.seconds)
                    continue
                try:
                    answer = self._calls[step.method](step.request, timeout=step.timeout)
                except grpc.RpcError as error:
                    answer = error
        except StopIteration as end:
            return end.value


def _finished(in_flight: collections.deque[tuple[list[Key], Future[list[Result]]]]) -> Iterator[tuple[Key, Result]]:
    """Waits for the oldest request and yields its results."""
    keys, future = in_flight.popleft()
    yield from zip(keys, future.result(), strict=True)
