"""A data folder is listed once within the block, and at each call outside."""

from __future__ import annotations

import pytest

from components import files
from components.dataset.data_files import data_files, forget, listed_once


@pytest.fixture
def listings(monkeypatch):
    """The roots that were listed."""
    roots = []
    original = files.checksums
    monkeypatch.setattr(files, "checksums", lambda root: (roots.append(root), original(root))[1])
    return roots


def test_each_root_is_listed_once_within_the_block_and_later_files_are_not_seen(tmp_path, listings):
    one, other = str(tmp_path / "one"), str(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"")

    with listed_once():
        assert list(data_files(one)) == ["a.png"]
        (tmp_path / "one" / "b.png").write_bytes(b"")
        with listed_once():
            assert list(data_files(one)) == ["a.png"]
        assert list(data_files(one)) == ["a.png"]
        assert list(data_files(other)) == ["one/a.png", "one/b.png"]
        assert listings == [one, other]

        forget()
        assert list(data_files(one)) == ["a.png", "b.png"]

    assert listings == [one, other, one]


def test_outside_the_block_each_call_lists(tmp_path, listings):
    with listed_once():
        data_files(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"")
    forget()

    assert list(data_files(str(tmp_path))) == list(data_files(str(tmp_path))) == ["a.png"]
    assert len(listings) == 3


def test_a_block_that_an_error_leaves_keeps_nothing(tmp_path, listings):
    def stop():
        with listed_once():
            data_files(str(tmp_path))
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        stop()
    with listed_once():
        data_files(str(tmp_path))

    assert len(listings) == 2
