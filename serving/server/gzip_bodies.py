"""Bodies that were sent with `Content-Encoding: gzip`; a few bytes can claim gigabytes."""

from __future__ import annotations

import zlib

from serving.server.errors import ServingError, invalid_argument, message_too_large

# The largest window, and a gzip header before the data.
_GZIP = 31


def inflate(body: bytes, most: int) -> bytes:
    """Returns what was compressed.

    Args:
        body: one gzip stream.
        most: bytes that it may come to; no more are inflated.

    Raises:
        ServingError: RESOURCE_EXHAUSTED beyond `most`, INVALID_ARGUMENT for a body that is no whole gzip stream.
    """
    inflater = zlib.decompressobj(_GZIP)
    try:
        content = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise _broken(str(error)) from None
    if len(content) > most:
        raise message_too_large(len(content), most)
    if not inflater.eof:
        raise _broken("a stream that is cut short")
    if inflater.unused_data:
        raise _broken(f"{len(inflater.unused_data)} bytes behind the stream")
    return content


def _broken(found: str) -> ServingError:
    return invalid_argument(f"Content-Encoding: gzip: found {found}, expected a body that is one whole gzip stream")
