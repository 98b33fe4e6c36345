"""A split whose examples carry a mask for each object: stacks of masks, which stay encoded until their batch."""

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

# Instances of an image that are learned from and validated on, the largest first.
MOST = 50

# The stack of an image that only fills up a batch.
_PADDING = b"padding"

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class InstanceSplit(DecodedSplit):
    """As `DecodedSplit`; `masks` are stacks as `features.TRANSFORMED_INSTANCES` has them, object [N] of bytes."""

    padding: ClassVar[np.ndarray] = np.array(_PADDING, object)

    def label_counts(self) -> list[int]:
        """Returns the number of instances, and of those beyond `MOST`."""
        counts = np.array([_count(stack, self.images.shape[1]) for stack in self.masks], np.int64)
        return [int(counts.sum()), int(np.maximum(counts - MOST, 0).sum())]


def load(
    files: Sequence[str], input_size: tuple[int, int], memory_fraction: float, sharding: Sharding = WHOLE
) -> InstanceSplit:
    """Decodes the images of what the devices of one process own of a split; see `decoded.load`."""
    split = decoded.load(files, input_size, memory_fraction, sharding, features.TRANSFORMED_INSTANCES)
    return InstanceSplit(**{field.name: getattr(split, field.name) for field in dataclasses.fields(split)})


def facts(counts: Sequence[Sequence[int]], split: str, files: Sequence[str]) -> SplitFacts:
    """Adds up `DecodedSplit.counts` of all processes, and logs how many instances are left out.

    Raises:
        DataRejectedError: when the split is empty or has no instance.
        UsageError: when a device has no example.
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
            "split %s: left out %d of %d instances, as more than %d are in an image", split, left_out, instances, MOST
        )
    return SplitFacts(examples, largest_shard, *np.zeros((2, 0), np.int64))


def decode(stack: tf.Tensor | bytes, size: tuple[int, int]) -> tf.Tensor:
    """Decodes a stack, string [].

    Returns:
        The largest `MOST` masks, the largest first, uint8 [H, W, MOST]; the pixels are the instance's label or 0.
        Without so many, masks of 0 fill it up. Padding is `PADDING` everywhere.
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
    """Returns the number of masks in a stack, without decoding it."""
    # PNG specification, section 11.2.2: the height is big-endian, bytes 20 to 23.
    return int.from_bytes(stack[20:24], "big") // height
