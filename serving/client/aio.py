"""The asynchronous client, for asyncio services, with the methods of the synchronous one."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import grpc

from serving.client import batching, protocol
from serving.client.core import ClientCore, Pause, Steps
from serving.client.results import Answer, Description, Key, Result, VersionStatus
from serving.client.retries import Retries
from serving.client.settings import ClientSettings


class AsyncClient:
    """A model on a server with TensorFlow Serving's protocol. Belongs to one event loop.

    ```python
    async with AsyncClient("localhost:8500", model="fcn8") as client:
        answer = await client.segment(Path("frame.png").read_bytes())
    ```
    """

    def __init__(self, target: str, *, retries: Retries | None = None, **settings: Any) -> None:
        """Opens a channel, with the arguments of `serving.client.Client`. Call it inside the event loop."""
        self.settings = ClientSettings(target, **settings)
        self._core = ClientCore(self.settings, retries or Retries())
        self._channel = self.settings.open_channel(grpc.aio)
        self._calls = protocol.methods(self._channel)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; in-flight requests are cancelled."""
        await self._channel.close()

    async def segment(self, image: bytes) -> Answer:
        """Segments one encoded PNG or JPEG image; raises as `Client.segment`."""
        return await self._run(self._core.segment_one(image))

    async def segment_batch(self, images: Sequence[bytes]) -> list[Result]:
        """Segments many images; raises as `Client.segment_batch`."""
        return [result async for _, result in self.segment_all(enumerate(images))]

    async def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> AsyncIterator[tuple[Key, Result]]:
        """Yields the key and the result of each image, in order, as `Client.segment_all`."""
        in_flight: collections.deque[tuple[list[Key], asyncio.Task[list[Result]]]] = collections.deque()
        try:
            for keys, batch in batching.requests(images, self.settings.batch_size, self.settings.max_message_bytes):
                in_flight.append((keys, asyncio.create_task(self._run(self._core.segment(batch)))))
                if len(in_flight) == self.settings.concurrency:
                    for pair in await _finished(in_flight):
                        yield pair
            while in_flight:
                for pair in await _finished(in_flight):
                    yield pair
        finally:
            for _, task in in_flight:
                task.cancel()

    async def describe(self) -> Description:
        """Returns the model's classes, palette, input size and metrics. Raises ServerError."""
        return await self._run(self._core.describe())

    async def status(self) -> list[VersionStatus]:
        """Returns the state of the model's versions, newest first. Raises ServerError."""
        return await self._run(self._core.status())

    async def signatures(self) -> dict[str, dict[str, dict[str, str]]]:
        """Returns inputs and outputs of the model's signatures, with type and shape. Raises ServerError."""
        return await self._run(self._core.signatures())

    async def _run(self, steps: Steps[Any]) -> Any:
        """Runs the calls and pauses of a `ClientCore` method."""
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Pause):
                    answer = None
                    await asyncio.sleep(step.seconds)
                    continue
                try:
                    answer = await self._calls[step.method](step.request, timeout=step.timeout)
                except grpc.RpcError as error:
                    answer = error
        except StopIteration as end:
            return end.value


async def _finished(
    in_flight: collections.deque[tuple[list[Key], asyncio.Task[list[Result]]]],
) -> list[tuple[Key, Result]]:
    """Waits for the oldest request and returns its results."""
    keys, task = in_flight.popleft()
    return list(zip(keys, await task, strict=True))
