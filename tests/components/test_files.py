"""Files are listed completely, and written atomically."""

from __future__ import annotations

import errno
import os

import pytest

from components import files
from components.dataset.description import detect
from components.errors import SegpipeError, UsageError
from components.files import list_files, read_bytes, read_data_file, refuse_pattern, write_bytes


def _touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"-")


def test_files_are_listed_in_order_without_hidden_ones(tmp_path):
    _touch(tmp_path, "b/Straße 1.png", "a.png", "b/.c.png", ".d/e.png", "lost+found/f.png")

    assert list(list_files(str(tmp_path))) == ["a.png", "b/Straße 1.png"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_usage_of_a_folder_counts_hidden_files_too(tmp_path, scheme):
    _touch(tmp_path, "a", "b/.c")
    os.utime(tmp_path / "a", (100, 100))
    os.utime(tmp_path / "b" / ".c", (200, 200))

    assert files.usage(f"{scheme}{tmp_path}") == files.Usage(2, 2, 200.0)
    assert files.usage(f"{scheme}{tmp_path}/none") == files.Usage()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_scan_yields_size_and_time_of_all_files(tmp_path, scheme):
    names = ("a", ".b", "c/d")
    _touch(tmp_path, *(f"data/{name}" for name in names))
    for seconds, name in enumerate(names):
        os.utime(tmp_path / "data" / name, (100, 100 + seconds))

    expected = [(name, 1, 100.0 + seconds) for seconds, name in enumerate(names)]
    assert sorted(files.scan(f"{scheme}{tmp_path}/data")) == sorted(expected)


def test_a_scan_of_a_missing_folder_is_an_error_unless_allowed(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        list(files.scan(str(tmp_path / "none")))
    assert list(files.scan(str(tmp_path / "none"), missing_ok=True)) == []


def test_the_usage_of_a_folder_does_not_follow_links(tmp_path):
    _touch(tmp_path, "elsewhere/large", "data/a")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere" / "large")

    assert files.usage(str(tmp_path / "data")).files == 2
    assert files.usage(str(tmp_path / "data" / "a")).bytes == 1


def test_links_are_followed_except_cycles(tmp_path):
    _touch(tmp_path, "elsewhere/train/b.png", "data/train/a.png")
    data = tmp_path / "data"
    (data / "val").symlink_to(tmp_path / "elsewhere" / "train")
    (data / "train" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "train" / "back").symlink_to(data / "train")

    assert list(list_files(str(data))) == ["train/a.png", "val/b.png", "val/back/a.png"]


def test_a_missing_folder_has_no_files(tmp_path):
    _touch(tmp_path, "a.png")

    assert list(list_files(str(tmp_path / "gone"))) == []
    assert list(list_files(str(tmp_path / "a.png"))) == []


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    _touch(tmp_path, "train/a.png", "trainannot/a.png")
    listed = os.scandir

    # Simulated, because root can list every folder.
    def refuse(path):
        if str(path).endswith("annot"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)

    with pytest.raises(PermissionError, match="trainannot"):
        list(list_files(str(tmp_path)))
    with pytest.raises(UsageError, match="cannot be listed.*trainannot"):
        detect(str(tmp_path))


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)

    with pytest.raises(OSError, match="disk full"):
        write_bytes(str(tmp_path / "a.png"), b"-")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "100%", "#1", "für", "{span}", "x]", "a,b", "~"])
def test_names_that_are_not_patterns_are_read_and_written(tmp_path, name):
    path = str(tmp_path / name / name)

    refuse_pattern("--out", path)
    write_bytes(path, b"-")

    assert read_bytes(path) == b"-"
    assert list(list_files(str(tmp_path))) == [f"{name}/{name}"]


def test_a_remote_folder_whose_listing_would_be_a_pattern_is_refused():
    with pytest.raises(UsageError, match="found gs://bucket/data .v2., expected a path without"):
        list(list_files("gs://bucket/data [v2]"))


@pytest.mark.parametrize("path", ["/w/[v2]/x", "gs://bucket/a*", "relative?", "a\\b"])
def test_a_pattern_is_refused_with_its_character_and_what_to_do(path):
    character = next(each for each in "[*?\\" if each in path)

    with pytest.raises(UsageError) as refusal:
        refuse_pattern("--out", path)

    assert f"{path}, expected a path without {character}, " in str(refusal.value)
    assert "Rename the folder, or make a link" in str(refusal.value)


@pytest.fixture
def fail(monkeypatch):
    """Returns a function that makes the next reads fail; it returns a list of the pauses before retries, in seconds."""

    def _fail(times, number):
        left, pauses = [None] * times, []

        def failing(path, mode):
            if left:
                left.pop()
                raise OSError(number, os.strerror(number), path)
            return open(path, mode)

        monkeypatch.setattr(files, "open", failing, raising=False)
        monkeypatch.setattr(read_bytes.retry, "sleep", pauses.append)
        return pauses

    return _fail


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.ESTALE])
def test_a_temporary_read_error_is_retried(tmp_path, fail, number):
    _touch(tmp_path, "a.png")
    pauses = fail(2, number)

    assert read_bytes(str(tmp_path / "a.png")) == b"-"
    assert pauses == [1, 2]


def test_a_lasting_read_error_names_the_file_and_the_remedy(tmp_path, fail):
    _touch(tmp_path, "a.png")
    pauses = fail(100, errno.EIO)

    with pytest.raises(SegpipeError) as error:
        read_data_file(str(tmp_path / "a.png"))

    assert str(error.value).startswith(f"{tmp_path}/a.png: cannot be read (OSError: Input/output error), expected")
    assert "run the same command again" in str(error.value)
    assert pauses == [1, 2, 4, 8]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_a_permanent_read_error_is_not_retried(tmp_path, fail, number):
    _touch(tmp_path, "a.png")
    pauses = fail(1, number)

    with pytest.raises(SegpipeError, match=r"a\.png: cannot be read"):
        read_data_file(str(tmp_path / "a.png"))

    assert pauses == []


@pytest.mark.parametrize("target", ["gone.png", "a.png"])
def test_a_broken_link_is_an_issue_of_the_data(tmp_path, target):
    (tmp_path / "a.png").symlink_to(target)

    with pytest.raises(OSError, match=r"a\.png"):
        read_data_file(str(tmp_path / "a.png"))
