"""A data root on an object store gives the same pairs and samples as a local one, or stops the run."""

from __future__ import annotations

import pytest
from dataset_folder import content_fingerprint

from components import object_store
from components.dataset.checks import Sample, read_pair
from components.dataset.description import detect, load
from components.dataset.pairs import Pair, find_pairs
from components.errors import SegpipeError, UsageError
from components.stored_folder import copy_files


@pytest.fixture
def address(folder, s3, monkeypatch) -> str:
    """The address of a data set on S3 that a local folder holds too; a failed request is repeated soon."""
    monkeypatch.setattr(object_store, "LONGEST_PAUSE", 0.01)
    folder.pair("train/a_1.png", "trainannot/a_1.png")
    folder.pair("val/b_1.jpg", "valannot/b_1.png")
    copy_files(str(folder.root), f"{s3}/data")
    return f"{s3}/data"


def _failing(path, times):
    """Returns a rule of the proxy by which so many reads of a file fail."""
    left = [503] * times
    return lambda method, requested: left.pop() if left and requested.endswith(path) else None


def test_a_remote_root_reads_like_a_local_one(folder, address):
    local = str(folder.root)

    description = detect(address)
    pairs, issues = find_pairs(address, description)

    assert (pairs, issues) == find_pairs(local, description)
    assert len(pairs) == 2
    sample, same = read_pair(address, pairs[0], description), read_pair(local, pairs[0], description)
    assert isinstance(sample, Sample)
    assert isinstance(same, Sample)
    assert (sample.image, sample.mask, sample.content_hash) == (same.image, same.mask, same.content_hash)


def test_the_fingerprint_comes_from_the_listing_and_follows_the_content(folder, address, s3_proxy):
    description = detect(address)
    s3_proxy.requests.clear()
    before = content_fingerprint(address, description)

    assert not [path for method, path in s3_proxy.requests if path.endswith(("png", "jpg"))]
    assert content_fingerprint(address, description) == before
    (folder.root / "val" / "b_1.jpg").write_bytes(b"other")
    copy_files(str(folder.root), address)
    assert content_fingerprint(address, description) != before


def test_a_store_that_fails_for_a_moment_loses_no_pair(address, s3_proxy):
    description = detect(address)
    (pair, _), _ = find_pairs(address, description)

    s3_proxy.rule = _failing(pair.image, object_store.RETRIES)

    assert isinstance(read_pair(address, pair, description), Sample)


def test_a_store_that_keeps_failing_stops_the_reading_and_names_the_file(address, s3_proxy):
    description = detect(address)
    (pair, _), _ = find_pairs(address, description)
    s3_proxy.rule = _failing(pair.mask, 100)

    with pytest.raises(SegpipeError, match=rf"{address}/{pair.mask}: cannot be read .*503 Service Unavailable"):
        read_pair(address, pair, description)


def test_a_remote_file_that_is_gone_stops_the_reading_at_once(address, tiny):
    with pytest.raises(SegpipeError, match=r"/a\.png: cannot be read .*No such file"):
        read_pair(address, Pair("a", "train", "a", "a.png", "a_mask.png"), tiny)
    with pytest.raises(UsageError, match=r"nowhere\.yaml: cannot be read as a data set description"):
        load(f"{address}/nowhere.yaml")
