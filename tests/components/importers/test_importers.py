"""Behaviour of all formats: arguments, names, splits and order."""

import re
from collections import Counter

import numpy as np
import pytest
from imported_folder import SIZE, box, draw_image, masks_by_name, painted, run_import, write_json
from PIL import Image

from components.annotations.regions import Region, Shape
from components.dataset.encoded import JPEG_SIGNATURE
from components.dataset.layout import IMAGE_EXTENSIONS
from components.errors import UsageError
from components.importers import READERS, Options, import_dataset
from components.importers.canvas import paint
from components.importers.source import voc_color


def _labelme(root, *names, shapes=()):
    for name in names:
        draw_image(root / f"{name}.png")
        write_json(root / f"{name}.json", {"shapes": [*shapes, _square("car")], "imagePath": f"{name}.png"})
    return root


def _square(label):
    return {"label": label, "points": [[1, 1], [4, 4]], "shape_type": "rectangle"}


def test_the_command_offers_every_reader():
    from pipeline.cli.data import FORMATS

    assert set(FORMATS) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_an_empty_folder_is_an_error_that_says_what_to_pass(tmp_path, name):
    (tmp_path / "in").mkdir()

    with pytest.raises(UsageError, match="expected|check that --format and SOURCE are right"):
        import_dataset(name, str(tmp_path / "in"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_wrong_arguments_are_refused(tmp_path):
    source = _labelme(tmp_path / "in", "a", "b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")

    with pytest.raises(UsageError, match="--format: found 'nif'; expected one of coco, voc"):
        import_dataset("nif", str(source), str(tmp_path / "out"))
    with pytest.raises(UsageError, match="absent: no such file or folder"):
        import_dataset("coco", str(tmp_path / "absent"), str(tmp_path / "out"))
    with pytest.raises(UsageError, match="full: found files; expected a new or empty folder"):
        import_dataset("labelme", str(source), str(tmp_path / "full"))
    with pytest.raises(UsageError, match="lies inside .*; expected a folder outside it"):
        import_dataset("labelme", str(source), str(source / "out"))
    with pytest.raises(UsageError, match="sequence: .*is not a regular expression"):
        import_dataset("labelme", str(source), str(tmp_path / "out"), Options(sequence="("))
    with pytest.raises(UsageError, match="notes.txt/out: cannot be made: Not a directory"):
        import_dataset("labelme", str(source), str(tmp_path / "full" / "notes.txt" / "out"))
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_a_source_with_only_broken_files_is_an_error_with_the_reasons(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "instances_train.json").write_text("{")

    with pytest.raises(UsageError, match="(?s)no image could be imported:.*instances_train.json: found invalid JSON"):
        import_dataset("coco", str(tmp_path / "in"), str(tmp_path / "out"))


def test_one_image_cannot_be_split(tmp_path):
    with pytest.raises(UsageError, match="found 1 sequences or images to split into train and val"):
        import_dataset("labelme", str(_labelme(tmp_path / "in", "a")), str(tmp_path / "out"))


def test_two_images_of_one_name_get_two_names_or_are_refused(tmp_path):
    source = _labelme(tmp_path / "in", "left/001", "right/001", "left__001", "other")
    done = run_import("labelme", source, tmp_path / "out", sequence="^(l|r|o)")

    assert {name for _, name in done.masks} == {"left__001", "right__001", "other"}
    assert "found another pair called left__001" in done.result.problems[0]


def test_names_up_to_the_limit_of_file_systems_are_imported(tmp_path):
    name = "x" * (255 - len(".json"))

    done = run_import("labelme", _labelme(tmp_path / "in", "a", name), tmp_path / "out")

    assert {name for _, name in done.masks} == {"a", name}


def test_progress_ends_at_the_number_of_images(tmp_path):
    calls = []

    import_dataset(
        "labelme", str(_labelme(tmp_path / "in", *"ab")), str(tmp_path / "out"), None, lambda *c: calls.append(c)
    )

    assert calls == [(1, 2), (2, 2)]


def test_the_same_images_are_held_out_every_time(tmp_path):
    source = _labelme(tmp_path / "in", *"abcdefghij")

    splits = [set(run_import("labelme", source, tmp_path / out).masks) for out in ("one", "two")]

    assert splits[0] == splits[1]
    assert Counter(split for split, _ in splits[0]) == {"train": 8, "val": 2}


def test_the_mask_of_an_image_with_an_exif_orientation_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = tmp_path / "in"
    for name, size in (("a", (20, 30)), ("b", (30, 20))):
        image = draw_image(source / f"{name}.jpg", SIZE)
        with Image.open(image) as opened:
            opened.save(image, exif=exif)
        assert image.read_bytes().startswith(JPEG_SIGNATURE)
        annotation = {"shapes": [_square("car")], "imagePath": f"{name}.jpg"}
        write_json(source / f"{name}.json", {**annotation, "imageHeight": size[0], "imageWidth": size[1]})

    done = run_import("labelme", source, tmp_path / "out")

    assert {name: mask.shape for name, mask in masks_by_name(done).items()} == {"a": (20, 30), "b": (30, 20)}


@pytest.mark.parametrize("extension", IMAGE_EXTENSIONS)
def test_every_image_format_of_a_run_is_imported_unchanged(tmp_path, extension):
    source = _labelme(tmp_path / "in", "a", "b")
    image = draw_image(source / f"c.{extension}")
    write_json(source / "c.json", {"shapes": [_square("car")], "imagePath": image.name})

    done = run_import("labelme", source, tmp_path / "out")

    assert not done.result.problems
    assert set(masks_by_name(done)) == {"a", "b", "c"}
    assert {name: data for (_, name), data in done.images.items()}["c"] == image.read_bytes()


def test_other_image_formats_are_named(tmp_path):
    source = _labelme(tmp_path / "in", "a", "b")
    draw_image(source / "c.gif")
    write_json(source / "c.json", {"shapes": [_square("car")], "imagePath": "c.gif"})

    done = run_import("labelme", source, tmp_path / "out")

    assert "c.gif: found the extension .gif; expected one of .png, .jpg" in done.result.problems[0]


def test_an_image_that_cannot_be_converted_is_an_error_with_a_command(tmp_path):
    source = _labelme(tmp_path / "in", "a", "b")
    first, second = (Image.new("L", (30, 20), value) for value in (0, 9))
    first.save(source / "c.tif", save_all=True, append_images=[second])
    write_json(source / "c.json", {"shapes": [_square("car")], "imagePath": "c.tif"})

    done = run_import("labelme", source, tmp_path / "out")

    assert re.search(r"c.tif: found a TIFF of several pages; .* If its first page .* python", done.result.problems[0])


def test_shapes_of_the_background_erase_those_below():
    shapes = [Shape("car", Region(box(0, 0, 9, 9))), Shape("_background_", Region(box(2, 2, 5, 5)))]
    lost = Counter()

    mask = paint(shapes, SIZE, {"background": 0, "car": 1}, False, lost)

    assert np.array_equal(mask, painted((1, box(0, 0, 9, 9)), (0, box(2, 2, 5, 5))))
    assert lost == {"pixels of one class under another": 9}


def test_shapes_are_cropped_at_the_borders_of_the_image():
    shape = Shape("car", Region(np.ones((50, 10), dtype=bool), top=-3, left=25))

    mask = paint([shape], SIZE, {"car": 1}, False, Counter())

    assert np.array_equal(mask, painted((1, box(0, 25, 20, 30))))


def test_colours_of_classes_are_those_of_pascal_voc():
    # VOC2012's development kit: aeroplane, bicycle, bird, tvmonitor and the void border.
    assert [voc_color(index) for index in (0, 1, 2, 3, 20, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 64, 128),
        (224, 224, 192),
    ]
    assert len({voc_color(index) for index in range(256)}) == 256
