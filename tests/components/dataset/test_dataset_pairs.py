"""Pairs are found in every layout; other files are reported with a reason."""

from __future__ import annotations

import pytest
from dataset_folder import content_fingerprint

from components.dataset.description import built_in, detect
from components.dataset.pairs import (
    DUPLICATE_NAME,
    IMAGE_MISSING,
    MASK_MISSING,
    UNREADABLE,
    Pair,
    find_pairs,
    member_files,
)
from components.errors import UsageError


def test_segnet_layout(folder):
    folder.pair("train/0001TP_000001.png", "trainannot/0001TP_000001.png")
    folder.pair("val/0016E5_000002.jpg", "valannot/0016E5_000002.png")

    pairs, issues = find_pairs(str(folder.root), detect(str(folder.root)))

    assert pairs == [
        Pair("0001TP_000001", "train", "0001TP", "train/0001TP_000001.png", "trainannot/0001TP_000001.png"),
        Pair("0016E5_000002", "val", "0016E5", "val/0016E5_000002.jpg", "valannot/0016E5_000002.png"),
    ]
    assert issues == []


def test_prepped_layout_has_val_in_its_test_folder(folder):
    folder.pair("images_prepped_train/a_1.png", "annotations_prepped_train/a_1.png")
    folder.pair("images_prepped_test/b_1.png", "annotations_prepped_test/b_1.png")

    pairs, issues = find_pairs(str(folder.root), detect(str(folder.root)))

    assert [(pair.name, pair.split) for pair in pairs] == [("a_1", "train"), ("b_1", "val")]
    assert issues == []


def test_original_camvid_is_split_by_sequence(folder):
    names = ["0001TP_006690", "0006R0_f00930", "0016E5_00390", "Seq05VD_f00000"]
    for name in names:
        folder.pair(f"701_StillsRaw_full/{name}.png", f"LabeledApproved_full/{name}_L.png")
    folder.write("label_colors.txt", b"128 64 128\tRoad\n0 0 0\tVoid\n")

    pairs, issues = find_pairs(str(folder.root), detect(str(folder.root)))

    assert {pair.sequence: pair.split for pair in pairs} == {
        "0001TP": "train",
        "0006R0": "val",
        "0016E5": "train",
        "Seq05VD": "test",
    }
    assert issues == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("128 64 129\tRoad", r"Road is \(128, 64, 129\) in the file and \(128, 64, 128\) in the description"),
        ("1 2 3\tTram", r"Tram \(1, 2, 3\) is in the file only"),
        ("1 2 Tram", "expected lines such as"),
    ],
)
def test_label_colours_that_differ_from_the_description_stop_everything(folder, line, expected):
    folder.pair("701_StillsRaw_full/0001TP_1.png", "LabeledApproved_full/0001TP_1_L.png")
    folder.write("LabeledApproved_full/label_colors.txt", line.encode())

    with pytest.raises(UsageError, match=expected) as raised:
        find_pairs(str(folder.root), detect(str(folder.root)))

    assert "label_colors.txt" in str(raised.value)


def test_mask_folder_of_a_split_is_not_taken_for_images(folder):
    folder.pair("train/a_1.png", "trainannot/a_1.png")
    folder.write("train_extra/b_1.png", b"-")
    folder.write("more/train/c_1.png", b"-")

    pairs, issues = find_pairs(str(folder.root), built_in("segnet_tutorial"))

    assert [pair.name for pair in pairs] == ["a_1"]
    assert issues == []


def test_unrelated_and_hidden_files_are_passed_over(folder):
    folder.pair("train/a_1.png", "trainannot/a_1.png")
    for path in ("README.md", "train/Thumbs.db", "train/._a_1.png", ".cache/train/x.png", "train/list.txt"):
        folder.write(path, b"-")

    pairs, issues = find_pairs(str(folder.root), built_in("segnet_tutorial"))

    assert len(pairs) == 1
    assert issues == []


@pytest.mark.parametrize("extension", ["png", "PNG", "jpg", "JPG", "jpeg", "Jpeg"])
def test_image_extensions_count_in_any_case(folder, tiny, extension):
    folder.write(f"train/images/a_1.{extension}", b"-")
    folder.write("train/masks/a_1.PNG", b"-")

    pairs, _ = find_pairs(str(folder.root), tiny)

    assert [pair.image for pair in pairs] == [f"train/images/a_1.{extension}"]


def test_a_missing_mask_and_a_missing_image_are_issues(folder, tiny):
    folder.write("train/images/a_1.png", b"-")
    folder.write("val/masks/b_1.png", b"-")

    pairs, issues = find_pairs(str(folder.root), tiny)

    assert pairs == []
    assert [(issue.split, issue.file, issue.reason) for issue in issues] == [
        ("train", "train/images/a_1.png", MASK_MISSING),
        ("val", "val/masks/b_1.png", IMAGE_MISSING),
    ]
    assert "train/masks/a_1.png" in issues[0].expected
    assert "val/images/b_1.png|jpg|jpeg" in issues[1].expected


