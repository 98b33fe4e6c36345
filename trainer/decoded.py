"""Decodes a split once per training, so that epochs read pixels instead of PNG files.

The pixels are in memory if they take at most a given fraction of what is available, otherwise in a memory-mapped file.
Each process decodes only the shards of its own devices.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from components import features
from components.errors import DataRejectedError, SegpipeError, UsageError
from trainer import memory
from trainer.padding import PADDING
from trainer.sharding import WHOLE, Sharding, assign

# All values of an 8-bit mask are counted, to detect labels outside of the class map.
_LABELS = 256

# Examples per batch while a split is decoded.
_CHUNK = 16

# Files read in parallel.
_PARALLEL_READS = 8


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """Counts of a split over all processes.

    Attributes:
        examples: number of image and mask pairs.
        largest_shard: pairs of the device with the most.
        class_pixels: pixels of each class, int64 [num_classes].
        present_pixels: for each class, the pixels of all masks that contain it, int64 [num_classes].
    """

    examples: int
    largest_shard: int
    class_pixels: np.ndarray
    present_pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class DecodedSplit:
    """The examples of a split that the devices of one process own.

    Attributes:
        images: RGB, uint8 [N, H, W, 3].
        masks: class indices, uint8 [N, H, W]; with depth, class indices and values of depth maps, uint16 [N, H, W, 2].
        owners: number of each example's device, int64 [N].
        sharding: the process.
        in_memory: False if the pixels are in a file.
        padding: stands for the mask of a padding image, or for each pixel of that mask, [].
    """

    padding: ClassVar[np.ndarray] = np.array(PADDING, np.int32)

    images: np.ndarray
    masks: np.ndarray
    owners: np.ndarray
    sharding: Sharding = WHOLE
    in_memory: bool = True

    def rows(self, device: int) -> np.ndarray:
        """Returns the indices of a device's examples, int64 [n], in stored order."""
        return np.flatnonzero(self.owners == device)

    def counts(self) -> list[int]:
        """Returns the input of `facts` from this process, as plain numbers that processes can exchange."""
        shards = [len(self.rows(device)) for device in self.sharding.own]
        return [len(self.masks), min(shards), max(shards), *self.label_counts()]

    def label_counts(self) -> list[int]:
        """Returns the pixels of each mask value, and then the pixels of all masks that contain each value."""
        class_pixels, present_pixels = np.zeros((2, _LABELS), np.int64)
        for mask in self.masks if self.masks.ndim == 3 else self.masks[..., 0]:
            pixels = np.bincount(mask.ravel(), minlength=_LABELS)
            class_pixels += pixels
            present_pixels += mask.size * (pixels > 0)
        return [*class_pixels.tolist(), *present_pixels.tolist()]


def load(
    files: Sequence[str],
    input_size: tuple[int, int],
    memory_fraction: float,
    sharding: Sharding = WHOLE,
    encoded: str | None = None,
    depth: bool = False,
) -> DecodedSplit:
    """Decodes the shards of one process's devices.

    Args:
        files: gzip TFRecords of Transform.
        input_size: height and width of the stored images in pixels.
        memory_fraction: largest fraction of the available memory for the pixels.
        sharding: the process.
        encoded: name of a bytes feature that replaces the masks, unparsed: `masks` is then object [N].
        depth: whether to read depth maps too.

    Raises:
        SegpipeError: the pixels fit neither in memory nor on the disk.
    """
    records = _records(files, sharding)
    owners = np.fromiter(records.map(lambda owner, _: owner).as_numpy_iterator(), np.int64)
    shape = (len(owners), *input_size)
    values = int(np.prod(shape))
    mask_bytes = 0 if encoded else 4 if depth else 1  # per pixel
    size = (3 + mask_bytes) * values
    in_memory = size <= memory_fraction * memory.available()
    pixels = np.empty(size, np.uint8) if in_memory else _on_disk(size)
    # The masks come first, because 16-bit numbers must be aligned.
    rest, images = np.split(pixels, [mask_bytes * values])
    images = images.reshape(*shape, 3)
    if encoded:
        masks = np.empty(len(owners), object)
    else:
        masks = rest.view(np.uint16).reshape(*shape, 2) if depth else rest.reshape(shape)
    decode = functools.partial(_decode, input_size=input_size, encoded=encoded, depth=depth)
    chunks = records.map(lambda _, record: decode(record), tf.data.AUTOTUNE).batch(_CHUNK).prefetch(2)
    for index, (image, mask) in enumerate(chunks.as_numpy_iterator()):
        rows = slice(index * _CHUNK, index * _CHUNK + len(image))
        images[rows], masks[rows] = image, mask
    return DecodedSplit(images, masks, owners, sharding, in_memory)


