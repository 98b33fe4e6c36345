"""Reads and checks one pair; returns it ready for a `tf.train.Example`, or the first issue found.

All files are decoded in full, so a pair that passes cannot stop the pipeline later. A PNG or JPEG image is stored as it
is, any other as a PNG of the same pixels: only Transform's graph changes pixels, the same in training and in serving.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from PIL import Image

from components import files
from components.dataset import instance_files, masks
from components.dataset.conversion import as_png
from components.dataset.description import DatasetDescription
from components.dataset.encoded import BadFileError, Limits, decode, has_16_bits, pixel_hash, png_header
from components.dataset.near_duplicates import HashedImage, perceptual_hash
from components.dataset.orientation import upright, without_exif
from components.dataset.pairs import (
    ACTIONS,
    SIZE_MISMATCH,
    UNDECODABLE,
    UNREADABLE,
    UNSUITABLE_RANGE,
    DataIssue,
    Pair,
)
from components.instances import Instances

__all__ = ["Limits", "Sample", "read_pair"]

# Fewest of 255 levels that an image may span. The full range of a 14-bit camera without scaling spans 63.7, so images
# of all cameras of up to 14 bits are found.
MIN_LEVELS = 64


@dataclasses.dataclass(frozen=True)
class Sample:
    """A pair that passed all checks."""

    pair: Pair
    # The encoded image: the file's own bytes if it is a PNG or JPEG, else a PNG of its pixels; without EXIF data if the
    # mask was drawn on the stored pixels and not on the pixels as viewers turn them.
    image: bytes
    mask: bytes  # class indices as an 8-bit grey PNG of the image's size
    height: int  # pixels
    width: int  # pixels
    content_hash: str  # SHA-256 of the bytes of all its files, hexadecimal
    hashed: HashedImage  # hashes of the image's pixels
    class_pixels: np.ndarray  # pixels of each class in the mask, int64 [num_classes]
    instances: Instances | None = None  # instances of things; None if the data set has no instances
    # the file of the depth map, a 16-bit grey PNG of the mask's size; b"" if the data set has no depth
    depth: bytes = b""


def read_pair(
    root: str, pair: Pair, description: DatasetDescription, limits: Limits | None = None
) -> Sample | DataIssue:
    """Reads and checks one pair of `find_pairs`; returns it, or the first issue found.

    Raises:
        SegpipeError: the disk or the store cannot read a file; see `files.read_data_file`.
    """
    limits = limits or Limits()
    file = pair.image
    try:
        image_file = files.read_data_file(files.join(root, pair.image))
        image_bytes = as_png(image_file, limits, pair.image)
        image = decode(image_bytes, limits, ("PNG", "JPEG"))
        _check_range(image, image_bytes, description)
        mask_file, mask_png, indices = b"", b"", None
        if pair.mask:
            file = pair.mask
            mask_file = files.read_data_file(files.join(root, pair.mask))
            mask = decode(mask_file, limits, ("PNG",))
            stored = _stored(image, image_bytes, mask.size)
            indices = masks.class_indices(mask, mask_file, description)
            mask_png = mask_file if masks.is_canonical(mask, mask_file, indices) else b""
        file = pair.instances or pair.mask
        instances, annotation = instance_files.read(root, pair, indices, description, limits)
        if indices is None:
            indices = instance_files.drawn(instances, description)
            stored = _stored(image, image_bytes, indices.shape[::-1])
        height, width = indices.shape
        file = pair.depth
        depth = _read_depth(root, pair, (width, height), limits)
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror or error}"
        return DataIssue(pair.split, pair.name, file, UNREADABLE, found, "a readable file", ACTIONS[UNREADABLE])
    except BadFileError as error:
        action = f"in the data folder, {error.action}" if error.action else ACTIONS[error.reason]
        return DataIssue(pair.split, pair.name, file, error.reason, error.found, error.expected, action)
    turned = upright(image)
    return Sample(
        pair=pair,
        image=stored,
        mask=mask_png or masks.encode(indices),
        height=height,
        width=width,
        content_hash=hashlib.sha256(image_file + mask_file + annotation + depth).hexdigest(),
        hashed=HashedImage(pair.split, pair.name, pixel_hash(turned, image_bytes), perceptual_hash(turned)),
        class_pixels=np.bincount(indices.ravel(), minlength=len(description.classes)).astype(np.int64),
        instances=instance_files.of_things(instances, description) if description.things else None,
        depth=depth,
    )


def _stored(image: Image.Image, data: bytes, mask_size: tuple[int, ...]) -> bytes:
    """Returns an encoded image that has its mask's size after its EXIF orientation is applied.

    A mask of the upright size was drawn on the image as viewers show it: the file is stored as it is. A mask of the
    other size was drawn on the stored pixels: the file is stored without its EXIF data. If both sizes are equal, the
    mask counts as drawn upright. Raises BadFileError if neither size is the mask's (width, height).
    """
    if upright(image).size == mask_size:
        return data
    if image.size == mask_size:
        return without_exif(data)
    shown, expected = (f"{width}x{height} pixels" for width, height in (mask_size, image.size))
    raise BadFileError(SIZE_MISMATCH, f"a mask of {shown}", f"the image's {expected}")


def _check_range(image: Image.Image, data: bytes, description: DatasetDescription) -> None:
    """Checks the values of a decoded 16-bit image; other images pass.

    With `image_range` an image may be dark or flat, but some value must be within the range. `data` is the encoded
    image. Raises BadFileError with the reason `unsuitable_range`.
    """
    if not has_16_bits(data):
        return
    low, high = _extremes(image)
    found = f"16-bit values from {low} to {high}"
    if description.image_range is None:
        levels = (high - low) * 255 / 65535
        if levels < MIN_LEVELS:
            bits = max(8, high.bit_length())
            raise BadFileError(
                UNSUITABLE_RANGE,
                f"{found}, which span {int(levels)} of 255 levels when 0 to 65535 are scaled to 0 to 255",
                f"at least {MIN_LEVELS} levels, or a line such as `image_range: [0, {2**bits - 1}]` in segpipe.yaml",
            )
        return
    black, white = description.image_range
    if high < black or low > white:
        raise BadFileError(UNSUITABLE_RANGE, found, f"values within image_range: [{black}, {white}]")


def _extremes(image: Image.Image) -> tuple[int, int]:
    """Returns the smallest and the largest value; of 16-bit colours, Pillow keeps the high bytes only."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return int(values.min()), int(values.max())
    colors = np.asarray(image.convert("RGB"))
    return int(colors.min()) * 256, int(colors.max()) * 256 + 255


def _read_depth(root: str, pair: Pair, size: tuple[int, int], limits: Limits) -> bytes:
    """Returns the file of a pair's depth map, or b"" without one; `size` is the mask's (width, height).

    Raises:
        BadFileError: not a valid grey PNG of 16 bits, or not of the mask's size.
        OSError: the file cannot be read.
        SegpipeError: the disk or the store cannot read the file; see `files.read_data_file`.
    """
    if not pair.depth:
        return b""
    data = files.read_data_file(files.join(root, pair.depth))
    image, header = decode(data, limits, ("PNG",)), png_header(data)
    if header.bit_depth != 16 or not header.is_grey:
        raise BadFileError(
            UNDECODABLE,
            f"a {'grey' if header.is_grey else 'colour'} PNG with {header.bit_depth} bits a sample",
            "a grey PNG with 16 bits a sample",
            "export the depth map again: a value is the distance in metres times depth_scale, 0 is unknown",
        )
    if image.size != size:
        found, expected = (f"{width}x{height} pixels" for width, height in (image.size, size))
        raise BadFileError(
            SIZE_MISMATCH,
            f"a depth map of {found}",
            f"the mask's {expected}",
            "give mask and depth map the same size, resizing without interpolation",
        )
    return data
