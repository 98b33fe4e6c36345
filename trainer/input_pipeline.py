"""Reads Transform's records and turns them into batches for training and validation.

With a seed, an epoch's order and augmentation depend on the seed and the epoch's number alone:
a training resumed at epoch 5 sees what an unbroken one would have seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from components import features
from components.errors import DataRejectedError, UsageError
from trainer.share import ALL, Share

# Encoded pairs held for shuffling: some hundred MB at most at usual input sizes.
SHUFFLE_BUFFER = 2048

# Image [H, W, 3], mask [H, W], seed int64 [2] -> image and mask, of one height and width.
Augmentation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """What one pass over a split's masks tells.

    Attributes:
        examples: number of image and mask pairs.
        class_pixels: pixels of each class, int64 [num_classes].
        present_pixels: for each class the pixels of all masks that hold it, int64 [num_classes].
    """

    examples: int
    class_pixels: np.ndarray
    present_pixels: np.ndarray


def find_files(patterns: Sequence[str]) -> list[str]:
    """Returns the files that glob patterns match, sorted. Raises UsageError when there is none."""
    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    if not files:
        raise UsageError(f"training data: no file matches {list(patterns)}; expected Transform's TFRecords")
    return files


def count(files: Sequence[str], num_classes: int, split: str) -> SplitFacts:
    """Counts a split's examples and the pixels of each class.

    Raises:
        DataRejectedError: when the split is empty, or a mask holds a label outside the class map.
    """
    # 256 bins, one for each value an 8-bit mask can hold, so that a stray label shows.
    counts = _records(files).map(_bin_counts, num_parallel_calls=tf.data.AUTOTUNE).batch(256)
    class_pixels = np.zeros(256, np.int64)
    present_pixels = np.zeros(256, np.int64)
    examples = 0
    for batch in counts.as_numpy_iterator():
        examples += len(batch)
        class_pixels += batch.sum(axis=0)
        present_pixels += (batch.sum(axis=1, keepdims=True) * (batch > 0)).sum(axis=0)
    if not examples:
        raise DataRejectedError(f"split {split}: no examples in {list(files)}; expected at least one image and mask")
    stray = np.flatnonzero(class_pixels[num_classes:])
    if stray.size:
        raise DataRejectedError(
            f"split {split}: masks hold label {num_classes + stray[0]}, expected 0 to {num_classes - 1}; "
            "correct the class map or the masks"
        )
    return SplitFacts(examples, class_pixels[:num_classes], present_pixels[:num_classes])


def training_batches(
    files: Sequence[str],
    input_size: tuple[int, int],
    batch_size: int,
    examples: int,
    epochs: range,
    seed: int,
    augment: Augmentation | None,
    share: Share = ALL,
    skip: int = 0,
) -> tf.data.Dataset:
    """Returns the batches of several epochs, one after another, shuffled anew in each.

    Args:
        files: gzip TFRecords.
        input_size: height and width of the stored images in pixels.
        batch_size: images a step on each device; an epoch's last batch holds what is left.
        examples: number of examples in the files.
        epochs: 0-based numbers of the epochs to go through.
        seed: determines order and augmentation.
        augment: applied to each pair, or None; it may change height and width.
        share: what this process takes of each step; its devices take turns.
        skip: steps of the first epoch that were made before.

    Returns:
        Pairs of images, RGB 0 to 255, float32 [B, H, W, 3], and masks, uint8 [B, H, W].
    """
    made = tf.constant(skip * batch_size * share.replicas, tf.int64)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        # Shuffles also follow the global seed, and fail where it is a multiple of this; so the graph has its own.
        tf.compat.v1.set_random_seed(seed % (2**31 - 1) or 1)
        # Odd multiplier: neighbouring seeds must not share epochs.
        epoch_seed = tf.constant(seed, tf.int64) * 1_000_003 + epoch
        paths = tf.data.Dataset.from_tensor_slices(list(files)).shuffle(len(files), seed=epoch_seed)
        records = _records(paths).shuffle(min(examples, SHUFFLE_BUFFER), seed=epoch_seed).enumerate()
        # Before they are decoded, which is what costs time.
        records = records.skip(tf.where(epoch == epochs.start, made, tf.zeros_like(made)))
        numbered = share.of(records).map(lambda i, record: (i, prepare(record, epoch_seed, i)), tf.data.AUTOTUNE)
        return share.batch(numbered, batch_size, examples)

    def prepare(record: tf.Tensor, epoch_seed: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, mask = _decode(record, input_size)
        return augment(image, mask, tf.stack([epoch_seed, position])) if augment else (image, mask)

    batches = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch)
    return batches.prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    files: Sequence[str], input_size: tuple[int, int], batch_size: int, examples: int, share: Share = ALL
) -> tf.data.Dataset:
    """Returns the batches of a whole split in its stored order; arguments and pairs as `training_batches`."""
    numbered = share.of(_records(files).enumerate()).map(
        lambda i, record: (i, _decode(record, input_size)), tf.data.AUTOTUNE
    )
    return share.batch(numbered, batch_size, examples).prefetch(tf.data.AUTOTUNE)


def sample(
    files: Sequence[str], input_size: tuple[int, int], examples: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs spread evenly over a split: neighbouring frames of a video are nearly the same picture.

    Returns:
        Images, RGB 0 to 255, float32 [number, H, W, 3], and masks, uint8 [number, H, W]; fewer
        where the split holds fewer.
    """
    wanted = tf.constant(sorted({i * examples // number for i in range(number)}), tf.int64)
    chosen = _records(files).enumerate().filter(lambda i, _: tf.reduce_any(i == wanted))
    images, masks = next(chosen.map(lambda _, record: _decode(record, input_size)).batch(number).as_numpy_iterator())
    return images, masks


def _records(files: Sequence[str] | tf.data.Dataset) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(files, compression_type="GZIP")


def _decode(record: tf.Tensor, input_size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    spec = {
        features.TRANSFORMED_IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.TRANSFORMED_MASK: tf.io.FixedLenFeature([], tf.string),
    }
    parsed = tf.io.parse_single_example(record, spec)
    image = tf.io.decode_png(parsed[features.TRANSFORMED_IMAGE], channels=3)
    mask = tf.io.decode_png(parsed[features.TRANSFORMED_MASK], channels=1)
    image = tf.cast(tf.ensure_shape(image, [*input_size, 3]), tf.float32)
    return image, tf.ensure_shape(mask, [*input_size, 1])[..., 0]


def _bin_counts(record: tf.Tensor) -> tf.Tensor:
    spec = {features.TRANSFORMED_MASK: tf.io.FixedLenFeature([], tf.string)}
    mask = tf.io.decode_png(tf.io.parse_single_example(record, spec)[features.TRANSFORMED_MASK], channels=1)
    return tf.math.bincount(tf.cast(tf.reshape(mask, [-1]), tf.int32), minlength=256, maxlength=256, dtype=tf.int64)
