import numpy as np
import pytest
from imported_folder import HEIGHT, TRIANGLE, WIDTH, box, corners, draw_image, inside, painted, run_import

from components.errors import UsageError


def _line(index, points):
    return " ".join([str(index), *(f"{x / WIDTH} {y / HEIGHT}" for x, y in points)])


def _source(root, labels, yaml="path: .\ntrain: images/train\nval: images/val\nnames:\n  0: person\n  1: car\n"):
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(yaml)
    for (split, name), lines in labels.items():
        draw_image(root / "images" / split / f"{name}.jpg")
        if lines is not None:
            path = root / "labels" / split / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines))
    return root


def test_polygons_in_fractions_become_pixels(tmp_path):
    labels = {
        ("train", "a"): [_line(1, corners(0, 0, 20, 20)), _line(0, TRIANGLE), "0 0.5 0.5 0.1 0.1"],
        ("train", "empty"): None,
        ("val", "b"): [_line(1, corners(2, 3, 4, 9))],
    }

    done = run_import("yolo", _source(tmp_path / "in", labels), tmp_path / "out")

    assert [item.name for item in done.description.classes] == ["background", "person", "car"]
    assert np.array_equal(done.masks["train", "a"], painted((2, box(0, 0, 20, 20)), (1, inside(TRIANGLE))))
    assert not done.masks["train", "empty"].any()
    assert np.array_equal(done.masks["val", "b"], painted((2, box(2, 3, 4, 9))))
    below = int((box(0, 0, 20, 20) & inside(TRIANGLE)).sum())
    assert done.result.lost == {
        "boxes without a shape": 1,
        "images without a label file, all background": 1,
        "pixels of one class under another": below,
    }


def test_roboflows_paths_and_a_list_of_names(tmp_path):
    source = tmp_path / "in"
    for split in ("train", "valid"):
        draw_image(source / split / "images" / f"{split}.jpg")
        (source / split / "labels").mkdir()
        (source / split / "labels" / f"{split}.txt").write_text(_line(0, corners(1, 1, 5, 5)))
    (source / "data.yaml").write_text("train: ../train/images\nvalidation: ../valid/images\nnc: 1\nnames: ['car']\n")

    done = run_import("yolo", source, tmp_path / "out")

    assert set(done.masks) == {("train", "train"), ("val", "valid")}
    assert np.array_equal(done.masks["val", "valid"], painted((1, box(1, 1, 5, 5))))


def test_a_text_file_that_lists_images_and_a_path_of_another_machine(tmp_path):
    yaml = "path: /datasets/elsewhere\ntrain: train.txt\nval: images/val\nnames: {0: person}\n"
    source = _source(tmp_path / "in", {("train", "a"): [_line(0, corners(1, 1, 3, 3))], ("val", "b"): []}, yaml)
    (source / "train.txt").write_text("./images/train/a.jpg\n")

    done = run_import("yolo", source / "data.yaml", tmp_path / "out")

    assert np.array_equal(done.masks["train", "a"], painted((1, box(1, 1, 3, 3))))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 0.1 0.1 0.2 0.2 0.3 0.1", "line 2: found the class 7; expected 0 to 1"),
        ("0 0.1 0.1 0.2 0.2 0.3", "line 2: found 5 coordinates; expected x y pairs of at least 3 corners"),
        ("0 10 10 20 20 30 10", "line 2: found 10; expected coordinates from 0 to 1"),
        ("person 0.1 0.1 0.2 0.2 0.3 0.1", "expected a class and x y pairs from 0 to 1"),
        ("0 0.1 0.1 0.2 0.2 nan 0.1", "line 2: found nan; expected coordinates from 0 to 1"),
    ],
)
def test_a_broken_line_leaves_out_its_image(tmp_path, line, message):
    labels = {("train", "a"): [], ("train", "bad"): [_line(0, TRIANGLE), line], ("val", "b"): []}

    done = run_import("yolo", _source(tmp_path / "in", labels), tmp_path / "out")

    assert set(done.masks) == {("train", "a"), ("val", "b")}
    assert "labels/train/bad.txt" in done.result.problems[0]
    assert message in done.result.problems[0]


def test_a_missing_split_is_named(tmp_path):
    yaml = "train: images/train\nval: images/val\ntest: images/testing\nnames: [person]\n"

    done = run_import("yolo", _source(tmp_path / "in", {("train", "a"): [], ("val", "b"): []}, yaml), tmp_path / "out")

    assert "data.yaml: test: " in done.result.problems[0]
    assert "images/testing does not exist; expected a folder of images" in done.result.problems[0]


@pytest.mark.parametrize(("yaml", "message"), [("train: x\n", "names: missing"), ("[1]", "expected a mapping")])
def test_a_data_yaml_without_names_is_an_error(tmp_path, yaml, message):
    with pytest.raises(UsageError, match=message):
        run_import("yolo", _source(tmp_path / "in", {}, yaml), tmp_path / "out")
