"""The outputs of each file have unique names, as short as possible."""

from pathlib import Path

import pytest

from serving.pictures import unique_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/1.png", "/b/2.png"], ["1", "2"]),
        (["/a/1.png", "/b/1.png", "/b/2.png"], ["a_1_png", "b_1_png", "2"]),
        (["/a/1.png", "/a/1.jpg"], ["a_1_png", "a_1_jpg"]),
        (["/x/front/1.png", "/y/front/1.png", "/z/1.png"], ["x_front_1_png", "y_front_1_png", "z_1_png"]),
        (["/a/1.png", "/1.png", "/b/a_1_png.png"], ["a_1_png", "1_png", "a_1_png_2"]),
        (["/a_b/c.png", "/a/b/c.png", "/b/c.png"], ["a_b_c_png", "a_b_c_png_2", "b_c_png"]),
    ],
    ids=["short", "folder", "suffix", "folders", "name of another", "number"],
)
def test_names_are_as_long_as_necessary(paths, names):
    assert list(unique_names([Path(path) for path in paths]).values()) == names


def test_relative_paths_are_distinguished_by_their_parent_folders(tmp_path, monkeypatch):
    (tmp_path / "day2").mkdir()
    monkeypatch.chdir(tmp_path / "day2")

    names = unique_names([Path("1.png"), Path("../day1/1.png")])

    assert list(names.values()) == ["day2_1_png", "day1_1_png"]
