"""Converts TIFF, BMP and WebP images to PNG without loss; Transform's graph and exported models read PNG and JPEG only.

Pillow decodes the files. Files that it would read in part, such as the high bytes of 16-bit colours, are refused. See
Pillow 12.3.0, `TiffImagePlugin.py`, `BmpImagePlugin.py` and `WebPImagePlugin.py`.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, TiffImagePlugin, WebPImagePlugin

from components.dataset import advice
from components.dataset.encoded import BadFileError, Limits, check_size
from components.dataset.orientation import ORIENTATION, orientation_exif, orientation_of
from components.dataset.pairs import TRUNCATED, UNDECODABLE, UNSUPPORTED

# TIFF 6.0, section 8 and appendix A, and its supplement on sample formats.
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 254, 256, 257, 258, 259, 262, 277
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of the offsets and of the sizes in bytes
_COLOR_MAP, _SAMPLE_FORMAT = 320, 339
_WHITE_IS_ZERO, _YCBCR, _UNSIGNED, _UNCOMPRESSED = 0, 6, 1, 1
_PHOTOMETRICS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
_SAMPLE_FORMATS = {2: "signed", 3: "floating-point"}
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF's


def as_png(data: bytes, limits: Limits, path: str) -> bytes:
    """Returns a TIFF, BMP or WebP image as PNG; returns other data unchanged, without checking it.

    The PNG has the stored pixels, in 8 bits a sample (16 for grey levels of more than 8 bits), and the EXIF orientation
    if the file has one. A palette stays a palette. Other metadata is dropped.

    Args:
        data: the file's bytes.
        limits: sizes allowed; checked before any pixel is decoded.
        path: the file's path, for the command in the message about an unsupported file.

    Raises:
        BadFileError: with the reason `undecodable`, `truncated`, `absurd_size` or `unsupported`.
    """
    kind = _format(data)
    if not kind:
        return data
    try:
        image = _open(kind, data, limits)
        image.load()
        return _encode(image)
    except BadFileError:
        raise
    except _UnsupportedError as error:
        expected = "an image of 8 bits a sample or 16 bits of grey, on one page"
        raise BadFileError(UNSUPPORTED, error.found, expected, advice.convert_image(path, error.command)) from None
    except Exception as error:  # damaged data raises many types, SyntaxError and struct.error among them
        if _length(kind, data) > len(data) or "truncated" in str(error):
            raise BadFileError(
                TRUNCATED, f"{len(data)} bytes that end before the {kind} does", f"a complete {kind} file"
            ) from None
        found = f"{len(data)} bytes that do not decode: {type(error).__name__}: {error}"
        raise BadFileError(UNDECODABLE, found, f"a valid {kind} file") from None


class _UnsupportedError(Exception):
    """A file that Pillow would read in part or wrongly; `command` is the key of `advice.COMMANDS` that converts it."""

    def __init__(self, found: str, command: str) -> None:
        super().__init__(found)
        self.found = found
        self.command = command


class _StoredTiff(TiffImagePlugin.TiffImageFile):
    """A TIFF with its stored pixels; Pillow would turn them, even by an orientation in XMP."""

    def load_end(self) -> None:
        """Does not turn the pixels."""


class _WholeFile(io.BytesIO):
    """A file that raises EOFError at its end; Pillow would skip truncated tags."""

    def read(self, size: int | None = -1) -> bytes:
        """Reads exactly `size` bytes."""
        part = super().read(size)
        if size is not None and len(part) < size:
            raise EOFError("truncated tags")
        return part


def _format(data: bytes) -> str:
    if data.startswith(_TIFF_SIGNATURES):
        return "TIFF"
    if data.startswith(b"BM"):
        return "BMP"
    return "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""


def _length(kind: str, data: bytes) -> int:
    """Returns the length in bytes in the header of a BMP or WebP, or the position of a TIFF's directory."""
    first = {"BMP": 2, "WebP": 4, "TIFF": 4}[kind]
    stated = int.from_bytes(data[first : first + 4], "big" if data[:2] == b"MM" else "little")
    return stated + 8 if kind == "WebP" else stated


