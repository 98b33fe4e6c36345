"""Writes the TFRecords of Transform without TFX, for benchmarks and tests on machines without it."""

from __future__ import annotations

import functools
import io
import itertools
import os

import numpy as np
import tensorflow as tf
from PIL import Image

from components import features, preprocessing
from components.dataset import masks
from components.dataset.description import DatasetDescription, detect
from components.dataset.pairs import Pair, find_pairs

THINGS = 2  # number of classes of the made-up instances
_INSTANCES = 10  # per image


def write(data: str, size: tuple[int, int], path: str, count: int, split: str = "train") -> DatasetDescription:
    """Writes pairs of a split in the format of Transform, with made-up instances of the classes 1 to `THINGS`.

    Args:
        data: folder of images and masks.
        size: height and width of the stored images in pixels.
        path: gzip TFRecord file to write.
        count: number of pairs to write; if the split has fewer, they repeat.
        split: name of the split.

    Returns:
        The data set's description.
    """
    description = detect(data).without_instances().without_depth()
    pairs = [pair for pair in find_pairs(data, description)[0] if pair.split == split]
    unfinished = f"{path}.unfinished"
    with tf.io.TFRecordWriter(unfinished, "GZIP") as writer:
        for pair in itertools.islice(itertools.cycle(pairs), count):
            values = _transformed(data, pair, description, size)
            feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    os.replace(unfinished, path)
    return description


def _transformed(data: str, pair: Pair, description: DatasetDescription, size: tuple[int, int]) -> dict[str, bytes]:
    with open(os.path.join(data, pair.image), "rb") as file:
        image = file.read()
    with open(os.path.join(data, pair.mask), "rb") as file:
        stored = file.read()
    with Image.open(io.BytesIO(stored)) as mask:
        indices = masks.encode(masks.class_indices(mask, stored, description))
    return {
        features.TRANSFORMED_IMAGE: tf.io.encode_png(
            preprocessing.resize_image(tf.constant(image), *size, normalize=False)
        ).numpy(),
        features.TRANSFORMED_MASK: preprocessing.resize_mask(tf.constant(indices), *size).numpy(),
        features.TRANSFORMED_INSTANCES: _made_up_instances(size),
    }


@functools.cache
def _made_up_instances(size: tuple[int, int]) -> bytes:
    """Returns a stack of masks of rectangles, the same for every image, as `features.TRANSFORMED_INSTANCES`.

    A training step takes as long as with real instances.
    """
    random = np.random.default_rng(0)
    labels = np.zeros((_INSTANCES, *size), np.uint8)
    for index, mask in enumerate(labels):
        top, left = (random.integers(0, side // 2) for side in size)
        mask[top : top + size[0] // 4, left : left + size[1] // 4] = 1 + index % THINGS
    return tf.io.encode_png(labels.reshape(-1, size[1], 1)).numpy()
