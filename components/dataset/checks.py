"""Reads one pair and either returns it ready for a `tf.train.Example` or says what is wrong with it.

Both files are decoded in full, so that a pair that passes cannot stop the pipeline further on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from components import files
from components.dataset import masks
from components.dataset.description import DatasetDescription
from components.dataset.encoded import BadFileError, Limits, decode, png_header
from components.dataset.pairs import (
    ABSURD_SIZE,
    COLOUR_MASK,
    EMPTY,
    LABEL_OUTSIDE_MAP,
    SIZE_MISMATCH,
    TRUNCATED,
    UNDECODABLE,
    UNKNOWN_COLOUR,
    UNREADABLE,
    Fault,
    Pair,
)

__all__ = ["Limits", "Sample", "read_pair"]

ORIENTATION = 0x0112  # EXIF tag; 1 is upright
# What makes an image of each other orientation upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ACTIONS = {
    EMPTY: "copy the file again from its source, or delete the pair",
    UNREADABLE: "check that the file exists and may be read",
    TRUNCATED: "copy the file again from its source, or delete the pair",
    UNDECODABLE: "save the file again as PNG (images also as JPEG), or delete the pair",
    ABSURD_SIZE: "resize or cut image and mask, or raise data.max_side or export.max_pixels",
    SIZE_MISMATCH: "give image and mask the same size, resizing the mask without interpolation",
    COLOUR_MASK: "convert the mask to class indices, or set mask_encoding: color in segpipe.yaml",
    UNKNOWN_COLOUR: "correct the mask, or add the colour to a class's mask_colors in segpipe.yaml",
    LABEL_OUTSIDE_MAP: "correct the mask, or add the index to a class's `indices` in segpipe.yaml",
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """A pair that was read and found sound.

    Attributes:
        pair: where it comes from.
        image: the encoded image: the file's own bytes where Pillow and `tf.io.decode_image(channels=3)`
            read them alike, else an RGB PNG.
        mask: class indices as an 8-bit grey PNG of the image's size.
        height: pixels.
        width: pixels.
        content_hash: SHA-256 of the image's and the mask's bytes as they are stored, hexadecimal.
        class_pixels: pixels of each class in the mask, int64 [num_classes].
    """

    pair: Pair
    image: bytes
    mask: bytes
    height: int
    width: int
    content_hash: str
    class_pixels: np.ndarray


def read_pair(root: str, pair: Pair, description: DatasetDescription, limits: Limits | None = None) -> Sample | Fault:
    """Reads and checks one pair.

    Args:
        root: the data root, local or remote.
        pair: what `find_pairs` returned.
        description: the data set's classes and mask encoding.
        limits: sides allowed, in pixels; 8 to 8192 by default.

    Returns:
        The sample, or the first fault found; no state of the files raises.
    """
    limits = limits or Limits()
    file = pair.image
    try:
        image_bytes = _read(root, pair.image)
        image = decode(image_bytes, limits, ("PNG", "JPEG"))
        file = pair.mask
        mask_bytes = _read(root, pair.mask)
        mask = decode(mask_bytes, limits, ("PNG",))
        upright = _upright(image, mask.size)
        if upright.size != mask.size:
            raise BadFileError(SIZE_MISMATCH, f"a mask of {_size(mask)} pixels", f"the image's {_size(image)} pixels")
        indices = masks.class_indices(mask, mask_bytes, description)
    except BadFileError as error:
        return Fault(pair.split, pair.name, file, error.reason, error.found, error.expected, _ACTIONS[error.reason])
    return Sample(
        pair=pair,
        image=image_bytes if upright is image and _read_alike(image, image_bytes) else _rgb_png(upright),
        mask=mask_bytes if masks.is_canonical(mask, mask_bytes, indices) else masks.encode(indices),
        height=mask.height,
        width=mask.width,
        content_hash=hashlib.sha256(image_bytes + mask_bytes).hexdigest(),
        class_pixels=np.bincount(indices.ravel(), minlength=len(description.classes)).astype(np.int64),
    )


def _read(root: str, path: str) -> bytes:
    try:
        return files.read_bytes(files.join(root, path))
    except OSError as error:
        raise BadFileError(
            UNREADABLE, f"{type(error).__name__}: {error.strerror or error}", "a readable file"
        ) from None


def _upright(image: ImageFile.ImageFile, mask_size: tuple[int, int]) -> Image.Image:
    """Turns an image as its EXIF orientation says, if its mask was drawn on the turned image.

    Neither Pillow nor TensorFlow turns an image by itself. A mask of the stored size that differs from
    the turned one was drawn on the stored pixels; where both sizes are equal the mask is taken to be
    drawn on what viewers and annotation tools show, the turned image.
    """
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    return turned if turned.size == mask_size else image


def _orientation(image: ImageFile.ImageFile) -> Any:
    """Returns the EXIF orientation, upright where the EXIF data is damaged: viewers then show the stored pixels."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data raises many types, SyntaxError and struct.error among them
        return 1


def _read_alike(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Tells whether TensorFlow sees the pixels that `convert("RGB")` of Pillow gives.

    True of RGB and grey images. Palettes, transparency, CMYK, single bits and 16-bit grey levels are
    read differently by different versions, so they are stored as plain RGB instead. (A JPEG's pixels
    differ by a few levels between decoders; that is no reason to store it ten times larger.)
    """
    if image.mode not in ("RGB", "L") or "transparency" in image.info:
        return False
    return image.format == "JPEG" or png_header(data).bit_depth == 8


def _rgb_png(image: Image.Image) -> bytes:
    """Encodes an image as 8-bit RGB PNG, without transparency and metadata."""
    if image.mode.startswith("I"):
        # Sixteen-bit grey levels: the high byte, as TensorFlow takes it; convert() would clip at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    plain = Image.fromarray(np.asarray(image.convert("RGB")))
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
