"""Groups images into requests that keep within a number of images and a number of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from serving.client.results import Key

_ROOM_FOR_THE_REST = 64 << 10  # bytes of a request beside its images


def requests(
    images: Iterable[tuple[Key, bytes]], most: int, max_message_bytes: int
) -> Iterator[tuple[list[Key], list[bytes]]]:
    """Yields the keys and the images of one request after the other, in order.

    An image that is too large for any request goes alone, so the error names it and no neighbour.
    """
    limit = max_message_bytes - _ROOM_FOR_THE_REST
    keys: list[Key] = []
    batch: list[bytes] = []
    size = 0
    for key, image in images:
        if batch and (len(batch) == most or size + len(image) > limit):
            yield keys, batch
            keys, batch, size = [], [], 0
        keys.append(key)
        batch.append(image)
        size += len(image)
    if batch:
        yield keys, batch
