import numpy as np
import pytest
from imported_folder import SIZE, box, draw_image, painted, run_import
from PIL import Image

from components.dataset.description import built_in
from components.errors import UsageError
from components.importers.source import voc_color


def _mask(path, values, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([channel for index in range(256) for channel in voc_color(index)])
    elif mode == "RGB":
        image = Image.fromarray(np.array([voc_color(index) for index in range(256)], dtype=np.uint8)[values])
    image.save(path)


def _source(root, masks, mode="P"):
    splits = {}
    for (split, name), values in masks.items():
        draw_image(root / "JPEGImages" / f"{name}.jpg")
        _mask(root / "SegmentationClass" / f"{name}.png", values, mode)
        splits.setdefault(split, []).append(name)
    for split, names in splits.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(names) + "\n")
    return root


AEROPLANE, MONITOR, VOID = 1, 20, 255
TRAIN = painted((VOID, box(1, 1, 9, 9)), (AEROPLANE, box(2, 2, 8, 8)))
VAL = painted((MONITOR, box(3, 4, 10, 20)))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_palette_grey_and_colour_masks_give_the_same_classes(tmp_path, mode):
    source = _source(
        tmp_path / "VOCdevkit" / "VOC2012", {("train", "2007_000032"): TRAIN, ("val", "2007_000033"): VAL}, mode
    )
    _mask(source / "SegmentationObject" / "2007_000032.png", TRAIN)

    done = run_import("voc", tmp_path / "VOCdevkit", tmp_path / "out")

    assert done.description.class_map == built_in("pascal_voc").class_map
    assert np.array_equal(done.masks["train", "2007_000032"], np.where(TRAIN == VOID, 21, TRAIN))
    assert np.array_equal(done.masks["val", "2007_000033"], VAL)
    assert done.result.lost == {"masks that tell objects apart (SegmentationObject)": 1}


def test_a_labelmap_names_classes_and_colours(tmp_path):
    road = painted((1, box(0, 0, 5, 5)))
    source = _source(tmp_path / "in", {("train", "a"): road, ("val", "b"): road})
    (source / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,0,0::\nwall:1,2,3::\n"
    )

    done = run_import("voc", source, tmp_path / "out")

    assert [(item.name, item.color) for item in done.description.classes] == [
        ("background", (0, 0, 0)),
        ("road", (128, 0, 0)),
        ("wall", (1, 2, 3)),
    ]
    assert np.array_equal(done.masks["train", "a"], road)
    assert done.description.ignore is None


def test_ignored_pixels_stay_ignored_for_every_choice_of_classes(tmp_path):
    source = _source(tmp_path / "in", {("train", "a"): TRAIN, ("val", "b"): VAL})

    done = run_import("voc", source, tmp_path / "out", classes=["tvmonitor"])

    assert [item.name for item in done.description.classes] == ["background", "tvmonitor", "void"]
    assert done.description.ignore == "void"
    assert np.array_equal(done.masks["train", "a"], np.where(TRAIN == VOID, 2, 0))
    assert np.array_equal(done.masks["val", "b"], VAL > 0)


def test_test_images_without_a_mask_are_counted_and_other_images_listed(tmp_path):
    source = _source(tmp_path / "in", {("train", "a"): TRAIN, ("val", "b"): VAL})
    lists = source / "ImageSets" / "Segmentation"
    (lists / "test.txt").write_text("t1\nt2\n")
    (lists / "train.txt").write_text("a\nmissing\n")
    draw_image(source / "JPEGImages" / "missing.jpg")

    done = run_import("voc", source, tmp_path / "out")

    assert done.result.lost == {"test images without a mask": 2}
    assert "SegmentationClass/missing.png: No such file" in done.result.problems[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (painted((77, box(0, 0, 2, 2))), "in 4 pixels; expected those of 22 classes"),
        (np.zeros((5, 5), dtype=np.uint8), "found 5x5 pixels; expected the image's 30x20"),
    ],
)
def test_a_mask_of_another_size_or_with_unknown_values_leaves_out_its_image(tmp_path, values, message):
    source = _source(tmp_path / "in", {("train", "a"): TRAIN, ("train", "bad"): values, ("val", "b"): VAL})

    done = run_import("voc", source, tmp_path / "out")

    assert set(done.masks) == {("train", "a"), ("val", "b")}
    assert "SegmentationClass/bad.png" in done.result.problems[0]
    assert message in done.result.problems[0]


def test_a_damaged_mask_leaves_out_its_image(tmp_path):
    source = _source(tmp_path / "in", {("train", "a"): TRAIN, ("train", "bad"): TRAIN, ("val", "b"): VAL})
    path = source / "SegmentationClass" / "bad.png"
    path.write_bytes(path.read_bytes()[:60])

    done = run_import("voc", source, tmp_path / "out")

    assert "SegmentationClass/bad.png: found" in done.result.problems[0]


def test_a_folder_without_class_masks_says_what_to_pass(tmp_path):
    (tmp_path / "in" / "SegmentationObject").mkdir(parents=True)

    with pytest.raises(UsageError, match="found 0 folders named SegmentationClass.*does not say an object's class"):
        run_import("voc", tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("line", ["road", "road:1,2,300::"])
def test_a_labelmap_must_have_labels_and_colours(tmp_path, line):
    source = _source(tmp_path / "in", {("train", "a"): np.zeros(SIZE, dtype=np.uint8)})
    (source / "labelmap.txt").write_text(line)

    with pytest.raises(UsageError, match=r"labelmap.txt: found 'road.*expected label:red,green,blue"):
        run_import("voc", source, tmp_path / "out")
