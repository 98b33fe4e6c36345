"""Instances are read from ids, COCO's annotations and masks; an issue names the file and the reason."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from dataset_folder import HEIGHT, WIDTH, Folder, content_fingerprint, random_image
from PIL import Image

from components.dataset.checks import Sample, read_pair
from components.dataset.description import parse
from components.dataset.pairs import DataIssue, find_pairs
from components.errors import UsageError

CLASSES = """\
name: streets
classes:
  - {name: road, color: [128, 64, 128]}
  - {name: car, color: [0, 0, 142], indices: [26]}
  - {name: person, color: [220, 20, 60], indices: [24]}
  - {name: void, color: [0, 0, 0], indices: [1, 255]}
ignore: void
splits: {train: train, val: val}
"""
ROAD, CAR, PERSON, VOID = range(4)
COMPONENTS = 'layout: {images: "{split}/images/{name}", masks: "{split}/masks/{name}.png"}\n'
IDS = COMPONENTS.replace("}\n", ', instances: "{split}/ids/{name}.png"}\n')
COCO = 'layout: {images: "{split}/{name}", instances: "annotations/instances_{split}.json"}\n'
THINGS = "things: [person, car]\n"


def described(layout, more=THINGS):
    return parse(CLASSES + layout + more, "streets.yaml")


def one(folder, description) -> Sample | DataIssue:
    """Reads the only pair of the folder."""
    pairs, issues = find_pairs(str(folder.root), description)
    assert not issues
    (pair,) = pairs
    return read_pair(str(folder.root), pair, description)


def area(top, left, bottom, right):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


LEFT, RIGHT, PEOPLE = area(0, 0, 4, 5), area(0, 5, 4, 9), area(8, 2, 12, 6)


def write_ids(folder: Folder, ids: np.ndarray, values: np.ndarray | None = None) -> None:
    """Writes an image whose mask shows two cars that touch and a person, and its instance ids."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[LEFT | RIGHT], mask[PEOPLE] = 26, 24
    folder.save("train/images/a_1.png", random_image())
    folder.save("train/masks/a_1.png", Image.fromarray(mask if values is None else values))
    folder.save("train/ids/a_1.png", Image.fromarray(ids))


def drawn(*layers, dtype=np.uint8):
    ids = np.zeros((HEIGHT, WIDTH), dtype)
    for value, mask in layers:
        ids[mask] = value
    return ids


def found(sample):
    """Returns the instances as {(class, first row, first column, crowd): mask}."""
    assert isinstance(sample, Sample), sample
    each = sample.instances
    return {
        (int(index), *np.argwhere(mask)[0].tolist(), bool(crowd)): mask
        for index, mask, crowd in zip(each.classes, each.masks, each.crowd, strict=True)
    }


@pytest.mark.parametrize("ignored", ["ignore: void\n", ""], ids=["with an ignored class", "without"])
def test_each_id_is_an_instance_of_the_class_below_it(folder, ignored):
    write_ids(folder, drawn((1, LEFT), (2, RIGHT), (200, PEOPLE)))
    text = CLASSES.replace("ignore: void\n", ignored) + IDS + THINGS

    instances = found(one(folder, parse(text, "streets.yaml")))

    assert instances.keys() == {(CAR, 0, 0, False), (CAR, 0, 5, False), (PERSON, 8, 2, False)}
    np.testing.assert_array_equal(instances[CAR, 0, 0, False], LEFT)
    np.testing.assert_array_equal(instances[CAR, 0, 5, False], RIGHT)


def test_ids_of_16_bits_with_a_divisor_name_class_and_crowd(folder):
    write_ids(folder, drawn((26003, LEFT), (26, RIGHT), (24000, PEOPLE), dtype=np.uint16))

    instances = found(one(folder, described(IDS, THINGS + "instance_id_divisor: 1000\n")))

    assert instances.keys() == {(CAR, 0, 0, False), (CAR, 0, 5, True), (PERSON, 8, 2, False)}


