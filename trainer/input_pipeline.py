"""Turns a decoded split into the batches of a training or a validation, all of one shape.

The order of an epoch depends only on the seed and the epoch's number, so a resumed training sees the same batches as an
uninterrupted one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from components.errors import UsageError
from trainer.decoded import DecodedSplit


def find_files(patterns: Sequence[str]) -> list[str]:
    """Returns the files that glob patterns match, sorted. Raises UsageError if there is no such file."""
    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    if not files:
        raise UsageError(f"training data: no file matches {list(patterns)}; expected Transform's TFRecords")
    return files


def steps(largest_shard: int, batch_size: int) -> int:
    """Returns the number of steps that use every example of every shard at least once."""
    return math.ceil(largest_shard / batch_size)


def training_batches(
    split: DecodedSplit, batch_size: int, steps: int, epochs: range, seed: int, skip: int = 0
) -> tf.data.Dataset:
    """Returns the batches of several epochs in a row, each shuffled anew.

    The first images of an epoch also fill up its last batch, so that all batches have one shape.

    Args:
        split: the shards of this process's devices, which take turns.
        batch_size: images per step on each device.
        steps: steps per epoch, at least `steps` of the largest shard of all processes.
        epochs: 0-based numbers of the epochs.
        seed: determines order and augmentation.
        skip: steps of the first epoch that are already done.

    Returns:
        Images, RGB, uint8 [B, H, W, 3], masks as in the split, and a seed for their augmentation, int64 [2].
    """
    devices, replicas = split.sharding.own, split.sharding.replicas

    @functools.lru_cache(maxsize=2 * len(devices))
    def order(epoch: int, device: int) -> np.ndarray:
        return np.random.default_rng([seed % 2**63, epoch, device]).permutation(split.rows(device))

    def take(number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        step, turn = divmod(int(number), len(devices))
        epoch, step_of_epoch = divmod(step, steps)
        places = np.arange(batch_size) + step_of_epoch * batch_size
        rows = order(epoch, devices[turn]).take(places, mode="wrap")
        augmentation_seed = np.array([seed, step * replicas + devices[turn]], np.int64)
        return split.images[rows], split.masks[rows], augmentation_seed

    first, last = epochs.start * steps + skip, epochs.stop * steps
    spec = (*_pairs_spec(split, batch_size, split.masks.dtype), tf.TensorSpec([2], tf.int64))
    return _batches(range(first * len(devices), last * len(devices)), take, spec)


def evaluation_batches(split: DecodedSplit, batch_size: int, steps: int) -> tf.data.Dataset:
    """Returns the batches of a whole split in its stored order.

    Black images with padding masks fill up the last batch; padding counts in no loss and no score.

    Args:
        split: the shards of this process's devices, which take turns.
        batch_size: images per step on each device.
        steps: as in `training_batches`.

    Returns:
        Images, RGB, uint8 [B, H, W, 3], and masks of the dtype of `split.padding`.
    """
    devices = split.sharding.own

    def take(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step, turn = divmod(int(number), len(devices))
        rows = split.rows(devices[turn])[step * batch_size : (step + 1) * batch_size]
        images = np.zeros((batch_size, *split.images.shape[1:]), np.uint8)
        masks = np.full((batch_size, *split.masks.shape[1:]), split.padding, split.padding.dtype)
        images[: len(rows)], masks[: len(rows)] = split.images[rows], split.masks[rows]
        return images, masks

    return _batches(range(steps * len(devices)), take, _pairs_spec(split, batch_size, split.padding.dtype))


def sample(split: DecodedSplit, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs at even distances in a split, because neighbouring frames of a video are almost identical.

    Returns:
        Images, RGB, uint8 [number, H, W, 3], and masks as in the split; fewer if the split has fewer.
    """
    rows = sorted({index * len(split.masks) // number for index in range(number)})
    return split.images[rows], split.masks[rows]


def _batches(
    numbers: range, take: Callable[[np.ndarray], tuple[np.ndarray, ...]], spec: Sequence[tf.TensorSpec]
) -> tf.data.Dataset:
    """Returns `take` of each number, with the shapes and dtypes of `spec`."""

    def taken(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        values = tf.numpy_function(take, [number], [each.dtype for each in spec])
        return tuple(tf.ensure_shape(value, each.shape) for value, each in zip(values, spec, strict=True))

    batches = tf.data.Dataset.range(numbers.start, numbers.stop).map(taken, tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


def _pairs_spec(split: DecodedSplit, batch_size: int, mask_type: np.dtype) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    images, masks = ((batch_size, *values.shape[1:]) for values in (split.images, split.masks))
    return tf.TensorSpec(images, tf.uint8), tf.TensorSpec(masks, tf.as_dtype(mask_type))