def _open(kind: str, data: bytes, limits: Limits) -> ImageFile.ImageFile:
    """Opens a file and checks its size, without decoding it. Raises _UnsupportedError."""
    if kind == "TIFF":
        return _open_tiff(data, limits)
    file = io.BytesIO(data)
    image = BmpImagePlugin.BmpImageFile(file) if kind == "BMP" else WebPImagePlugin.WebPImageFile(file)
    check_size(image.size, limits)
    if getattr(image, "n_frames", 1) > 1:
        raise _UnsupportedError("an animated WebP", "first page")
    bits = int.from_bytes(data[28:30], "little")
    if kind == "BMP" and data[14] != 12 and {"1": 1, "L": 8}.get(image.mode, bits) != bits:
        # Pillow reads such a palette as grey levels of another depth.
        raise _UnsupportedError(f"a BMP of {bits} bits with a short grey palette", "ImageMagick")
    return image


def _open_tiff(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if b"+" in data[2:4] else 8])
    file = _WholeFile(data)
    file.seek(tags.next)
    tags.load(file)
    check_size((tags[_WIDTH], tags[_HEIGHT]), limits)
    if found := _unsupported_tiff(tags):
        raise _UnsupportedError(*found)
    image = _StoredTiff(io.BytesIO(data))
    for offsets, sizes in (_STRIPS, _TILES):
        ends = map(sum, zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False))
        if max(ends, default=0) > len(data):
            raise EOFError("truncated strips")
    boxes = [tile.extents for tile in image.tile if tile.extents]
    if sum((right - left) * (bottom - top) for left, top, right, bottom in boxes) < math.prod(image.size):
        raise ValueError("the strips do not cover the image")
    return image


def _unsupported_tiff(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[str, str] | None:
    """Returns the arguments of `_UnsupportedError` if Pillow would not read the whole TIFF."""
    bits, samples = max(tags.get(_BITS, (1,))), tags.get(_SAMPLES, 1)
    photometric, compression = tags.get(_PHOTOMETRIC, 0), tags.get(_COMPRESSION, 1)
    name = _PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")
    if tags.next:
        return "a TIFF of several pages", "first page"
    if tags.get(_SUBFILE_TYPE, 0) & 1:
        return "a TIFF whose first page is a thumbnail", "ImageMagick"
    formats = set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))) - {_UNSIGNED}
    if formats or bits > 16:
        kinds = " and ".join(_SAMPLE_FORMATS.get(value, f"sample format {value}") for value in sorted(formats))
        return f"a TIFF with {bits}-bit {kinds or 'unsigned'} samples", "scale" if samples == 1 else "export"
    if bits > 8 and (samples > 1 or photometric == _WHITE_IS_ZERO):
        zero = ", 0 as white" if photometric == _WHITE_IS_ZERO else ""
        return f"a TIFF with {samples} {name} samples of {bits} bits a pixel{zero}", "ImageMagick"
    if name == "CMYK":
        return "a CMYK TIFF", "RGB"
    if photometric not in (0, 1, 2, 3, 6) or (photometric == _YCBCR and compression == _UNCOMPRESSED):
        return f"a TIFF of {name} samples", "ImageMagick"
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return f"a TIFF with compression {compression}", "ImageMagick"
    if max(tags.get(_COLOR_MAP, (256,))) < 256:
        return "a TIFF whose palette has 8 bits instead of 16, or is black", "ImageMagick"
    return None


def _encode(image: ImageFile.ImageFile) -> bytes:
    """Returns a loaded image as PNG, with its orientation."""
    orientation = image.tag_v2.get(ORIENTATION, 1) if isinstance(image, _StoredTiff) else orientation_of(image)
    stored = image.copy()  # has the size of the stored pixels; `image.size` is that of the turned image
    stored.info = {}
    if stored.mode.startswith("I;16"):
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16))
    elif stored.mode == "PA":
        stored = stored.convert("RGBA")
    buffer = io.BytesIO()
    # An index may lie outside a palette that is shorter than 2**bits.
    palette = {"bits": 8} if stored.mode == "P" else {}
    exif = {"exif": orientation_exif(orientation)} if orientation in range(2, 9) else {}
    stored.save(buffer, "PNG", compress_level=1, **palette, **exif)
    return buffer.getvalue()
