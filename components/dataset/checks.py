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
from components.dataset import depth_files, instance_files, levels, masks
from components.dataset.conversion import as_png
from components.dataset.description import DatasetDescription
from components.dataset.encoded import BadFileError, Limits, decode, pixel_hash
from components.dataset.near_duplicates import perceptual_hash
from components.dataset.orientation import upright, without_exif
from components.dataset.pairs import (
    ABSURD_SIZE,
    COLOUR_MASK,
    EMPTY,
    EMPTY_INSTANCE,
    LABEL_OUTSIDE_MAP,
    SIZE_MISMATCH,
    TRUNCATED,
    UNDECODABLE,
    UNKNOWN_COLOUR,
    UNREADABLE,
    UNSUITABLE_RANGE,
    DataIssue,
    Pair,
)
from components.instances import Instances

__all__ = ["Limits", "Sample", "read_pair"]

_ACTIONS = {
    EMPTY: "copy the file again from its source",
    UNREADABLE: "check that the file exists and that you may read it",
    TRUNCATED: "copy the file again from its source",
    UNDECODABLE: "save the file again as PNG (images also as JPEG); export a mask that was stored as JPEG again: "
    "JPEG changes its values",
    ABSURD_SIZE: "resize or cut image and mask, or raise data.max_side or export.max_pixels",
    SIZE_MISMATCH: "give image and mask the same size, resizing the mask without interpolation",
    COLOUR_MASK: "convert the mask to class indices, or set mask_encoding: color in segpipe.yaml",
    UNKNOWN_COLOUR: "list the colour in a class's mask_colors in segpipe.yaml, or set `unnamed: ignore` there to "
    "ignore such pixels",
    LABEL_OUTSIDE_MAP: "list the value in segpipe.yaml: give its class `indices` with all values of that class "
    "(without it, the value is the class's position in the list), or set `unnamed: ignore` to ignore such pixels",
    EMPTY_INSTANCE: "delete the annotation, or move it into the image",
    UNSUITABLE_RANGE: "add image_range: [low, high] to segpipe.yaml, the values that are black and white in every "
    "image; of a 12-bit camera [0, 4095]; [0, 65535] accepts all images",
}


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
    image_hash: str  # SHA-256 of the image's pixels, hexadecimal; see `encoded.pixel_hash`
    perceptual_hash: str  # 32 hexadecimal digits; see `near_duplicates.perceptual_hash`
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
        levels.check_range(image, image_bytes, description)
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
        depth = depth_files.read(root, pair, (width, height), limits)
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror or error}"
        return DataIssue(pair.split, pair.name, file, UNREADABLE, found, "a readable file", _ACTIONS[UNREADABLE])
    except BadFileError as error:
        action = f"in the data folder, {error.action}" if error.action else _ACTIONS[error.reason]
        return DataIssue(pair.split, pair.name, file, error.reason, error.found, error.expected, action)
    turned = upright(image)
    return Sample(
        pair=pair,
        image=stored,
        mask=mask_png or masks.encode(indices),
        height=height,
        width=width,
        content_hash=hashlib.sha256(image_file + mask_file + annotation + depth).hexdigest(),
        image_hash=pixel_hash(turned, image_bytes),
        perceptual_hash=perceptual_hash(turned),
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