def facts(counts: Sequence[Sequence[int]], num_classes: int, split: str, files: Sequence[str]) -> SplitFacts:
    """Adds up the counts of all processes.

    Args:
        counts: `DecodedSplit.counts` of each process.
        num_classes: number of classes.
        split: the split's name, for errors.
        files: the split's files, for errors.

    Raises:
        DataRejectedError: the split is empty, or a mask holds a label outside of the class map.
        UsageError: a device has no example.
    """
    examples, largest = sizes(counts, split, files)
    class_pixels, present_pixels = np.array(counts, np.int64)[:, 3:].sum(axis=0).reshape(2, _LABELS)
    stray = np.flatnonzero(class_pixels[num_classes:])
    if stray.size:
        raise DataRejectedError(
            f"split {split}: masks hold label {num_classes + stray[0]}, expected 0 to {num_classes - 1}; "
            "correct the class map or the masks"
        )
    return SplitFacts(examples, largest, class_pixels[:num_classes], present_pixels[:num_classes])


def sizes(counts: Sequence[Sequence[int]], split: str, files: Sequence[str]) -> tuple[int, int]:
    """Returns the number of examples of a split and of its largest shard; arguments and errors as in `facts`."""
    table = np.array(counts, np.int64)
    examples, smallest, largest = int(table[:, 0].sum()), int(table[:, 1].min()), int(table[:, 2].max())
    if not examples:
        raise DataRejectedError(f"split {split}: no examples in {list(files)}; expected at least one image and mask")
    if not smallest:
        raise UsageError(
            f"split {split}: found {examples} examples, expected at least one for each device; train on fewer devices"
        )
    return examples, largest


def _records(files: Sequence[str], sharding: Sharding) -> tf.data.Dataset:
    """Returns the records of a process, each with the number of its device."""
    sizes = {file: tf.io.gfile.stat(file).length for file in files} if sharding.replicas > 1 else {}
    by_device = assign(sizes, sharding.replicas) if sizes else None
    if by_device is None:
        records = _read(files).enumerate().map(lambda index, record: (index % sharding.replicas, record))
        if sharding.processes == 1:
            return records
        return records.filter(lambda owner, _: owner // sharding.devices == sharding.index)
    parts = [
        tf.data.Dataset.zip(
            (tf.data.Dataset.from_tensors(tf.constant(device, tf.int64)).repeat(), _read(by_device[device]))
        )
        for device in sharding.own
    ]
    return functools.reduce(tf.data.Dataset.concatenate, parts)


def _read(files: Sequence[str]) -> tf.data.Dataset:
    """Returns the records of some files, read in parallel but always in the same order."""
    return tf.data.TFRecordDataset(
        list(files), compression_type="GZIP", num_parallel_reads=min(len(files), _PARALLEL_READS)
    )


def _on_disk(size: int) -> np.ndarray:
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # A full disk must fail here: a failed write to the mapping would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
            # The mapping outlives the open file, and the disk space is freed with the mapping.
            return np.memmap(file, np.uint8, mode="r+", shape=(size,))
    except OSError as error:
        raise SegpipeError(
            f"{folder}: cannot hold the decoded images, {size / 1e9:.1f} GB ({error.strerror}); free some space, set "
            "TMPDIR to a folder with more, or raise training.memory_fraction"
        ) from error


def _decode(
    record: tf.Tensor, input_size: tuple[int, int], encoded: str | None, depth: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    names = [features.TRANSFORMED_IMAGE, encoded or features.TRANSFORMED_MASK]
    names += [features.TRANSFORMED_DEPTH] if depth else []
    parsed = tf.io.parse_single_example(record, {name: tf.io.FixedLenFeature([], tf.string) for name in names})
    image, *maps = (parsed[name] for name in names)
    image = tf.ensure_shape(tf.io.decode_png(image, channels=3), [*input_size, 3])
    if encoded:
        return image, maps[0]

    def grey(data: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        return tf.ensure_shape(tf.io.decode_png(data, channels=1, dtype=dtype), [*input_size, 1])

    if depth:
        mask, distance = maps
        return image, tf.concat([tf.cast(grey(mask, tf.uint8), tf.uint16), grey(distance, tf.uint16)], axis=-1)
    return image, grey(maps[0], tf.uint8)[..., 0]
