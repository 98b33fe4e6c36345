"""The list of pairs is complete and shuffled into shards, and old lists are removed."""

from __future__ import annotations

import itertools
import os

import pytest

from components import files
from components.dataset.pairs import DataIssue, Pair
from components.example_gen import listing


def _pairs(count):
    return [Pair(f"{i:04d}", ("train", "val")[i % 2], "s", f"i/{i:04d}.png", f"m/{i:04d}.png") for i in range(count)]


def test_a_list_has_its_pairs_in_shards_of_64_and_its_issues(tmp_path):
    pairs = _pairs(400)
    issues = [DataIssue("train", "x", "i/x.png", "mask_missing", "found", "expected", "action")]

    read = list(listing.read(listing.write(str(tmp_path), pairs, issues)))

    assert sorted((entry for _, entry in read[:-1]), key=lambda pair: pair.name) == pairs
    assert read[-1] == (0, issues[0])
    for split in ("train", "val"):
        assert [shard for shard, pair in read[:-1] if pair.split == split] == [i // 64 for i in range(200)]
    # Frames that follow each other lie far apart.
    names = [int(pair.name) for _, pair in read[:-1]]
    assert sum(abs(one - other) <= 2 for one, other in itertools.pairwise(names)) < 20


def test_the_list_does_not_depend_on_the_order_of_the_pairs(tmp_path):
    paths = [listing.write(str(tmp_path), order, []) for order in (_pairs(9), _pairs(9)[::-1])]

    assert paths[0] == paths[1]
    assert listing.write(str(tmp_path), _pairs(8), []) != paths[0]


def test_old_lists_are_removed_and_reused_ones_kept(tmp_path):
    (tmp_path / "hashes-0.json").write_text("{}")
    paths = []
    for count in range(1, listing.KEPT_LISTS + 4):
        paths.append(listing.write(str(tmp_path), _pairs(count), []))
        assert os.path.exists(paths[0])
        os.utime(paths[-1], (count, count))
        # A second run with the data of the first.
        listing.write(str(tmp_path), _pairs(1), [])

    kept = {str(path) for path in tmp_path.glob("pairs-*")}
    assert kept == {paths[0], *paths[1 - listing.KEPT_LISTS :]}
    assert (tmp_path / "hashes-0.json").exists()


def test_old_lists_are_removed_from_a_store(s3, monkeypatch):
    monkeypatch.setattr(listing, "KEPT_LISTS", 2)

    paths = [listing.write(f"{s3}/index", _pairs(count), []) for count in (1, 2, 3)]

    names = files.list_names(f"{s3}/index")
    assert len(names) == 2
    assert os.path.basename(paths[-1]) in names


def test_a_list_that_cannot_be_removed_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files, "remove", refuse)
    monkeypatch.setattr(listing, "KEPT_LISTS", 2)

    paths = [listing.write(str(tmp_path), _pairs(count), []) for count in (1, 2, 3)]

    assert len(list(listing.read(paths[-1]))) == 3
    assert f"{tmp_path}: old lists of pairs were not removed" in caplog.text


def test_a_missing_list_is_an_error(tmp_path):
    path = listing.write(str(tmp_path), _pairs(1), [])
    os.remove(path)

    with pytest.raises(OSError, match="pairs-"):
        list(listing.read(path))
