"""The fingerprint depends on content only, and unchanged files are not read again."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from dataset_folder import HEIGHT, WIDTH, content_fingerprint, encode
from PIL import Image

from components import files
from components.dataset import fingerprint


@pytest.fixture
def small(folder):
    """Two sound pairs in train and one in val."""
    for split, name in (("train", "a_1"), ("train", "b_1"), ("val", "b_2")):
        folder.pair(f"{split}/images/{name}.png", f"{split}/masks/{name}.png", len(name))
    return folder


@pytest.fixture
def read(monkeypatch):
    """The files that were read, by their paths' ends."""
    paths = []
    original = files.read_data_file
    monkeypatch.setattr(files, "read_data_file", lambda path: (paths.append(path[-15:]), original(path))[1])
    return paths


@pytest.fixture
def later(monkeypatch):
    """Lets an hour pass between the writing of the files and their reading."""
    now = time.time_ns()
    monkeypatch.setattr(fingerprint.time, "time_ns", lambda: now + 3600 * 10**9)


def test_the_fingerprint_does_not_follow_times_or_places(small, tiny, tmp_path):
    before = content_fingerprint(str(small.root), tiny)
    copy = shutil.copytree(small.root, tmp_path / "copy")
    os.utime(copy / "train/images/a_1.png", (1, 1))
    (copy / "notes.txt").write_text("not part of the data set")

    assert content_fingerprint(str(copy), tiny) == before


def test_the_fingerprint_follows_one_byte_of_the_same_size_and_time(small, tiny):
    path = small.root / "train/masks/a_1.png"
    before, status = content_fingerprint(str(small.root), tiny), path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert path.stat().st_size == status.st_size
    assert content_fingerprint(str(small.root), tiny) != before


def test_the_fingerprint_follows_names_and_the_description(small, tiny):
    before = content_fingerprint(str(small.root), tiny)
    other = tiny.model_copy(update={"ignore": None})

    assert content_fingerprint(str(small.root), other) != before
    (small.root / "train/images/a_1.png").rename(small.root / "train/images/a_0.png")
    assert content_fingerprint(str(small.root), tiny) != before


def test_the_fingerprint_follows_a_file_without_a_partner(small, tiny):
    before = content_fingerprint(str(small.root), tiny)
    small.write("val/images/lonely.png", encode(Image.new("RGB", (WIDTH, HEIGHT))))

    assert content_fingerprint(str(small.root), tiny) != before


def test_what_did_not_change_is_read_once(small, tiny, tmp_path, read, later):
    def taken():
        return content_fingerprint(str(small.root), tiny, index_dir=str(tmp_path / "index"))

    unindexed = content_fingerprint(str(small.root), tiny)
    read.clear()

    assert (taken(), len(read)) == (unindexed, 6)
    assert (taken(), len(read)) == (unindexed, 6)
    small.write("train/masks/a_1.png", b"changed")
    assert (taken() == unindexed, read[6:]) == (False, ["n/masks/a_1.png"])
    os.remove(small.root / "train/masks/a_1.png")
    assert (taken() == unindexed, len(read)) == (False, 7)


def test_a_file_of_the_same_size_and_modification_time_is_read_again(small, tiny, tmp_path, later):
    path, index = small.root / "train/masks/a_1.png", str(tmp_path / "index")
    before, status = content_fingerprint(str(small.root), tiny, index_dir=index), path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert content_fingerprint(str(small.root), tiny, index_dir=index) != before


def test_a_file_modified_within_two_seconds_of_its_reading_is_not_indexed(small, tiny, tmp_path, read, monkeypatch):
    path = small.root / "train/images/a_1.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10 * 10**9))
    modified = path.stat().st_mtime_ns

    def files_read(seconds):
        monkeypatch.setattr(fingerprint.time, "time_ns", lambda: modified + int(seconds * 1e9))
        read.clear()
        content_fingerprint(str(small.root), tiny, index_dir=str(tmp_path / "index"))
        return len(read)

    assert [files_read(seconds) for seconds in (1, 1.9, 2.1, 2.1)] == [6, 1, 1, 0]


def test_a_file_whose_modification_time_was_set_back_just_now_is_not_indexed(small, tiny, tmp_path, read, monkeypatch):
    for path in small.root.rglob("*.png"):
        os.utime(path, (1, 1))
    changed = max(path.stat().st_ctime_ns for path in small.root.rglob("*.png"))
    monkeypatch.setattr(fingerprint.time, "time_ns", lambda: changed + 10**9)

    for _ in range(2):
        content_fingerprint(str(small.root), tiny, index_dir=str(tmp_path / "index"))

    assert len(read) == 12


def test_a_file_that_could_not_be_read_is_read_again(small, tiny, tmp_path, later, monkeypatch):
    def taken():
        return content_fingerprint(str(small.root), tiny, index_dir=str(tmp_path / "index"))

    with monkeypatch.context() as refusing:
        refusing.setattr(files, "read_data_file", _refuse)
        unreadable = taken()

    assert taken() != unreadable
    assert taken() == content_fingerprint(str(small.root), tiny)


def _refuse(path):
    raise PermissionError(13, "Permission denied", path)


def test_an_index_holds_the_files_of_one_folder_that_are_there(small, tiny, tmp_path, read, later):
    index, other = str(tmp_path / "index"), shutil.copytree(small.root, tmp_path / "other")
    for root in (str(small.root), str(other)) * 2:
        content_fingerprint(root, tiny, index_dir=index)
    assert len(read) == 12
    os.remove(other / "val/images/b_2.png")
    content_fingerprint(str(other), tiny, index_dir=index)

    lengths = sorted(len(json.loads(files.read_bytes(f"{index}/{name}"))) for name in os.listdir(index))
    assert lengths == [5, 6]


def test_every_one_of_many_files_is_hashed(small, tiny, later):
    for number in range(200):
        small.write(f"val/images/{number:03d}.png", b"content")
    before = content_fingerprint(str(small.root), tiny)
    small.write("val/images/199.png", b"changed")

    assert content_fingerprint(str(small.root), tiny) != before


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 1}', b'{"train/images/a_1.png": [[1, 2], "0"'])
def test_a_damaged_index_is_made_anew(small, tiny, tmp_path, read, later, caplog, content):
    index = tmp_path / "index"
    before = content_fingerprint(str(small.root), tiny, index_dir=str(index))
    (file,) = index.iterdir()
    file.write_bytes(content)
    read.clear()

    assert content_fingerprint(str(small.root), tiny, index_dir=str(index)) == before
    assert f"{file}: ignored, because it is not an index of hashes" in caplog.text
    assert len(read) == 6
    assert len(json.loads(file.read_bytes())) == 6


def test_concurrent_runs_use_one_index(small, tiny, tmp_path, later):
    index = str(tmp_path / "index")
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: content_fingerprint(str(small.root), tiny, index_dir=index), range(12)))

    assert found == {content_fingerprint(str(small.root), tiny)}
    assert len(os.listdir(index)) == 1


def test_checksums_of_a_store_are_used_and_files_without_one_are_read(small, tiny, read, monkeypatch):
    stored = {path: f"etag:{number}" for number, path in enumerate(files.checksums(str(small.root)))}
    monkeypatch.setattr(files, "checksums", lambda root: stored)
    first = content_fingerprint(str(small.root), tiny)
    stored["train/images/a_1.png"] = "etag:9"
    assert content_fingerprint(str(small.root), tiny) != first
    assert read == []

    stored["train/images/a_1.png"] = ""
    content_fingerprint(str(small.root), tiny)

    assert read == ["/images/a_1.png"]
