"""A split for instance segmentation. Each example has a stack of masks that stays encoded until its batch."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from components import features
from components.errors import DataRejectedError
from trainer import decoded
from trainer.decoded import DecodedSplit, SplitFacts
from trainer.models.mask_rcnn.truth import PADDING
from trainer.sharding import WHOLE, Sharding

# Largest number of instances per image in training and validation; the smallest are left out.
MOST = 50

# The stack of a padding image.
_PADDING = b"padding"

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class InstanceSplit(DecodedSplit):
    """A `DecodedSplit` whose `masks` are stacks as in `features.TRANSFORMED_INSTANCES`, object [N] of bytes."""

    padding: ClassVar[np.ndarray] = np.array(_PADDING, object)

    def label_counts(self) -> list[int]:
        """Returns the number of instances, and how many of them are beyond `MOST`."""
        counts = np.array([_count(stack, self.images.shape[1]) for stack in self.masks], np.int64)
        return [int(counts.sum()), int(np.maximum(counts - MOST, 0).sum())]


def load(
    files: Sequence[str], input_size: tuple[int, int], memory_fraction: float, sharding: Sharding = WHOLE
) -> InstanceSplit:
    """Decodes the images of one process's devices, and keeps the stacks encoded; see `decoded.load`."""
    split = decoded.load(files, input_size, memory_fraction, sharding, features.TRANSFORMED_INSTANCES)
    return InstanceSplit(**vars(split))


def facts(counts: Sequence[Sequence[int]], split: str, files: Sequence[str]) -> SplitFacts:
    """Adds up `DecodedSplit.counts` of all processes, and logs how many instances are left out.

    Raises:
        DataRejectedError: the split is empty or has no instance.
        UsageError: a device has no example.
    """
    examples, largest_shard = decoded.sizes(counts, split, files)
    instances, left_out = np.array(counts, np.int64)[:, 3:].sum(axis=0)
    if not instances:
        raise DataRejectedError(
            f"split {split}: no instance in {examples} images, expected at least one; check the description's things "
            "and that its masks are not all crowds"
        )
    if left_out:
        _LOG.warning(
            "split %s: left out %d of %d instances; at most %d per image are used", split, left_out, instances, MOST
        )
    return SplitFacts(examples, largest_shard, *np.zeros((2, 0), np.int64))


def decode(stack: tf.Tensor | bytes, size: tuple[int, int]) -> tf.Tensor:
    """Decodes a stack, string [].

    Returns:
        The largest `MOST` masks, the largest first, uint8 [H, W, MOST]; pixels are the instance's label or 0. Empty
        masks fill up the rest. A padding image is `PADDING` everywhere.
    """
    height, width = size

    def masks() -> tf.Tensor:
        labels = tf.reshape(tf.io.decode_png(stack, channels=1), [-1, height, width])
        area = tf.math.count_nonzero(labels, axis=[1, 2])
        labels = tf.gather(labels, tf.argsort(area, direction="DESCENDING", stable=True)[:MOST])
        labels = tf.pad(labels, [[0, MOST - tf.shape(labels)[0]], [0, 0], [0, 0]])
        return tf.transpose(tf.ensure_shape(labels, [MOST, height, width]), [1, 2, 0])

    def none() -> tf.Tensor:
        return tf.fill([height, width, MOST], tf.cast(tf.where(tf.equal(stack, _PADDING), PADDING, 0), tf.uint8))

    return tf.cond(tf.strings.length(stack) > len(_PADDING), masks, none)


def _count(stack: bytes, height: int) -> int:
    # PNG specification, section 11.2.2: the height is big-endian, bytes 20 to 23.
    return int.from_bytes(stack[20:24], "big") // height
