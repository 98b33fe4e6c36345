"""Files are listed once each and none is missed, and a file is written whole or not at all."""

from __future__ import annotations

import os

import pytest

from components.dataset.description import detect
from components.errors import UsageError
from components.files import list_files, read_bytes, refuse_pattern, write_bytes


def _touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"-")


def test_files_are_listed_in_order_without_hidden_ones(tmp_path):
    _touch(tmp_path, "b/Straße 1.png", "a.png", "b/.c.png", ".d/e.png", "lost+found/f.png")

    assert list(list_files(str(tmp_path))) == ["a.png", "b/Straße 1.png"]


def test_links_are_followed_unless_they_lead_round_and_round(tmp_path):
    _touch(tmp_path, "elsewhere/train/b.png", "data/train/a.png")
    data = tmp_path / "data"
    (data / "val").symlink_to(tmp_path / "elsewhere" / "train")
    (data / "train" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "train" / "back").symlink_to(data / "train")

    assert list(list_files(str(data))) == ["train/a.png", "val/b.png", "val/back/a.png"]


def test_a_folder_that_is_not_there_holds_no_files(tmp_path):
    _touch(tmp_path, "a.png")

    assert list(list_files(str(tmp_path / "gone"))) == []
    assert list(list_files(str(tmp_path / "a.png"))) == []


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path, monkeypatch):
    _touch(tmp_path, "train/a.png", "trainannot/a.png")
    listed = os.scandir

    # Whoever runs the tests may list every folder, so the refusal is made up.
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