def test_an_id_on_ignored_pixels_is_not_an_instance(folder):
    values = np.full((HEIGHT, WIDTH), 255, np.uint8)
    write_ids(folder, drawn((255, LEFT)), values)

    assert found(one(folder, described(IDS))) == {}


@pytest.mark.parametrize(
    ("ids", "more", "expected"),
    [
        (np.zeros((HEIGHT, WIDTH + 1), np.uint8), "", ("size_mismatch", "instances of 25x16 pixels")),
        (drawn((9, area(5, 10, 7, 12))), "", ("label_outside_map", "the instance id 9 of road")),
        (drawn((65000, LEFT), dtype=np.uint16), "divide", ("label_outside_map", "the instance id 65000 of no class")),
    ],
    ids=["size", "stuff", "unknown"],
)
def test_ids_that_do_not_fit_are_an_issue_of_their_file(folder, ids, more, expected):
    write_ids(folder, ids)
    more = "instance_id_divisor: 1000\nunnamed: error\n" if more else ""

    issue = one(folder, described(IDS, THINGS + more))

    assert (issue.file, issue.reason, issue.found) == ("train/ids/a_1.png", *expected)
    assert issue.action


def test_missing_instances_are_an_issue_only_if_instances_are_read(folder):
    write_ids(folder, drawn((1, LEFT)))
    (folder.root / "train/ids/a_1.png").unlink()

    pairs, (issue,) = find_pairs(str(folder.root), described(IDS))
    assert (pairs, issue.reason, issue.expected) == ([], "instances_missing", "instances at train/ids/a_1.png")

    sample = one(folder, described(IDS).without_instances())
    assert isinstance(sample, Sample)
    assert sample.instances is None


def test_two_files_of_ids_for_one_name_are_an_issue(folder):
    layout = IDS.replace("{split}/ids/", "**/ids/")
    write_ids(folder, drawn((1, LEFT)))
    folder.save("more/ids/a_1.png", Image.fromarray(drawn((1, LEFT))))

    pairs, issues = find_pairs(str(folder.root), described(layout))

    assert not pairs
    assert {(issue.file, issue.reason) for issue in issues} == {
        ("more/ids/a_1.png", "duplicate_name"),
        ("train/ids/a_1.png", "duplicate_name"),
    }


def test_without_files_each_connected_component_is_an_instance_and_a_small_one_a_crowd(folder):
    write_ids(folder, drawn((1, LEFT)))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    corner = area(4, 5, 6, 7)  # touches LEFT at a corner
    mask[LEFT | corner | PEOPLE] = 26
    mask[15, 20] = 24
    folder.save("train/masks/a_1.png", Image.fromarray(mask))

    instances = found(one(folder, described(COMPONENTS, THINGS + "min_instance_pixels: 2\n")))

    assert instances.keys() == {(CAR, 0, 0, False), (CAR, 8, 2, False), (PERSON, 15, 20, True)}
    np.testing.assert_array_equal(instances[CAR, 0, 0, False], LEFT | corner)


def test_the_fingerprint_includes_the_ids(folder):
    write_ids(folder, drawn((1, LEFT)))
    before = content_fingerprint(str(folder.root), described(IDS))
    hashes = one(folder, described(IDS)).content_hash

    folder.save("train/ids/a_1.png", Image.fromarray(drawn((2, LEFT))))

    assert content_fingerprint(str(folder.root), described(IDS)) != before
    assert one(folder, described(IDS)).content_hash != hashes


SQUARE = [2, 1, 6, 1, 6, 5, 2, 5]


def annotation(segmentation, category=1, **more):
    return {"image_id": 7, "category_id": category, "segmentation": segmentation, **more}


