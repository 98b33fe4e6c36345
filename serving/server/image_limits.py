"""Refuses an image by the size its header claims, before anything decodes it.

A few bytes can claim gigapixels; a decoder would believe them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from serving.server.errors import invalid_argument

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# ITU T.81, table B.1: frame headers, without DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# TEM, RST and SOI; a zero makes no marker.
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})


def check_images(name: str, images: Iterable[object], max_pixels: int) -> None:
    """Checks encoded images; bytes of no kind known here are left to the model.

    Args:
        name: the input, for messages.
        images: encoded images.
        max_pixels: most height times width.

    Raises:
        ServingError: INVALID_ARGUMENT, naming the index of the first image that is too large.
    """
    for index, data in enumerate(images):
        size = claimed_size(data) if isinstance(data, bytes) else None
        if size is not None and size[0] * size[1] > max_pixels:
            raise invalid_argument(
                f"{name}[{index}]: found an image of {size[0]}x{size[1]} pixels (height x width), "
                f"expected at most {max_pixels} pixels; send a smaller one or start the server with --max_image_pixels"
            )


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Returns height and width in pixels from the header of a PNG, JPEG, GIF or BMP; None where there is none."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    if data.startswith(_JPEG):
        return _jpeg_size(data)
    # TensorFlow's decoders take these as well, whatever the name of the operation says.
    if data.startswith(b"GIF8") and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        return height, width
    if data.startswith(b"BM") and len(data) >= 26:
        width, height = struct.unpack_from("<ii", data, 18)
        return abs(height), abs(width)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    # Decoders pass over bytes between segments that belong to none.
    position = data.find(b"\xff", 2)
    while 0 <= position <= len(data) - 9:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
        position = data.find(b"\xff", position)
    return None
