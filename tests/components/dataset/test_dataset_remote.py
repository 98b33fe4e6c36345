"""A data root on another file system gives the pairs, the samples and the fingerprint a local one gives."""

from __future__ import annotations

import pytest

from components import files
from components.dataset.checks import Sample, read_pair
from components.dataset.description import detect, load
from components.dataset.pairs import Pair, find_pairs
from components.dataset.survey import content_fingerprint
from components.errors import SegpipeError, UsageError

SCHEME = "segpipetest"


class StoreError(Exception):
    """An error of a store, with its HTTP status in `code`.

    So are `GoogleAPICallError` (google-api-core 2.44.0, google/api_core/exceptions.py) and `S3ClientError` (Beam
    2.61.0, apache_beam/io/aws/clients/s3/messages.py); neither is an OSError.
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


@pytest.fixture
def broken(remote):
    """The number of reads that fail next, by address."""
    remote.broken.clear()
    return remote.broken


@pytest.fixture
def pauses(monkeypatch):
    """The pauses before another try, in seconds; none of them is waited for."""
    made = []
    monkeypatch.setattr(files.read_bytes.retry, "sleep", made.append)
    return made


@pytest.fixture(scope="module")
def remote():
    """Registers a Beam file system whose addresses stand for local paths, and returns the translation."""
    localfilesystem = pytest.importorskip("apache_beam.io.localfilesystem")
    broken = {}

    class AddressedFileSystem(localfilesystem.LocalFileSystem):
        @classmethod
        def scheme(cls) -> str:
            return SCHEME

        def _list(self, dir_or_prefix):
            for metadata in super()._list(_local(dir_or_prefix)):
                metadata.path = f"{SCHEME}://{metadata.path.lstrip('/')}"
                yield metadata

        def open(self, path, *args, **kwargs):
            if broken.get(path, 0):
                broken[path] -= 1
                raise StoreError(503, "Service Unavailable")
            try:
                return super().open(_local(path), *args, **kwargs)
            except FileNotFoundError as error:
                raise StoreError(404, str(error)) from None

        def exists(self, path):
            return super().exists(_local(path))

        def has_dirs(self):
            return False

        def split(self, path):
            head, _, tail = path.rpartition("/")
            return head, tail

    def address(path):
        return f"{SCHEME}://{str(path).lstrip('/')}"

    address.broken = broken
    # Beam finds file systems among the subclasses alive; a fixture that has returned would let it go.
    yield address
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


def test_a_store_that_fails_for_a_moment_loses_no_pair(folder, remote, broken, pauses):
    folder.pair("train/a_1.png", "trainannot/a_1.png")
    folder.pair("val/b_1.png", "valannot/b_1.png")
    address = remote(folder.root)
    description = detect(address)
    (pair, _), _ = find_pairs(address, description)
    fingerprint = content_fingerprint(address, description)

    broken[f"{address}/{pair.image}"] = 1
    assert isinstance(read_pair(address, pair, description), Sample)
    broken[f"{address}/{pair.image}"] = 2
    assert content_fingerprint(address, description) == fingerprint

    assert pauses == [1, 1, 2]


def test_a_store_that_keeps_failing_stops_the_reading_and_names_the_file(folder, remote, broken, pauses):
    folder.pair("train/a_1.png", "trainannot/a_1.png")
    folder.pair("val/b_1.png", "valannot/b_1.png")
    address = remote(folder.root)
    description = detect(address)
    (pair, _), _ = find_pairs(address, description)
    broken[f"{address}/{pair.mask}"] = 100

    for read in (lambda: read_pair(address, pair, description), lambda: content_fingerprint(address, description)):
        with pytest.raises(SegpipeError, match=rf"{address}/{pair.mask}: cannot be read .*StoreError: Service Unav"):
            read()

    assert pauses == [1, 2, 4, 8] * 2


def test_a_remote_file_that_is_gone_stops_the_reading_at_once(folder, remote, tiny, pauses):
    with pytest.raises(SegpipeError, match=r"/a\.png: cannot be read .*StoreError"):
        read_pair(remote(folder.root), Pair("a", "train", "a", "a.png", "a_mask.png"), tiny)
    assert pauses == []
    with pytest.raises(UsageError, match=r"nowhere\.yaml: cannot be read as a data set description"):
        load(remote(folder.root / "nowhere.yaml"))
