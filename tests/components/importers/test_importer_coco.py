import numpy as np
import pytest
from imported_folder import (
    HEIGHT,
    SIZE,
    TRIANGLE,
    WIDTH,
    box,
    corners,
    draw_image,
    flat,
    inside,
    painted,
    run_import,
    write_json,
)

from components.errors import UsageError

CATEGORIES = [{"id": 3, "name": "car", "supercategory": "vehicle"}, {"id": 1, "name": "person"}]
PERSON, CAR = 1, 2


def _annotation(image, category, segmentation, **more):
    return {"id": 7, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0, **more}


def _image(key, name, size=SIZE):
    return {"id": key, "file_name": name, "height": size[0], "width": size[1]}


def _source(root, annotations, split="train2017", images=None, categories=CATEGORIES):
    images = images or [_image(1, "a.png")]
    for image in images:
        if not (root / split / image["file_name"]).exists():
            draw_image(root / split / image["file_name"], (image["height"], image["width"]), value=image["id"])
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(root / "annotations" / f"instances_{split}.json", content)
    return root


def _both(root, train, val=()):
    _source(root, list(val), "val2017", [_image(9, "v.png")])
    return _source(root, train)


def test_every_encoding_becomes_pixels_and_splits_come_from_the_files(tmp_path):
    runs = {"size": [HEIGHT, WIDTH], "counts": [20 * 4 + 5, 3, HEIGHT * WIDTH - 88]}
    # Encoded by pycocotools 2.0.11.
    text = "Y1;9FN22NN22NN22NN22NN22NN22NN22NN22NN22NN22NN2280000000000000000000000_2"
    compressed = {"size": [HEIGHT, WIDTH], "counts": text}
    frame = box(1, 2, 12, 26) & ~box(2, 3, 9, 14)
    parts = [flat(corners(0, 0, 3, 3)), flat(corners(15, 20, 18, 28))]
    images = [_image(1, "a.png"), _image(2, "sub/b.png"), _image(3, "c.png")]
    _source(tmp_path / "coco", [_annotation(9, 3, parts)], "val2017", [_image(9, "v.png")])
    annotations = [
        _annotation(1, 1, [flat(TRIANGLE)]),
        _annotation(2, 3, runs, iscrowd=1),
        _annotation(3, 3, compressed),
    ]
    source = _source(tmp_path / "coco", annotations, images=images)

    done = run_import("coco", source, tmp_path / "out")

    assert [item.name for item in done.description.classes] == ["background", "person", "car"]
    assert done.description.class_map.ignore_index is None
    assert done.result.pairs == {"train": 3, "val": 1}
    assert not done.result.held_out
    assert np.array_equal(done.masks["train", "a"], painted((PERSON, inside(TRIANGLE))))
    assert np.array_equal(done.masks["train", "sub__b"], painted((CAR, box(5, 4, 8, 5))))
    assert np.array_equal(done.masks["train", "c"], painted((CAR, frame)))
    two = box(0, 0, 3, 3) | box(15, 20, 18, 28)
    assert np.array_equal(done.masks["val", "v"], painted((CAR, two)))
    assert done.images["train", "a"] == (source / "train2017" / "a.png").read_bytes()


def test_smaller_objects_cover_larger_ones_and_losses_are_counted(tmp_path):
    small, large = box(2, 2, 6, 6), box(0, 0, 10, 10)
    source = _both(
        tmp_path / "coco",
        [
            _annotation(1, 1, [flat(corners(2, 2, 6, 6))], keypoints=[1, 1, 2], attributes={"occluded": False}),
            _annotation(1, 3, [flat(corners(0, 0, 10, 10))]),
            _annotation(1, 3, [], bbox=[1, 1, 5, 5]),
            _annotation(1, 3, [flat(corners(90, 90, 95, 95))]),
            _annotation(77, 3, [flat(corners(0, 0, 5, 5))]),
        ],
    )

    done = run_import("coco", source, tmp_path / "out")

    assert np.array_equal(done.masks["train", "a"], painted((CAR, large), (PERSON, small)))
    assert done.result.lost == {
        "key points": 1,
        "attributes": 1,
        "boxes without a shape": 1,
        "shapes that cover no pixel": 1,
        "annotations of no image": 1,
    }


