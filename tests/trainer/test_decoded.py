import itertools
import pathlib
import tempfile

import numpy as np
import pytest
import training_toy as toy

from components.errors import DataRejectedError, SegpipeError, UsageError
from trainer import decoded, memory
from trainer.sharding import WHOLE, Sharding


def write_numbered(path: pathlib.Path, numbers: range) -> str:
    """Writes pairs whose pixels and labels are the pair's number."""
    return toy.write_records(
        path, [(np.full((*toy.SIZE, 3), i, np.uint8), np.full(toy.SIZE, i, np.uint8)) for i in numbers]
    )


def load(*files: str, sharding: Sharding = WHOLE, memory_fraction: float = 0.5) -> decoded.DecodedSplit:
    return decoded.load(files, toy.SIZE, memory_fraction, sharding)


def facts(*splits: decoded.DecodedSplit, classes: int = 4, name: str = "train") -> decoded.SplitFacts:
    return decoded.facts([split.counts() for split in splits], classes, name, ["records.gz"])


def owned(split: decoded.DecodedSplit) -> list[list[int]]:
    """Returns the numbers of the pairs of each device."""
    return [split.masks[split.rows(device), 0, 0].tolist() for device in split.sharding.own]


def test_pixels_are_those_of_the_records(tmp_path):
    pairs = [toy.pair(np.random.default_rng(seed)) for seed in range(20)]

    split = load(toy.write_records(tmp_path / "pairs.gz", pairs))

    assert split.in_memory
    for found, expected in zip((split.images, split.masks), zip(*pairs, strict=True), strict=True):
        np.testing.assert_array_equal(found, np.stack(expected))


def test_pixels_that_exceed_the_memory_fraction_are_on_the_disk(tmp_path, monkeypatch):
    file = write_numbered(tmp_path / "ten.gz", range(10))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    size = 10 * toy.SIZE[0] * toy.SIZE[1] * 4

    monkeypatch.setattr(memory, "available", lambda: 2 * size)
    assert load(file).in_memory
    monkeypatch.setattr(memory, "available", lambda: 2 * size - 2)
    split = load(file)

    assert not split.in_memory
    assert isinstance(split.images.base, np.memmap)
    assert owned(split) == [list(range(10))]
    # The file is unnamed, so it does not remain even after a kill.
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_without_space_is_named(tmp_path, monkeypatch):
    file = write_numbered(tmp_path / "ten.gz", range(10))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)

    with pytest.raises(
        SegpipeError, match=rf"{tmp_path}: cannot hold .* \(No space left on device\); free some .*TMPDIR"
    ):
        load(file, memory_fraction=1e-12)


@pytest.mark.parametrize(("processes", "devices"), [(1, 2), (2, 1), (2, 2)])
def test_devices_take_turns_with_the_records_of_one_file(tmp_path, processes, devices):
    file = write_numbered(tmp_path / "ten.gz", range(10))

    shards = [owned(load(file, sharding=Sharding(i, processes, devices))) for i in range(processes)]

    replicas = processes * devices
    assert list(itertools.chain(*shards)) == [list(range(10))[device::replicas] for device in range(replicas)]


def test_a_process_reads_only_its_own_files_if_their_sizes_are_equal(tmp_path, monkeypatch):
    files = [write_numbered(tmp_path / f"{i}.gz", range(5 * i, 5 * i + 5)) for i in range(4)]
    read, original = [], decoded._read
    monkeypatch.setattr(decoded, "_read", lambda names: (read.append(sorted(names)), original(names))[1])

    shards = [owned(load(*files, sharding=Sharding(i, processes=2))) for i in range(2)]

    assert sorted(itertools.chain(*read)) == files
    assert len(read) == 2
    assert sorted(shards[0][0] + shards[1][0]) == list(range(20))
    assert [len(shard[0]) for shard in shards] == [10, 10]


def test_several_files_are_always_read_in_the_same_order(tmp_path):
    files = [write_numbered(tmp_path / f"{i}.gz", range(5 * i, 5 * i + 5)) for i in range(4)]

    orders = [owned(load(*files))[0] for _ in range(3)]

    assert sorted(orders[0]) == list(range(20))
    assert orders[0] == orders[1] == orders[2]


def test_facts_count_examples_and_pixels_of_each_class(tmp_path):
    halves = np.zeros(toy.SIZE, np.uint8)
    halves[:, 24:] = 2
    blank = np.zeros((*toy.SIZE, 3), np.uint8)
    file = toy.write_records(tmp_path / "a.gz", [(blank, halves), (blank, np.zeros(toy.SIZE, np.uint8))])

    found = facts(load(file))

    assert (found.examples, found.largest_shard) == (2, 2)
    pixels = toy.SIZE[0] * toy.SIZE[1]
    assert found.class_pixels.tolist() == [pixels * 3 // 2, 0, pixels // 2, 0]
    assert found.present_pixels.tolist() == [pixels * 2, 0, pixels, 0]


def test_the_counts_of_processes_add_up(tmp_path):
    file = write_numbered(tmp_path / "seven.gz", range(7))

    together = facts(*(load(file, sharding=Sharding(i, processes=2)) for i in range(2)), classes=7)

    alone = facts(load(file), classes=7)
    assert (together.examples, together.largest_shard, alone.largest_shard) == (7, 4, 7)
    np.testing.assert_array_equal(together.class_pixels, alone.class_pixels)
    np.testing.assert_array_equal(together.present_pixels, alone.present_pixels)


def test_an_empty_split_is_named(tmp_path):
    split = load(toy.write_records(tmp_path / "empty.gz", []))

    with pytest.raises(DataRejectedError, match=r"split train: no examples in \['records.gz'\]"):
        facts(split)


def test_more_devices_than_examples_are_refused(tmp_path):
    split = load(write_numbered(tmp_path / "one.gz", range(1)), sharding=Sharding(devices=2))

    with pytest.raises(UsageError, match=r"split eval: found 1 examples, expected at least one for each device"):
        facts(split, name="eval")


def test_a_label_outside_of_the_class_map_is_named(tmp_path):
    split = load(write_numbered(tmp_path / "ten.gz", range(10)))

    with pytest.raises(DataRejectedError, match="split eval: masks hold label 4, expected 0 to 3"):
        facts(split, name="eval")
