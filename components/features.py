"""Names of the features in a `tf.train.Example`, before and after Transform, and of a model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

_Value = TypeVar("_Value")

# Raw features, written by ExampleGen.
IMAGE = "image"  # bytes: the encoded RGB image, PNG or JPEG, at its original size
MASK = "mask"  # bytes: an 8-bit grey PNG of class indices, same height and width as the image
NAME = "name"  # bytes: the pair's name, unique within its split
SEQUENCE = "sequence"  # bytes: the pair's video sequence or group
SPLIT = "split"  # bytes: the pair's split
HEIGHT = "height"  # int64: pixels
WIDTH = "width"  # int64: pixels
CONTENT_HASH = "content_hash"  # bytes: SHA-256 of the pair's files, hexadecimal
CLASS_SHARE_PREFIX = "class_share/"  # float: one feature per class, its fraction of the mask's pixels, 0 to 1

# bytes, only in data sets with depth: a 16-bit grey PNG of the image's size. Metres are value / `depth_scale` of the
# data set's description; 0 is unknown.
DEPTH = "depth"

# Raw features of a data set with instances, N per image. The masks are COCO's uncompressed run-length encodings: runs
# go down the columns and count zeros and ones in turn, zeros first (possibly 0 of them). The runs of a mask sum up to
# height * width.
INSTANCE_PREFIX = "instance/"
INSTANCE_CLASS = INSTANCE_PREFIX + "class"  # int64 [N]: class index
INSTANCE_CROWD = INSTANCE_PREFIX + "crowd"  # int64 [N]: 1 for a group of objects: background in training, not scored
INSTANCE_NUM_RUNS = INSTANCE_PREFIX + "num_runs"  # int64 [N]: number of runs of each mask
INSTANCE_RUNS = INSTANCE_PREFIX + "runs"  # int64 [sum of num_runs]: the runs of all masks, in pixels
INSTANCE_FEATURES = (INSTANCE_CLASS, INSTANCE_CROWD, INSTANCE_NUM_RUNS, INSTANCE_RUNS)

# Features after Transform.
TRANSFORMED_IMAGE = "image_resized"  # bytes: RGB PNG at the model's input size
TRANSFORMED_MASK = "mask_resized"  # bytes: grey PNG of class indices at the model's input size
# bytes: grey PNG of the stacked masks, [N * height, width] at the model's input size. A mask's pixels are 1 + the
# position of its class among the things, others 0. Crowds and masks without a pixel are left out; b"" without masks.
TRANSFORMED_INSTANCES = "instances_resized"
TRANSFORMED_DEPTH = "depth_resized"  # bytes: `DEPTH` at the model's input size, nearest

# The exported model's mask output. TensorFlow Serving's REST API encodes a string output as base64 only if its
# name ends in `_bytes` (api_rest.md, "Encoding binary values").
MASK_PNG = "mask_png_bytes"
# Its name before version 0.2, in models that may still be served or be a baseline.
OLDER_MASK_PNG = "mask_png"
# Further inputs of an instance model, one value per image.
SCORE_THRESHOLD = "score_threshold"  # float32: instances need a higher score
MAX_INSTANCES = "max_instances"  # int64: maximum number of instances, best first
FIND_INSTANCES = "find_instances"  # the signature that takes them
# The outputs of an instance model, M per image, the highest score first.
BOXES = "boxes"  # float32 [M, 4]: (y_min, x_min, y_max, x_max) in pixels of the original image, the maximum exclusive
CLASSES = "classes"  # int64 [M]: class index, -1 for no instance
SCORES = "scores"  # float32 [M]: 0 for no instance
INSTANCE_PNG = "instance_png_bytes"  # bytes [M]: grey PNG of 0 and 255 at the original size, b"" for no instance
# Output of the signature `evaluation` since version 0.2: each pixel's class probability, 0 to 255 for 0 to 1.
CONFIDENCE_PNG = "confidence_png_bytes"
# The output of a depth model: a 16-bit grey PNG at the original size, in the data set's `depth_scale`.
DEPTH_PNG = "depth_png_bytes"


def mask_png(outputs: Mapping[str, _Value]) -> _Value:
    """Returns the masks in a model's outputs, under the current or the older name."""
    return outputs[MASK_PNG if MASK_PNG in outputs else OLDER_MASK_PNG]


def class_share(class_name: str) -> str:
    """Returns the name of the feature with a class's fraction of the mask."""
    return CLASS_SHARE_PREFIX + class_name