def test_overlapping_instances_are_imported_completely_and_crowds_stay_crowds(tmp_path):
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT, HEIGHT * (WIDTH - 1)]}
    small, large, crowd = box(2, 2, 6, 6), box(0, 0, 10, 10), box(0, 0, HEIGHT, 1)
    annotations = [
        _annotation(1, 1, [flat(corners(2, 2, 6, 6))]),
        _annotation(1, 3, [flat(corners(0, 0, 10, 10))]),
        _annotation(1, 3, runs, iscrowd=1),
        _annotation(1, 3, [flat(corners(90, 90, 95, 95))]),
    ]

    done = run_import("coco", _both(tmp_path / "coco", annotations), tmp_path / "out")
    kept = run_import("coco", tmp_path / "coco", tmp_path / "kept", classes=["car"])

    assert done.description.things == ("person", "car")
    found = done.instances["train", "a"]
    assert (found.classes.tolist(), found.crowd.tolist()) == ([PERSON, CAR, CAR], [False, False, True])
    np.testing.assert_array_equal(found.masks, [small, large, crowd])
    assert len(done.instances["val", "v"].classes) == 0
    np.testing.assert_array_equal(kept.instances["train", "a"].masks, [large, crowd])


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (_annotation(1, 8, [[1, 1, 5, 5, 1, 5]]), "found category_id 8; expected one of the ids in categories"),
        (_annotation(1, 1, [[1, 1, 5]]), "segmentation: found a polygon of 3 coordinates; expected at least 3 corners"),
        (_annotation(1, 1, {"size": [20, 30], "counts": [5, 5]}), "found runs of 10 pixels; expected 600"),
        (_annotation(1, 1, {"size": [20, 30], "counts": [10**30]}), "too large to convert"),
        (_annotation(1, 1, {"size": [30, 20], "counts": [600]}), "size: found [30, 20]; expected [20, 30]"),
        (_annotation(1, 1, {"size": [20, 30], "counts": "!"}), "found the character '!'"),
        ({"image_id": 1, "segmentation": [[1, 1, 5, 5, 1, 5]]}, "category_id: missing"),
        (_annotation(1, 1, "nothing"), "segmentation"),
    ],
)
def test_a_broken_annotation_leaves_out_only_its_image(tmp_path, annotation, message):
    source = _both(tmp_path / "coco", [annotation, _annotation(2, 1, [flat(corners(1, 1, 3, 3))])])
    images = [_image(1, "a.png"), _image(2, "b.png")]
    _source(source, [annotation, _annotation(2, 1, [flat(corners(1, 1, 3, 3))])], images=images)

    done = run_import("coco", source, tmp_path / "out")

    assert set(done.masks) == {("train", "b"), ("val", "v")}
    (problem,) = done.result.problems
    assert "instances_train2017.json: image a.png: annotation" in problem
    assert message in problem


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file or directory; expected the image"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\nbroken"), "found"),
        (lambda path: draw_image(path, (9, 9)), "found 9x9 pixels; expected 30x20, the annotation's width and height"),
    ],
)
def test_an_image_that_differs_from_its_annotation_is_left_out(tmp_path, damage, message):
    images = [_image(1, "a.png"), _image(2, "b.png")]
    source = _both(tmp_path / "coco", [])
    _source(source, [], images=images)
    damage(source / "train2017" / "a.png")

    done = run_import("coco", source, tmp_path / "out")

    assert set(done.masks) == {("train", "b"), ("val", "v")}
    (problem,) = done.result.problems
    assert f"{source}/train2017/a.png: " in problem
    assert message in problem


def test_a_broken_file_does_not_stop_the_import(tmp_path):
    source = _both(tmp_path / "coco", [])
    (source / "annotations" / "instances_test2017.json").write_text("{")

    done = run_import("coco", source, tmp_path / "out")

    assert done.result.pairs == {"train": 1, "val": 1}
    assert "instances_test2017.json: found invalid JSON" in done.result.problems[0]


def test_a_path_outside_the_source_is_refused(tmp_path):
    draw_image(tmp_path / "secret.png")
    source = _both(tmp_path / "coco", [])
    _source(source, [], images=[_image(1, "a.png"), _image(2, "../../secret.png")])

    done = run_import("coco", source, tmp_path / "out")

    assert "found the image path '../../secret.png'; expected a path inside the source" in done.result.problems[0]


