"""Writes and reads the raw examples of a run: ExampleGen writes them; Optimizer, Report and drift read them.

TFX's Transform and Evaluator read the same records by the schema in `components/schema.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from components import features, files
from components.errors import SegpipeError
from components.instances import Instances, decode_runs, encode_runs

if TYPE_CHECKING:
    from components.class_map import ClassMap
    from components.dataset.checks import Sample


@dataclasses.dataclass(frozen=True)
class RawExample:
    """A raw example: encoded image, mask PNG, name, sequence and, if the data set has them, instances and depth PNG."""

    image: bytes
    mask: bytes
    name: str
    sequence: str
    instances: Instances | None = None
    depth: bytes | None = None


def to_example(sample: Sample, class_map: ClassMap) -> tf.train.Example:
    """Returns the raw example of a sample, with the features that `components.features` names."""
    example = tf.train.Example()
    feature = example.features.feature
    for name, data in (
        (features.IMAGE, sample.image),
        (features.MASK, sample.mask),
        (features.NAME, sample.pair.name.encode()),
        (features.SEQUENCE, sample.pair.sequence.encode()),
        (features.SPLIT, sample.pair.split.encode()),
        (features.CONTENT_HASH, sample.content_hash.encode()),
    ):
        feature[name].bytes_list.value.append(data)
    feature[features.HEIGHT].int64_list.value.append(sample.height)
    feature[features.WIDTH].int64_list.value.append(sample.width)
    fractions = sample.class_pixels / (sample.height * sample.width)
    for class_name, fraction in zip(class_map.names, fractions, strict=True):
        feature[features.class_share(class_name)].float_list.value.append(float(fraction))
    if sample.depth:
        feature[features.DEPTH].bytes_list.value.append(sample.depth)
    if sample.instances is not None:
        num_runs, runs = encode_runs(sample.instances.masks)
        columns = (sample.instances.classes, sample.instances.crowd, num_runs, runs)
        for name, values in zip(features.INSTANCE_FEATURES, columns, strict=True):
            # An image without instances has the features too, with no values.
            feature[name].int64_list.SetInParent()
            feature[name].int64_list.value.extend(values.astype(np.int64).tolist())
    return example


def example_files(examples: str, split: str) -> list[str]:
    """Returns the gzip TFRecords of a split of ExampleGen's artifact, local or remote, in their stored order."""
    folder = files.join(examples, f"Split-{split}")
    return [files.join(folder, name) for name in files.list_files(folder) if name.endswith(".gz")]


def read_examples(paths: Sequence[str], limit: int | None = None) -> Iterator[RawExample]:
    """Yields the raw examples of `example_files` in their stored order, at most `limit`.

    Raises:
        SegpipeError: a file cannot be read, or is damaged.
    """
    for record in itertools.islice(itertools.chain.from_iterable(map(_records, paths)), limit):
        feature = tf.train.Example.FromString(record).features.feature
        image, mask, name, sequence = (
            feature[key].bytes_list.value[0]
            for key in (features.IMAGE, features.MASK, features.NAME, features.SEQUENCE)
        )
        depth = feature[features.DEPTH].bytes_list.value[0] if features.DEPTH in feature else None
        yield RawExample(image, mask, name.decode(), sequence.decode(), _instances(feature), depth)


def _instances(feature: Mapping[str, tf.train.Feature]) -> Instances | None:
    """Returns the instances of a raw example's features; None if its data set has no instances."""
    if features.INSTANCE_CLASS not in feature:
        return None
    classes, crowd, num_runs, runs, (height,), (width,) = (
        np.array(feature[name].int64_list.value, np.int64)
        for name in (*features.INSTANCE_FEATURES, features.HEIGHT, features.WIDTH)
    )
    return Instances(decode_runs(num_runs, runs, int(height), int(width)), classes, crowd.astype(bool))


def _records(path: str) -> Iterator[bytes]:
    """Yields the records of a gzip TFRecord; adds the file to TensorFlow's error."""
    try:
        yield from tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator()
    except tf.errors.OpError as error:
        raise SegpipeError(
            f"{path}: cannot be read ({type(error).__name__}: {error.message}), expected a gzip TFRecord of "
            "ExampleGen. Delete the file and run the pipeline again, which rewrites it"
        ) from error
