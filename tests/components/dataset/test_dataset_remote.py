"""A data root on another file system gives the pairs, the samples and the fingerprint a local one gives."""

from __future__ import annotations

import pytest

from components.dataset.checks import Sample, read_pair
from components.dataset.description import detect, load
from components.dataset.pairs import Fault, Pair, find_pairs
from components.dataset.survey import content_fingerprint
from components.errors import UsageError

SCHEME = "segpipetest"


class NotFoundError(Exception):
    """As of Google's client: no OSError."""


@pytest.fixture(scope="module")
def remote():
    """Registers a Beam file system whose addresses stand for local paths, and returns the translation."""
    localfilesystem = pytest.importorskip("apache_beam.io.localfilesystem")

    class AddressedFileSystem(localfilesystem.LocalFileSystem):
        @classmethod
        def scheme(cls) -> str:
            return SCHEME

        def _list(self, dir_or_prefix):
            for metadata in super()._list(_local(dir_or_prefix)):
                metadata.path = f"{SCHEME}://{metadata.path.lstrip('/')}"
                yield metadata

        def open(self, path, *args, **kwargs):
            try:
                return super().open(_local(path), *args, **kwargs)
            except FileNotFoundError as error:
                raise NotFoundError(str(error)) from None

        def exists(self, path):
            return super().exists(_local(path))

        def has_dirs(self):
            return False

        def split(self, path):
            head, _, tail = path.rpartition("/")
            return head, tail

    # Beam finds file systems among the subclasses alive; a fixture that has returned would let it go.
    yield lambda path: f"{SCHEME}://{str(path).lstrip('/')}"
    del AddressedFileSystem


def _local(address: str) -> str:
    return "/" + address.removeprefix(f"{SCHEME}://").lstrip("/")


def test_a_remote_root_reads_like_a_local_one(folder, remote):
    folder.pair("train/a_1.png", "trainannot/a_1.png")
    folder.pair("val/b_1.jpg", "valannot/b_1.png")
    folder.write("val/c_1.png", b"-")
    local, address = str(folder.root), remote(folder.root)

    description = detect(address)
    pairs, faults = find_pairs(address, description)

    assert (pairs, faults) == find_pairs(local, description)
    assert len(pairs) == 2
    assert content_fingerprint(address, description) == content_fingerprint(local, description)
    sample, same = read_pair(address, pairs[0], description), read_pair(local, pairs[0], description)
    assert isinstance(sample, Sample)
    assert isinstance(same, Sample)
    assert (sample.image, sample.mask, sample.content_hash) == (same.image, same.mask, same.content_hash)


def test_a_remote_file_that_is_gone_is_a_fault(folder, remote, tiny):
    result = read_pair(remote(folder.root), Pair("a", "train", "a", "a.png", "a_mask.png"), tiny)

    assert isinstance(result, Fault)
    assert result.reason == "unreadable"
    with pytest.raises(UsageError, match=r"nowhere\.yaml: cannot be read as a data set description"):
        load(remote(folder.root / "nowhere.yaml"))
