"""Names of the features in a `tf.train.Example`, before and after Transform: the one place that spells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

_Value = TypeVar("_Value")

# Raw features, written by ExampleGen.
IMAGE = "image"  # bytes: the encoded RGB image, PNG or JPEG, at its own size
MASK = "mask"  # bytes: an 8-bit grey PNG of class indices, same height and width as the image
NAME = "name"  # bytes: the pair's name, unique within its split
SEQUENCE = "sequence"  # bytes: the video sequence or group the pair comes from
SPLIT = "split"  # bytes: the split it belongs to
HEIGHT = "height"  # int64: pixels
WIDTH = "width"  # int64: pixels
CONTENT_HASH = "content_hash"  # bytes: SHA-256 of image and mask, hexadecimal
CLASS_SHARE_PREFIX = "class_share/"  # float: one feature a class, its share of the mask's pixels, 0 to 1

# Features after Transform.
TRANSFORMED_IMAGE = "image_resized"  # bytes: RGB PNG at the model's input size
TRANSFORMED_MASK = "mask_resized"  # bytes: grey PNG of class indices at the model's input size

# The exported model's output of masks. TensorFlow Serving's REST API encodes a string output as base64 only if its
# name ends in `_bytes` (api_rest.md, "Encoding binary values").
MASK_PNG = "mask_png_bytes"
# Its name before version 0.2, in models that are still served or compared with.
OLDER_MASK_PNG = "mask_png"
# The probability of each pixel's class, 0 to 255 for 0 to 1; of the signature `evaluation`, since version 0.2.
CONFIDENCE_PNG = "confidence_png_bytes"


def mask_png(outputs: Mapping[str, _Value]) -> _Value:
    """Returns the masks among a model's outputs, under this version's name or the one before."""
    return outputs[MASK_PNG if MASK_PNG in outputs else OLDER_MASK_PNG]


def class_share(class_name: str) -> str:
    """Returns the name of the feature that holds one class's share of the mask."""
    return CLASS_SHARE_PREFIX + class_name
