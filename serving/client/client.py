"""The synchronous client: blocks until the answer is there, and keeps several requests under way for many images."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

from serving.client import batching, protocol
from serving.client.conversation import Call, Conversation, Pause, Steps, refused
from serving.client.results import Answer, Description, Key, Refused, Result, VersionStatus
from serving.client.retries import Retries
from serving.client.settings import Settings


class Client:
    """A model behind a server that speaks TensorFlow Serving's protocol. Safe to use from several threads.

    ```python
    with Client("localhost:8500", model="fcn8") as client:
        answer = client.segment(Path("frame.png").read_bytes())
    ```
    """

    def __init__(self, target: str, *, retries: Retries | None = None, **settings: Any) -> None:
        """Opens a connection; the server is first asked by the first question.

        Args:
            target: HOST:PORT of the server's gRPC port.
            retries: how often and when to try again.
            settings: the other fields of `Settings`: model, version, label, tls, deadline, batch_size,
                concurrency, max_message_bytes, score_threshold, max_instances.

        Raises:
            UsageError: a setting makes no sense, or a file of TLS cannot be read.
        """
        self.settings = Settings(target, **settings)
        self._conversation = Conversation(self.settings, retries or Retries())
        options = self.settings.channel_options()
        self._channel = (
            grpc.insecure_channel(target, options)
            if self.settings.tls is None
            else grpc.secure_channel(target, self.settings.tls.credentials(), options)
        )
        self._calls = {
            method: self._channel.unary_unary(method, lambda request: request.SerializeToString(), response.FromString)
            for method, response in protocol.RESPONSES.items()
        }
        self._pool = ThreadPoolExecutor(self.settings.concurrency, "segpipe-client")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; questions under way fail."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._channel.close()

    def segment(self, image: bytes) -> Answer:
        """Asks what the model sees in one encoded PNG or JPEG image.

        Returns:
            A `Segmentation`, or an `InstanceSegmentation` of a model of instances.

        Raises:
            RequestRefusedError: the model cannot read the image.
            ServerError: the server cannot be reached, is busy, or does not serve the model.
            UsageError: the settings limit instances and the model finds none.
        """
        (result,) = self._run(self._conversation.segment([image]))
        if isinstance(result, Refused):
            raise refused(self.settings, result)
        return result

    def segment_batch(self, images: Sequence[bytes]) -> list[Result]:
        """Asks what the model sees in many images, in requests of `batch_size`; a refused one is in its place.

        Raises:
            ServerError: the server cannot be reached, is busy, or does not serve the model.
        """
        return [result for _, result in self.segment_all(enumerate(images))]

    def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Result]]:
        """Yields a result for each image, in order, under the key it came with, such as its file name.

        Images are taken as they are needed: a video need not fit in memory.

        Raises:
            ServerError: as `segment_batch`.
        """
        under_way: collections.deque[tuple[list[Key], Future[list[Result]]]] = collections.deque()
        try:
            for keys, batch in batching.requests(images, self.settings.batch_size, self.settings.max_message_bytes):
                under_way.append((keys, self._pool.submit(self._run, self._conversation.segment(batch))))
                if len(under_way) == self.settings.concurrency:
                    yield from _finished(under_way)
            while under_way:
                yield from _finished(under_way)
        finally:
            for _, future in under_way:
                future.cancel()

    def describe(self) -> Description:
        """Asks what the model says of itself: classes, palette, input size, metrics. Raises ServerError."""
        return self._run(self._conversation.describe())

    def status(self) -> list[VersionStatus]:
        """Asks for the state of the model's versions, the newest first. Raises ServerError."""
        return self._run(self._conversation.status())

    def signatures(self) -> dict[str, dict[str, dict[str, str]]]:
        """Asks for the model's signatures, inputs and outputs with type and shape. Raises ServerError."""
        return self._run(self._conversation.signatures())

    def _run(self, steps: Steps[Any]) -> Any:
        """Carries out what a conversation asks for."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    response = self._call(step)
                except grpc.RpcError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            return end.value

    def _call(self, call: Call) -> Any:
        return self._calls[call.method](call.request, timeout=call.timeout)


def _finished(under_way: collections.deque[tuple[list[Key], Future[list[Result]]]]) -> Iterator[tuple[Key, Result]]:
    """Waits for the oldest request and yields its results."""
    keys, future = under_way.popleft()
    yield from zip(keys, future.result(), strict=True)