def test_whole_sequences_are_held_out_if_the_source_has_no_val_split(tmp_path):
    images = [_image(key, f"{group}_{key}.png") for key, group in enumerate("aaabbbcccddd", start=1)]
    source = _source(tmp_path / "coco", [], "default", images)

    done = run_import("coco", source, tmp_path / "out", val=0.25, sequence="^([^_]+)_")

    assert done.result.held_out
    assert done.result.pairs == {"train": 9, "val": 3}
    sequences = {split: {name[0] for found, name in done.masks if found == split} for split in ("train", "val")}
    assert not sequences["train"] & sequences["val"]


def test_one_file_of_roboflow_beside_the_images_of_each_split(tmp_path):
    for split, key in (("train", 1), ("valid", 2)):
        draw_image(tmp_path / "in" / split / f"{split}.jpg")
        content = {"images": [_image(key, f"{split}.jpg")], "annotations": [], "categories": CATEGORIES}
        write_json(tmp_path / "in" / split / "_annotations.coco.json", content)

    done = run_import("coco", tmp_path / "in", tmp_path / "out")

    assert set(done.masks) == {("train", "train"), ("val", "valid")}


def test_a_single_file_in_cvats_layout(tmp_path):
    images = [_image(1, "a.png"), _image(2, "b.png")]
    for image in images:
        draw_image(tmp_path / "in" / "images" / image["file_name"])
    content = {"images": images, "annotations": [], "categories": CATEGORIES}
    path = write_json(tmp_path / "in" / "annotations" / "instances_default.json", content)

    done = run_import("coco", path, tmp_path / "out", link=True)

    assert done.result.pairs == {"train": 1, "val": 1}
    assert done.description.classes[1].color == (128, 0, 0)
    assert {path.readlink() for path in (tmp_path / "out").rglob("images/*")} == {
        tmp_path / "in" / "images" / image["file_name"] for image in images
    }


def test_only_some_classes_in_a_chosen_order(tmp_path):
    annotations = [_annotation(1, 1, [flat(corners(0, 0, 2, 2))]), _annotation(1, 3, [flat(corners(5, 5, 7, 7))])]
    source = _both(tmp_path / "coco", annotations)

    done = run_import("coco", source, tmp_path / "out", classes=["car"])

    assert [item.name for item in done.description.classes] == ["background", "car"]
    assert np.array_equal(done.masks["train", "a"], painted((1, box(5, 5, 7, 7))))
    assert done.result.lost == {"shapes of classes that are not kept": 1}
    with pytest.raises(UsageError, match="--class: found 'bus'; expected one of person, car"):
        run_import("coco", source, tmp_path / "other", classes=["bus"])


def test_more_classes_than_a_mask_holds(tmp_path):
    categories = [{"id": key, "name": f"class {key}"} for key in range(300)]
    _source(tmp_path / "coco", [], "val2017", [_image(9, "v.png")], categories)
    source = _source(tmp_path / "coco", [], categories=categories)

    with pytest.raises(UsageError, match="found 300 classes .* expected 1 to 255.*Choose some with --class"):
        run_import("coco", source, tmp_path / "out")
    assert run_import("coco", source, tmp_path / "out", classes=["class 7"]).result.pairs == {"train": 1, "val": 1}


def test_a_category_id_must_have_one_name_in_all_files(tmp_path):
    _source(tmp_path / "coco", [], "val2017", [_image(9, "v.png")], [{"id": 1, "name": "dog"}])

    with pytest.raises(UsageError, match="categories: id 1 is 'dog' here and 'person' in another file"):
        run_import("coco", _source(tmp_path / "coco", []), tmp_path / "out")


@pytest.mark.parametrize(
    "folder", ["train2017", "images/train2017", "images", "annotations", ".", "train", "images/train"]
)
def test_images_are_found_in_every_usual_folder(tmp_path, folder):
    source = _both(tmp_path / "coco", [])
    (source / folder).mkdir(parents=True, exist_ok=True)
    (source / "train2017" / "a.png").rename(source / folder / "a.png")

    done = run_import("coco", source, tmp_path / "out")

    assert set(done.masks) == {("train", "a"), ("val", "v")}


def test_test_images_stay_in_their_split_if_val_is_held_out(tmp_path):
    _source(tmp_path / "coco", [], "test2017", [_image(7, "t.png"), _image(8, ".u.png")])
    source = _source(tmp_path / "coco", [], images=[_image(1, "a.png"), _image(2, "b.png")])

    done = run_import("coco", source, tmp_path / "out")

    assert done.result.held_out
    # A leading dot would hide the file.
    assert {name for split, name in done.masks if split == "test"} == {"t", "u"}
    assert done.result.pairs == {"train": 1, "val": 1, "test": 2}
