"""Groups images into requests of limited image count and size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from serving.client.results import Key

_OVERHEAD = 64 << 10  # bytes of a request besides its images


def requests(
    images: Iterable[tuple[Key, bytes]], max_images: int, max_message_bytes: int
) -> Iterator[tuple[list[Key], list[bytes]]]:
    """Yields the keys and the images of each request, in order.

    An image that is too large for any request is sent alone, so that only its own request fails.
    """
    limit = max_message_bytes - _OVERHEAD
    keys: list[Key] = []
    batch: list[bytes] = []
    size = 0
    for key, image in images:
        if batch and (len(batch) == max_images or size + len(image) > limit):
            yield keys, batch
            keys, batch, size = [], [], 0
        keys.append(key)
        batch.append(image)
        size += len(image)
    if batch:
        yield keys, batch