def write_coco(folder: Folder, annotations, size=(HEIGHT, WIDTH)) -> None:
    folder.save("train/a_1.png", random_image())
    content = {
        "images": [{"id": 7, "file_name": "a_1.png", "height": size[0], "width": size[1]}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}, {"id": 3, "name": "kite"}],
    }
    folder.write("annotations/instances_train.json", json.dumps(content).encode())


def test_coco_s_annotations_are_instances_and_make_the_mask(folder):
    small = {"size": [HEIGHT, WIDTH], "counts": [3 * HEIGHT + 2, 2, HEIGHT * WIDTH - 3 * HEIGHT - 4]}
    crowd = {"size": [HEIGHT, WIDTH], "counts": [10 * HEIGHT, 8, HEIGHT * WIDTH - 10 * HEIGHT - 8]}
    write_coco(folder, [annotation(small, 2), annotation([SQUARE]), annotation(crowd, 2, iscrowd=1)])

    sample = one(folder, described(COCO))

    assert found(sample).keys() == {(PERSON, 2, 3, False), (CAR, 1, 2, False), (PERSON, 0, 10, True)}
    mask = np.full((HEIGHT, WIDTH), VOID)
    mask[1:5, 2:6] = CAR
    mask[2:4, 3] = PERSON  # the smaller one lies above
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sample.mask))), mask)
    assert found(sample)[CAR, 1, 2, False][2, 3], "a mask of an instance keeps what lies below another"


@pytest.mark.parametrize(
    ("annotations", "size", "expected"),
    [
        ([annotation({"size": [HEIGHT, WIDTH], "counts": [3, 4]})], (HEIGHT, WIDTH), ("bad_annotation", "runs of 7")),
        ([annotation([SQUARE], 3)], (HEIGHT, WIDTH), ("label_outside_map", "the category 'kite'")),
        ([annotation([[90, 90, 95, 90, 95, 95]])], (HEIGHT, WIDTH), ("empty_instance", "car without a pixel")),
        ([], (HEIGHT, WIDTH + 2), ("size_mismatch", "a mask of 26x16 pixels")),
        ([annotation([SQUARE], 9)], (HEIGHT, WIDTH), ("bad_annotation", "category_id 9")),
    ],
    ids=["runs", "class", "empty", "size", "category"],
)
def test_annotations_that_cannot_be_used_are_an_issue_of_their_file(folder, annotations, size, expected):
    write_coco(folder, annotations, size)

    issue = one(folder, described(COCO))

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason) == ("annotations/instances_train.json", expected[0])
    assert expected[1] in issue.found
    assert issue.expected
    assert issue.action


def test_an_image_that_the_annotations_lack_is_an_issue(folder):
    write_coco(folder, [])
    folder.save("train/b_1.png", random_image(1))

    description = described(COCO)
    pairs, _ = find_pairs(str(folder.root), description)
    sound, issue = (read_pair(str(folder.root), pair, description) for pair in pairs)

    assert found(sound) == {}
    assert (issue.reason, issue.name) == ("bad_annotation", "b_1")
    assert "without b_1.png" in issue.found


@pytest.mark.parametrize(
    ("layout", "more", "message"),
    [
        (IDS, "things: [kite]\n", "things: found kite; expected different names of classes"),
        (IDS, "things: [void]\n", "things: found void; expected different names of classes"),
        (IDS.replace("ids/{name}.png", "ids/{name}.tif"), THINGS, "layout.instances: .*png files of instance ids"),
        (IDS.replace("ids/{name}", "masks/{sequence}"), THINGS, "layout.instances: .*{name} exactly once"),
        ('layout: {images: "{split}/{name}"}\n', THINGS, "layout: masks: missing; expected a path pattern"),
        (COCO, "ignore: null\n", "layout.masks: missing, so masks are drawn from instances"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(layout, more, message):
    text = CLASSES.replace("ignore: void\n", "") if "ignore" in more else CLASSES
    with pytest.raises(UsageError, match=message):
        parse(text + layout + more, "streets.yaml")
