"""Checks and decodes PNG and JPEG bytes.

A file that passes also decodes in TensorFlow. Pillow accepts more than TensorFlow does, so this module itself checks
the order of a PNG's chunks, the checksum of its last chunk, and the end marker of a JPEG. It also finds the bytes of
EXIF data, which `orientation.without_exif` removes without encoding the pixels again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

from components.dataset.pairs import ABSURD_SIZE, EMPTY, TRUNCATED, UNDECODABLE

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
JPEG_END = 0xD9
_PALETTE = 3  # colour type
# All markers except those in pixel data: a stuffed zero byte, and restarts.
_JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_CHUNK_OVERHEAD = 12  # length, type and checksum, 4 bytes each

# Default of `export.max_pixels`: height times width of the largest image that an exported model accepts.
MAX_PIXELS = 4096 * 4096


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sizes that an image may have, in pixels; `max_pixels` is height times width."""

    max_side: int = 8192
    min_side: int = 8
    max_pixels: int = MAX_PIXELS


class BadFileError(Exception):
    """A file that cannot be used.

    Args:
        reason: one of `pairs.REASONS`.
        found: what is there.
        expected: what should be there.
        action: what to do about it; empty if the reason implies it.
    """

    def __init__(self, reason: str, found: str, expected: str, action: str = "") -> None:
        super().__init__(f"{reason}: {found}; expected {expected}")
        self.reason = reason
        self.found = found
        self.expected = expected
        self.action = action


class PngHeader(NamedTuple):
    """Sample format of a PNG (its specification, section 11.2.1)."""

    bit_depth: int
    color_type: int

    @property
    def is_grey(self) -> bool:
        """Whether the samples are grey levels without transparency."""
        return self.color_type == 0


def png_header(data: bytes) -> PngHeader:
    """Reads bit depth and colour type from a PNG's first chunk."""
    return PngHeader(data[24], data[25])


def has_16_bits(data: bytes) -> bool:
    """Tells whether encoded bytes are a PNG with 16 bits a sample."""
    return data.startswith(PNG_SIGNATURE) and png_header(data).bit_depth == 16


def pixel_hash(image: Image.Image, data: bytes) -> str:
    """Returns the SHA-256 of an image's pixels, which does not depend on its metadata or lossless format.

    Args:
        image: the decoded image, upright.
        data: the encoded file, which is hashed instead if it has 16-bit colours: Pillow keeps 8 bits of them.
    """
    if image.mode.startswith("I"):
        pixels = image.tobytes()
    else:
        pixels = data if has_16_bits(data) else image.convert("RGB").tobytes()
    return hashlib.sha256(f"{image.width}x{image.height}".encode() + pixels).hexdigest()


def decode(data: bytes, limits: Limits, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """Checks and decodes a whole file.

    Args:
        data: the file's bytes.
        limits: sizes allowed; checked before any pixel is decoded.
        formats: those allowed, of "PNG" and "JPEG".

    Returns:
        The loaded image in its own mode.

    Raises:
        BadFileError: with the reason `empty`, `undecodable`, `truncated` or `absurd_size`.
    """
    wanted = f"a {' or '.join(formats)} file"
    if not data:
        raise BadFileError(EMPTY, "zero bytes", wanted)
    kind = "PNG" if data.startswith(PNG_SIGNATURE) else "JPEG" if data.startswith(JPEG_SIGNATURE) else ""
    if kind not in formats:
        shown = f"a {kind} file" if kind else f"a file that starts with {data[:8]!r}"
        raise BadFileError(UNDECODABLE, shown, wanted)
    check = _check_chunks if kind == "PNG" else _check_markers
    # `PIL.Image.open` would warn of large images; the classes of the formats do not.
    open_image = PngImagePlugin.PngImageFile if kind == "PNG" else JpegImagePlugin.JpegImageFile
    try:
        image = open_image(io.BytesIO(data))
        check_size(image.size, limits)
        check(data)
        image.load()
    except BadFileError:
        raise
    except Exception as error:  # damaged files raise many types, SyntaxError and struct.error among them
        check(data)  # tells a truncated header from a damaged one
        raise BadFileError(
            UNDECODABLE, f"{len(data)} bytes that do not decode: {error}", f"a valid {kind} file"
        ) from None
    return image


def check_size(size: tuple[int, int], limits: Limits) -> None:
    """Raises BadFileError with the reason `absurd_size` if an image's (width, height) is not allowed."""
    width, height = size
    if not all(limits.min_side <= side <= limits.max_side for side in (width, height)):
        allowed = f"sides of {limits.min_side} to {limits.max_side} pixels"
        raise BadFileError(ABSURD_SIZE, f"{width}x{height} pixels", allowed)
    if width * height > limits.max_pixels:
        raise BadFileError(ABSURD_SIZE, f"{width}x{height} pixels", f"at most {limits.max_pixels} pixels in all")


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, first byte and end of each segment of a JPEG, up to the end marker."""
    position = len(JPEG_SIGNATURE) - 1
    while match := _JPEG_MARKER.search(data, position):
        marker, start = match[1][0], match.end() - 2
        length = 0 if marker == JPEG_END else int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + length
        yield marker, start, position
        if marker == JPEG_END:
            return


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields type, first byte and end of each complete chunk of a PNG, up to IEND."""
    position = len(PNG_SIGNATURE)
    while position + _CHUNK_OVERHEAD <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + _CHUNK_OVERHEAD + length
        if end > len(data):
            return
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end


def _check_markers(data: bytes) -> None:
    """Raises BadFileError if a JPEG has no end marker."""
    if JPEG_END not in (marker for marker, _, _ in segments(data)):
        raise BadFileError(TRUNCATED, f"{len(data)} bytes without an end marker", "a complete JPEG file")


def _check_chunks(data: bytes) -> None:
    """Raises BadFileError if a chunk of a PNG is cut off, missing, out of place or fails its checksum."""
    kinds = []
    view = memoryview(data)
    for kind, start, end in chunks(data):
        if zlib.crc32(view[start + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            name = kind.decode("latin-1")
            raise BadFileError(UNDECODABLE, f"a wrong checksum in chunk {name} at byte {start}", "a valid PNG file")
        kinds.append(kind)
    if kinds[-1:] != [b"IEND"]:
        raise BadFileError(TRUNCATED, f"{len(data)} bytes that end before the PNG does", "a complete PNG file")
    # The type of a chunk that a decoder must not skip begins with a capital letter.
    critical = b" ".join(kind for kind in kinds if kind[:1].isupper())
    known = re.fullmatch(rb"IHDR( PLTE)?( IDAT)+ IEND", critical)
    if not known or kinds[0] != b"IHDR" or (png_header(data).color_type == _PALETTE and not known[1]):
        shown = ", ".join(dict.fromkeys(kind.decode("latin-1") for kind in kinds))
        raise BadFileError(UNDECODABLE, f"a PNG of the chunks {shown:.80}", "a valid PNG file")
