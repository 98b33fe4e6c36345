"""The asynchronous client, for services that run on asyncio: the same questions and answers as the synchronous one."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import grpc

from serving.client import batching, protocol
from serving.client.conversation import Call, Conversation, Pause, Steps, refused
from serving.client.results import Answer, Description, Key, Refused, Result, VersionStatus
from serving.client.retries import Retries
from serving.client.settings import Settings


class AsyncClient:
    """A model behind a server that speaks TensorFlow Serving's protocol. Belongs to one event loop.

    ```python
    async with AsyncClient("localhost:8500", model="fcn8") as client:
        answer = await client.segment(Path("frame.png").read_bytes())
    ```
    """

    def __init__(self, target: str, *, retries: Retries | None = None, **settings: Any) -> None:
        """Opens a connection, with the arguments of `serving.client.Client`; call it inside the event loop."""
        self.settings = Settings(target, **settings)
        self._conversation = Conversation(self.settings, retries or Retries())
        options = self.settings.channel_options()
        self._channel = (
            grpc.aio.insecure_channel(target, options)
            if self.settings.tls is None
            else grpc.aio.secure_channel(target, self.settings.tls.credentials(), options)
        )
        self._calls = {
            method: self._channel.unary_unary(method, lambda request: request.SerializeToString(), response.FromString)
            for method, response in protocol.RESPONSES.items()
        }

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; questions under way fail."""
        await self._channel.close()

    async def segment(self, image: bytes) -> Answer:
        """Asks what the model sees in one encoded PNG or JPEG image; raises as `Client.segment`."""
        (result,) = await self._run(self._conversation.segment([image]))
        if isinstance(result, Refused):
            raise refused(self.settings, result)
        return result

    async def segment_batch(self, images: Sequence[bytes]) -> list[Result]:
        """Asks what the model sees in many images; raises as `Client.segment_batch`."""
        return [result async for _, result in self.segment_all(enumerate(images))]

    async def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> AsyncIterator[tuple[Key, Result]]:
        """Yields a result for each image, in order, under the key it came with, as `Client.segment_all`."""
        under_way: collections.deque[tuple[list[Key], asyncio.Task[list[Result]]]] = collections.deque()
        try:
            for keys, batch in batching.requests(images, self.settings.batch_size, self.settings.max_message_bytes):
                under_way.append((keys, asyncio.create_task(self._run(self._conversation.segment(batch)))))
                if len(under_way) == self.settings.concurrency:
                    for pair in await _finished(under_way):
                        yield pair
            while under_way:
                for pair in await _finished(under_way):
                    yield pair
        finally:
            for _, task in under_way:
                task.cancel()

    async def describe(self) -> Description:
        """Asks what the model says of itself: classes, palette, input size, metrics. Raises ServerError."""
        return await self._run(self._conversation.describe())

    async def status(self) -> list[VersionStatus]:
        """Asks for the state of the model's versions, the newest first. Raises ServerError."""
        return await self._run(self._conversation.status())

    async def signatures(self) -> dict[str, dict[str, dict[str, str]]]:
        """Asks for the model's signatures, inputs and outputs with type and shape. Raises ServerError."""
        return await self._run(self._conversation.signatures())

    async def _run(self, steps: Steps[Any]) -> Any:
        """Carries out what a conversation asks for."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    response = await self._call(step)
                except grpc.RpcError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            return end.value

    async def _call(self, call: Call) -> Any:
        return await self._calls[call.method](call.request, timeout=call.timeout)


async def _finished(
    under_way: collections.deque[tuple[list[Key], asyncio.Task[list[Result]]]],
) -> list[tuple[Key, Result]]:
    """Waits for the oldest request and returns its results."""
    keys, task = under_way.popleft()
    return list(zip(keys, await task, strict=True))