def test_two_images_of_one_name_are_both_left_out(folder, tiny):
    folder.pair("train/images/a_1.png", "train/masks/a_1.png")
    folder.write("train/images/a_1.jpg", b"-")
    folder.pair("train/images/a_2.png", "train/masks/a_2.png")

    pairs, issues = find_pairs(str(folder.root), tiny)

    assert [pair.name for pair in pairs] == ["a_2"]
    assert [(issue.file, issue.reason) for issue in issues] == [
        ("train/images/a_1.jpg", DUPLICATE_NAME),
        ("train/images/a_1.png", DUPLICATE_NAME),
    ]


def test_two_masks_of_one_name_are_left_out(folder):
    folder.pair("701_StillsRaw_full/0001TP_1.png", "labels/0001TP_1_L.png")
    folder.write("labels_old/0001TP_1_L.png", b"-")

    pairs, issues = find_pairs(str(folder.root), built_in("camvid_original"))

    assert pairs == []
    assert {issue.file for issue in issues} == {"labels/0001TP_1_L.png", "labels_old/0001TP_1_L.png"}
    assert {issue.reason for issue in issues} == {DUPLICATE_NAME}


def test_a_name_that_is_not_utf_8_is_an_issue_that_can_be_written(folder, tiny):
    folder.pair("train/images/a_1.png", "train/masks/a_1.png")
    for path in ("train/images/b_\udcdf.png", "train/masks/b_\udcdf.png"):
        folder.write(path, b"-")

    pairs, issues = find_pairs(str(folder.root), tiny)

    assert [pair.name for pair in pairs] == ["a_1"]
    assert [(issue.file, issue.reason) for issue in issues] == [
        (r"train/images/b_\udcdf.png", UNREADABLE),
        (r"train/masks/b_\udcdf.png", UNREADABLE),
    ]
    assert len(content_fingerprint(str(folder.root), tiny)) == 64


def test_one_name_may_be_in_two_splits(folder, tiny):
    folder.pair("train/images/a_1.png", "train/masks/a_1.png")
    folder.pair("val/images/a_1.png", "val/masks/a_1.png")

    pairs, issues = find_pairs(str(folder.root), tiny)

    assert [(pair.split, pair.name) for pair in pairs] == [("train", "a_1"), ("val", "a_1")]
    assert issues == []


def test_images_and_masks_may_be_in_one_folder(folder, unsplit):
    layout = unsplit.layout.model_copy(update={"images": "{name}", "masks": "{name}_mask.png"})
    described = unsplit.model_copy(update={"layout": layout})
    folder.pair("a_1.png", "a_1_mask.png")
    folder.pair("b_1.png", "b_1_mask.png")
    folder.pair("b_2.png", "b_2_mask.png")

    pairs, issues = find_pairs(str(folder.root), described)

    assert [pair.name for pair in pairs] == ["b_1", "b_2", "a_1"]
    assert issues == []


def test_masks_of_all_splits_may_be_in_one_folder(folder, tiny):
    described = tiny.model_copy(update={"layout": tiny.layout.model_copy(update={"masks": "masks/{name}.png"})})
    folder.pair("train/images/a_1.png", "masks/a_1.png")
    folder.pair("val/images/b_1.png", "masks/b_1.png")

    pairs, issues = find_pairs(str(folder.root), described)

    assert [(pair.split, pair.mask) for pair in pairs] == [("train", "masks/a_1.png"), ("val", "masks/b_1.png")]
    assert issues == []


def test_a_pair_without_a_mask_counts_in_its_sequences_split(folder, unsplit):
    for name in ("a_1", "a_2", "a_3", "b_1"):
        folder.pair(f"images/{name}.png", f"masks/{name}.png")
    folder.write("images/b_2.png", b"-")

    pairs, issues = find_pairs(str(folder.root), unsplit)

    assert {pair.sequence: pair.split for pair in pairs} == {"a": "train", "b": "val"}
    assert [(issue.split, issue.name) for issue in issues] == [("val", "b_2")]


def test_an_empty_folder_has_no_pairs(folder, tiny, unsplit):
    assert find_pairs(str(folder.root), tiny) == ([], [])
    assert find_pairs(str(folder.root), unsplit) == ([], [])


def test_members_are_the_files_the_layout_names():
    paths = [
        "README.md",
        "labels/label_colors.txt",
        "labels/0001TP_1_L.png",
        "701_StillsRaw_full/0001TP_1.png",
        "x.png",
    ]

    assert member_files(paths, built_in("camvid_original")) == paths[1:4]


def test_real_camvid_is_complete(real_camvid):
    pairs, issues = find_pairs(str(real_camvid), detect(str(real_camvid)))

    by_split = [sum(pair.split == split for pair in pairs) for split in ("train", "val")]
    assert by_split == [367, 101]
    assert [issue for issue in issues if issue.split in ("train", "val")] == []
    assert {pair.sequence for pair in pairs if pair.split == "train"} == {"0001TP", "0006R0", "0016E5"}
