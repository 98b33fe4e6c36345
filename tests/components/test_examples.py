"""Raw examples are read unchanged and in their stored order."""

import numpy as np
import pytest
import tensorflow as tf

from components.class_map import ClassMap
from components.dataset.checks import Sample
from components.dataset.near_duplicates import HashedImage
from components.dataset.pairs import Pair
from components.errors import SegpipeError
from components.examples import RawExample, example_files, read_examples, to_example
from components.instances import Instances

_CLASS_MAP = ClassMap(("road", "void"), ((128, 64, 128), (0, 0, 0)), ignore_index=1)


def _write(path, names, instances=None):
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for name in names:
            pair = Pair(name, "val", "Zürich", f"{name}.png", f"{name}_mask.png")
            hashed = HashedImage(pair.split, pair.name, "1e", "2d")
            sample = Sample(pair, name.encode(), b"mask", 2, 3, "0f", hashed, np.array([3, 3]), instances)
            writer.write(to_example(sample, _CLASS_MAP).SerializeToString())


def test_examples_are_read_as_they_were_written_in_the_order_of_files(tmp_path):
    _write(tmp_path / "Split-val" / "data-00001-of-00002.gz", ["c"])
    _write(tmp_path / "Split-val" / "data-00000-of-00002.gz", ["b", "a"])
    _write(tmp_path / "Split-train" / "data-00000-of-00001.gz", ["d"])
    (tmp_path / "Split-val" / "notes.txt").write_text("no record")

    paths = example_files(str(tmp_path), "val")

    assert list(read_examples(paths)) == [RawExample(name.encode(), b"mask", name, "Zürich") for name in "bac"]
    assert [example.name for example in read_examples(paths, 2)] == ["b", "a"]
    assert list(read_examples(paths, 0)) == []
    assert example_files(str(tmp_path), "test") == []


def test_a_damaged_file_is_named(tmp_path):
    _write(tmp_path / "Split-val" / "data.gz", ["a"])
    (path,) = example_files(str(tmp_path), "val")
    (tmp_path / "Split-val" / "data.gz").write_bytes(b"damaged")

    with pytest.raises(SegpipeError, match=rf"{path}: cannot be read \(DataLossError: .*expected a gzip TFRecord"):
        list(read_examples([path]))


@pytest.mark.parametrize("count", [0, 3])
def test_instances_are_read_as_they_were_written(tmp_path, count):
    masks = np.random.default_rng(0).random((count, 2, 3)) > 0.5
    written = Instances(masks, np.arange(count), np.arange(count) == 1)
    _write(tmp_path / "Split-val" / "data.gz", ["a"], written)

    (example,) = read_examples(example_files(str(tmp_path), "val"))

    for name in ("masks", "classes", "crowd"):
        found, expected = getattr(example.instances, name), getattr(written, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
