"""Checks encoded PNG and JPEG bytes before and while they are decoded, so that no bad file gets further.

A file that passes here also decodes in TensorFlow, which checks more than Pillow does: a PNG's chunks
and their checksums, and the end marker of both formats.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

from components.dataset.pairs import ABSURD_SIZE, EMPTY, TRUNCATED, UNDECODABLE

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
JPEG_END = 0xD9
# Every marker but those within pixel data: a stuffed zero byte, and restarts.
_JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_CHUNK_OVERHEAD = 12  # length, type and checksum, 4 bytes each


# Height times width of the largest image that an exported model accepts, unless `export.max_pixels` says otherwise.
MAX_PIXELS = 4096 * 4096


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sides an image may have, in pixels, and how many pixels in all; no model is evaluated on more than it accepts."""

    max_side: int = 8192
    min_side: int = 8
    max_pixels: int = MAX_PIXELS


class BadFileError(Exception):
    """A file that cannot be used: the reason, one of `pairs.REASONS`, what was found and what was expected.

    `action` says what to do about it, if the reason alone does not.
    """

    def __init__(self, reason: str, found: str, expected: str, action: str = "") -> None:
        super().__init__(f"{reason}: {found}; expected {expected}")
        self.reason = reason
        self.found = found
        self.expected = expected
        self.action = action


@dataclasses.dataclass(frozen=True)
class PngHeader:
    """The part of a PNG's header that says what its samples are."""

    bit_depth: int
    color_type: int

    @property
    def is_grey(self) -> bool:
        """Whether the samples are grey levels without transparency."""
        return self.color_type == 0

    @property
    def has_palette(self) -> bool:
        """Whether the samples are indices into a palette."""
        return self.color_type == 3


def has_16_bits(data: bytes) -> bool:
    """Tells whether encoded bytes are a PNG with 16 bits a sample."""
    return data.startswith(PNG_SIGNATURE) and png_header(data).bit_depth == 16


def pixel_hash(image: Image.Image, data: bytes) -> str:
    """Returns a SHA-256 that copies of one picture share, whatever their names, metadata and lossless format.

    Args:
        image: the decoded image, upright.
        data: the encoded file. It is hashed if it has 16-bit colours, of which Pillow keeps 8 bits.
    """
    if image.mode.startswith("I"):
        pixels = image.tobytes()
    else:
        pixels = data if has_16_bits(data) else image.convert("RGB").tobytes()
    return hashlib.sha256(f"{image.width}x{image.height}".encode() + pixels).hexdigest()


def png_header(data: bytes) -> PngHeader:
    """Reads bit depth and colour type from a PNG's first chunk."""
    return PngHeader(data[24], data[25])


def decode(data: bytes, limits: Limits, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """Decodes a whole file after checking its size in the header.

    Pillow's format classes are used directly: `PIL.Image.open` would warn of large images on its own.

    Args:
        data: the file's bytes.
        limits: sizes allowed; checked before any pixel is decoded.
        formats: those allowed, of "PNG" and "JPEG".

    Returns:
        The loaded image in its own mode.

    Raises:
        BadFileError: with the reason `empty`, `undecodable`, `truncated` or `absurd_size`.
    """
    if not data:
        raise BadFileError(EMPTY, "zero bytes", f"a {' or '.join(formats)} file")
    found = _format(data)
    if found not in formats:
        shown = f"a {found} file" if found else f"a file that starts with {data[:8]!r}"
        raise BadFileError(UNDECODABLE, shown, f"a {' or '.join(formats)} file")
    try:
        image = _OPEN[found](io.BytesIO(data))
    except Exception as error:  # a damaged header raises many types, SyntaxError and struct.error among them
        raise _damaged(data, found, error) from None
    check_size(image.size, limits)
    _CHECK[found](data)
    try:
        image.load()
    except Exception as error:  # as above, for damaged pixel data
        raise _damaged(data, found, error) from None
    return image


def check_size(size: tuple[int, int], limits: Limits) -> None:
    """Raises BadFileError with the reason `absurd_size` if an image's (width, height) is not allowed."""
    width, height = size
    if not all(limits.min_side <= side <= limits.max_side for side in (width, height)):
        allowed = f"sides of {limits.min_side} to {limits.max_side} pixels"
        raise BadFileError(ABSURD_SIZE, f"{width}x{height} pixels", allowed)
    if width * height > limits.max_pixels:
        raise BadFileError(ABSURD_SIZE, f"{width}x{height} pixels", f"at most {limits.max_pixels} pixels in all")


_OPEN = {"PNG": PngImagePlugin.PngImageFile, "JPEG": JpegImagePlugin.JpegImageFile}


def _format(data: bytes) -> str:
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    return "JPEG" if data.startswith(JPEG_SIGNATURE) else ""


def _damaged(data: bytes, kind: str, error: Exception) -> BadFileError:
    """Tells a file cut short from one with wrong bytes."""
    _CHECK[kind](data)
    return BadFileError(UNDECODABLE, f"{len(data)} bytes that do not decode: {error}", f"a sound {kind} file")


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end, in bytes, of each segment of a JPEG; the last is the end marker if there is one."""
    position = len(JPEG_SIGNATURE) - 1
    while match := _JPEG_MARKER.search(data, position):
        marker, start = match[1][0], match.end() - 2
        length = 0 if marker == JPEG_END else int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + length
        yield marker, start, position
        if marker == JPEG_END:
            return


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields type, start and end, in bytes, of each whole chunk of a PNG, up to IEND."""
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
    kinds: list[bytes] = []
    view = memoryview(data)
    for kind, start, end in chunks(data):
        if zlib.crc32(view[start + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            name = kind.decode("latin-1")
            raise BadFileError(UNDECODABLE, f"a wrong checksum in chunk {name} at byte {start}", "a sound PNG file")
        kinds.append(kind)
    if kinds[-1:] != [b"IEND"]:
        raise BadFileError(TRUNCATED, f"{len(data)} bytes that end before the PNG does", "a complete PNG file")
    _check_kinds(data, kinds)


def _check_kinds(data: bytes, kinds: list[bytes]) -> None:
    """Raises BadFileError if the chunks that a decoder must know are not those of a PNG, in their order."""
    # A capital letter begins what must be known.
    critical = b" ".join(kind for kind in kinds if kind[:1].isupper())
    known = re.fullmatch(rb"IHDR( PLTE)?( IDAT)+ IEND", critical)
    if not known or kinds[0] != b"IHDR" or (png_header(data).has_palette and not known[1]):
        shown = ", ".join(dict.fromkeys(kind.decode("latin-1") for kind in kinds))
        raise BadFileError(UNDECODABLE, f"a PNG of the chunks {shown:.80}", "a sound PNG file")


_CHECK = {"PNG": _check_chunks, "JPEG": _check_markers}
