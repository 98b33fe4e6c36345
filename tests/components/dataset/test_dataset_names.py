"""Recordings in folders, lists of names, Unicode forms and other formats are read, or the issue's advice works."""

from __future__ import annotations

import shlex
import subprocess
import sys
import unicodedata

import pytest
from dataset_folder import encode, random_image, random_mask
from PIL import Image

from components.dataset.description import DatasetDescription, parse
from components.dataset.inspection import inspect
from components.dataset.pairs import (
    DUPLICATE_NAME,
    IMAGE_MISSING,
    MASK_MISSING,
    REASONS,
    DataIssue,
    find_pairs,
)
from components.errors import UsageError

CLASSES = "classes:\n  - {name: road, color: [0, 0, 0]}\n  - {name: car, color: [255, 0, 0]}\n"
FLAT = 'layout: {images: "images/{name}", masks: "masks/{name}.png"}\nsequence: "(.*)"\n'
BY_FRACTION = "split_by_sequence: {val: 0.5}\n"
LISTS = "split_lists: {train: train.txt, val: lists/val.txt}\n"
RECORDINGS = 'layout: {images: "{split}/*/rgb/{name}", masks: "{split}/*/labels/{name}.png"}\n'
SPLITS = "splits: {train: train, val: val}\n"


def described(*parts: str) -> DatasetDescription:
    return parse(CLASSES + "".join(parts), "segpipe.yaml")


def advice(issues: list[DataIssue]) -> str:
    """Returns the action, the same for all issues; it must not delete a file."""
    assert {issue.reason for issue in issues} <= set(REASONS)
    (action,) = {issue.action for issue in issues}
    assert "delete" not in action
    return action


@pytest.fixture
def recordings(folder):
    for place in ("train/drive_01", "train/drive_02", "train/2011/drive_03", "val/drive_04"):
        for frame in range(2):
            folder.pair(f"{place}/rgb/{frame:06}.png", f"{place}/labels/{frame:06}.png", len(place) + frame)
    return folder


def test_frames_of_one_name_in_two_recordings_are_kept_apart_as_the_issue_advises(recordings):
    _, issues = find_pairs(str(recordings.root), described(RECORDINGS, SPLITS))
    assert {issue.reason for issue in issues} == {DUPLICATE_NAME}
    assert "write {sequence} in place of the * in layout.images and layout.masks" in advice(issues)

    pairs, issues = find_pairs(str(recordings.root), described(RECORDINGS.replace("*", "{sequence}"), SPLITS))

    assert issues == []
    assert [(pair.split, pair.sequence, pair.name) for pair in pairs] == [
        ("train", "2011/drive_03", "2011/drive_03/000000"),
        ("train", "2011/drive_03", "2011/drive_03/000001"),
        ("train", "drive_01", "drive_01/000000"),
        ("train", "drive_01", "drive_01/000001"),
        ("train", "drive_02", "drive_02/000000"),
        ("train", "drive_02", "drive_02/000001"),
        ("val", "drive_04", "drive_04/000000"),
        ("val", "drive_04", "drive_04/000001"),
    ]
    assert all(pair.image.replace("rgb", "labels") == pair.mask for pair in pairs)


def test_a_recording_is_in_one_split(recordings):
    layout = 'layout: {images: "**/{sequence}/rgb/{name}", masks: "**/{sequence}/labels/{name}.png"}\n'

    pairs, issues = find_pairs(str(recordings.root), described(layout, "split_by_sequence: {val: 0.25}\n"))

    assert issues == []
    splits = {pair.sequence: {other.split for other in pairs if other.sequence == pair.sequence} for pair in pairs}
    assert sorted(map(len, splits.values())) == [1, 1, 1, 1]
    assert [pair.split for pair in pairs].count("val") == 2


def test_recordings_of_one_frame_each_are_split(folder):
    for place in ("a", "b"):
        folder.pair(f"{place}/rgb/0.png", f"{place}/labels/0.png")
    layout = 'layout: {images: "{sequence}/rgb/{name}", masks: "{sequence}/labels/{name}.png"}\n'

    pairs, _ = find_pairs(str(folder.root), described(layout, BY_FRACTION))

    assert {pair.split for pair in pairs} == {"train", "val"}


def test_an_expression_may_group_recordings(recordings):
    layout = RECORDINGS.replace("*", "{sequence}")

    pairs, _ = find_pairs(str(recordings.root), described(layout, SPLITS, 'sequence: "(drive_.)"\n'))

    assert {pair.sequence for pair in pairs} == {"drive_0"}


def test_a_missing_mask_of_a_recording_is_named_in_its_folder(recordings):
    (recordings.root / "val/drive_04/labels/000001.png").unlink()

    _, (issue,) = find_pairs(str(recordings.root), described(RECORDINGS.replace("*", "{sequence}"), SPLITS))

    assert (issue.file, issue.reason) == ("val/drive_04/rgb/000001.png", MASK_MISSING)
    assert issue.expected == "a mask at val/drive_04/labels/000001.png"


def test_two_folders_of_masks_are_separated_as_the_issue_advises(folder):
    for name in "abc":
        folder.pair(f"images/{name}.png", f"labels/{name}.png")
    folder.save("labels_old/a.png", Image.fromarray(random_mask(5)))
    _, issues = find_pairs(str(folder.root), described(FLAT.replace("masks/", "labels*/"), BY_FRACTION))
    assert "the folder that holds the right masks in place of the * in layout.masks" in advice(issues)

    pairs, issues = find_pairs(str(folder.root), described(FLAT.replace("masks/", "labels/"), BY_FRACTION))

    assert (len(pairs), issues) == (3, [])


def test_two_images_of_one_name_are_separated_as_the_issue_advises(folder):
    for name in "abc":
        folder.pair(f"images/{name}.png", f"masks/{name}.png")
    folder.save("images/a.jpg", random_image(9))
    _, issues = find_pairs(str(folder.root), described(FLAT, BY_FRACTION))
    assert advice(issues) == "move all but the one that belongs to the pair to another folder"

    (folder.root / "thumbnails").mkdir()
    (folder.root / "images/a.jpg").rename(folder.root / "thumbnails/a.jpg")

    pairs, issues = find_pairs(str(folder.root), described(FLAT, BY_FRACTION))
    assert (len(pairs), issues) == (3, [])


def test_images_without_masks_are_left_out_as_the_issue_advises(folder):
    for name in "abc":
        folder.pair(f"images/{name}.png", f"masks/{name}.png")
    folder.save("images/d.png", random_image())
    folder.save("masks/e.png", Image.fromarray(random_mask()))
    pairs, issues = find_pairs(str(folder.root), described(FLAT, BY_FRACTION))
    assert {(issue.reason, issue.file) for issue in issues} == {
        (MASK_MISSING, "images/d.png"),
        (IMAGE_MISSING, "masks/e.png"),
    }
    for issue in issues:
        assert "set `unpaired: ignore` in segpipe.yaml" in advice([issue])

    found = inspect(str(folder.root), described(FLAT, BY_FRACTION, "unpaired: ignore\n"))

    assert (found.pairs, found.issues) == (len(pairs), ())


@pytest.fixture
def listed(folder):
    for name in ("2007_a", "2007 b", "c.d", "e", "unlisted"):
        folder.pair(f"images/{name}.png", f"masks/{name}.png", len(name))
    folder.save("images/photo.jpg", random_image())
    names = b"# names\nimages/2007_a\n2007 b\n\n/images/c.d.png /masks/c.d.png\n"
    folder.write("train.txt", b"\xef\xbb\xbf" + names)  # Windows' editors put a byte order mark first
    folder.write("lists/val.txt", b"e 1 2 3\r\n")
    return folder


def test_lists_of_names_assign_splits_and_leave_out_other_pairs(listed):
    pairs, issues = find_pairs(str(listed.root), described(FLAT, LISTS))

    assert [(pair.split, pair.name) for pair in pairs] == [
        ("train", "2007 b"),
        ("train", "2007_a"),
        ("train", "c.d"),
        ("val", "e"),
    ]
    assert issues == []


@pytest.mark.parametrize(("missing", "reason"), [("images", IMAGE_MISSING), ("masks", MASK_MISSING)])
def test_a_listed_pair_that_is_incomplete_is_an_issue(listed, missing, reason):
    (listed.root / f"{missing}/2007_a.png").unlink()

    pairs, (issue,) = find_pairs(str(listed.root), described(FLAT, LISTS))

    assert len(pairs) == 3
    assert (issue.split, issue.name, issue.reason) == ("train", "2007_a", reason)


def test_a_listed_name_without_files_is_an_issue_whose_advice_works(listed):
    listed.write("lists/val.txt", b"e\ngone\n")
    _, (issue,) = find_pairs(str(listed.root), described(FLAT, LISTS))
    assert (issue.split, issue.name, issue.file, issue.reason) == ("val", "gone", "lists/val.txt", IMAGE_MISSING)
    assert issue.expected == "an image at images/gone.png|jpg|jpeg|tif|tiff|bmp|webp and a mask at masks/gone.png"
    assert "`unpaired: ignore`" in advice([issue])

    pairs, issues = find_pairs(str(listed.root), described(FLAT, LISTS, "unpaired: ignore\n"))

    assert (len(pairs), issues) == (4, [])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"x/y.png\nz\n",
            r"lists/val.txt: no name in it has an image or a mask; found names such as 'x/y.png', .* '2007 b'",
        ),
        (b"\n", r"lists/val.txt: found no name; expected the names of the pairs of val"),
        (b"2007_a\n", r"lists/val.txt: '2007_a' is also in the list of train, train.txt"),
        (b"\xff\xfe", r"lists/val.txt: cannot be read: .* Copy the file there, or correct split_lists"),
    ],
)
def test_a_list_that_does_not_fit_is_named(listed, content, expected):
    listed.write("lists/val.txt", content)

    with pytest.raises(UsageError, match=expected):
        find_pairs(str(listed.root), described(FLAT, LISTS))


def test_a_list_that_is_not_there_is_named(listed):
    (listed.root / "train.txt").unlink()

    with pytest.raises(UsageError, match=r"train.txt: cannot be read: .*one a line, as split_lists of segpipe says"):
        find_pairs(str(listed.root), described(FLAT, LISTS))


def test_lists_lie_below_the_data_root():
    with pytest.raises(UsageError, match="split_lists: expected paths relative to the data root"):
        described(FLAT, "split_lists: {train: ../train.txt}\n")


@pytest.mark.parametrize("image_form", ["NFC", "NFD"])
def test_both_unicode_forms_of_a_name_belong_together(folder, image_form):
    other = {"NFC": "NFD", "NFD": "NFC"}[image_form]
    name = "Straße_é_1"
    assert unicodedata.normalize("NFD", name) != unicodedata.normalize("NFC", name)
    image, mask = unicodedata.normalize(image_form, name), unicodedata.normalize(other, name)
    folder.pair(f"images/{image}.png", f"masks/{mask}.png")
    folder.pair("images/b_1.png", "masks/b_1.png")
    folder.write("train.txt", f"{mask}\n".encode())
    folder.write("lists/val.txt", b"b_1\n")

    found = inspect(str(folder.root), described(FLAT, LISTS))

    assert (found.pairs, found.issues) == (2, ())
    (pair,) = [pair for pair in find_pairs(str(folder.root), described(FLAT, LISTS))[0] if pair.split == "train"]
    assert (pair.name, pair.image) == (unicodedata.normalize("NFC", name), f"images/{image}.png")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_unicode_form_of_folders_in_a_description_does_not_matter(folder, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    place, split = (unicodedata.normalize(form, text) for text in ("Höfe", "gültig"))
    folder.pair(f"{split}/{place}/a_1.png", f"{split}/{place}/a_1_mask.png")
    layout = 'layout: {images: "{split}/Höfe/{name}", masks: "{split}/Höfe/{name}_mask.png"}\nsplits: {val: gültig}\n'

    pairs, issues = find_pairs(str(folder.root), described(unicodedata.normalize(other, layout)))

    assert [(pair.split, pair.name) for pair in pairs] == [("val", "a_1")]
    assert issues == []


def test_listed_sequences_match_in_both_unicode_forms(folder):
    for name in ("Zürich_1", "Bern_1"):
        folder.pair(f"images/{unicodedata.normalize('NFD', name)}.png", f"masks/{name}.png")
    layout = FLAT.replace('sequence: "(.*)"\n', "")

    pairs, _ = find_pairs(str(folder.root), described(layout, "split_sequences: {val: [Zürich]}\n"))

    assert {pair.name: pair.split for pair in pairs} == {"Zürich_1": "val", "Bern_1": "train"}


@pytest.mark.parametrize("extension", ["tif", "bmp", "gif", "TIFF"])
def test_a_mask_in_another_format_is_named_and_converted_by_the_command_of_the_issue(folder, extension):
    kind = {"tif": "TIFF", "bmp": "BMP", "gif": "GIF", "TIFF": "TIFF"}[extension]
    for seed, name in enumerate(("a", "b", "it's c")):
        folder.save(f"images/{name}.png", random_image(seed))
        folder.write(f"masks/{name}.{extension}", encode(Image.fromarray(random_mask(seed)), kind))
    _, issues = find_pairs(str(folder.root), described(FLAT, BY_FRACTION))
    assert {issue.found for issue in issues} == {
        f"an image without a mask, but masks/{name}.{extension} is there" for name in ("a", "b", "it's c")
    }

    command = advice(issues).partition("in the data folder: ")[2]
    assert command.startswith("python -c ")
    words = shlex.split(command)
    subprocess.run([sys.executable, *words[1:]], cwd=folder.root, check=True)

    found = inspect(str(folder.root), described(FLAT, BY_FRACTION))
    assert (found.pairs, found.issues) == (3, ())
    total = sum(sum(split.class_pixels) for split in found.splits.values())
    ones = sum(split.class_pixels[1] for split in found.splits.values())
    assert (total, ones) == (3 * random_mask().size, sum(int(random_mask(seed).sum()) for seed in range(3)))


def test_a_mask_stored_as_jpeg_is_not_to_be_converted(folder):
    for name in "ab":
        folder.save(f"images/{name}.png", random_image())
        folder.save(f"masks/{name}.jpg", Image.fromarray(random_mask()))

    _, issues = find_pairs(str(folder.root), described(FLAT, BY_FRACTION))

    assert "export the mask again as PNG: JPEG has changed the class indices" in advice(issues)


def test_an_image_in_another_format_is_named_and_converted_by_the_command_of_the_issue(folder):
    for name in "ab":
        folder.write(f"images/{name}.gif", encode(random_image(), "GIF"))
        folder.save(f"masks/{name}.png", Image.fromarray(random_mask()))
    _, issues = find_pairs(str(folder.root), described(FLAT, BY_FRACTION))
    assert {issue.found for issue in issues} == {
        f"a mask without an image, but images/{name}.gif is there" for name in "ab"
    }

    words = shlex.split(advice(issues).partition("in the data folder: ")[2])
    subprocess.run([sys.executable, *words[1:]], cwd=folder.root, check=True)

    assert len(find_pairs(str(folder.root), described(FLAT, BY_FRACTION))[0]) == 2


@pytest.mark.parametrize(
    "layout",
    [FLAT.replace("images/{name}", "images/{name}.jpg"), FLAT.replace('.png"}', '.png", extensions: [jpg]}')],
)
def test_an_image_whose_extension_the_layout_leaves_out_is_accepted_as_the_issue_advises(folder, layout):
    for name in "ab":
        folder.pair(f"images/{name}.png", f"masks/{name}.png")
    _, issues = find_pairs(str(folder.root), described(layout, BY_FRACTION))
    action = advice(issues)
    assert "end layout.images in {name}, without an extension" in action
    assert "layout.extensions is set, add png to it" in action

    accepted = layout.replace("images/{name}.jpg", "images/{name}").replace("[jpg]", "[jpg, png]")

    assert len(find_pairs(str(folder.root), described(accepted, BY_FRACTION))[0]) == 2


def test_a_mask_in_another_format_in_the_folder_of_all_splits_is_named(folder):
    folder.pair("train/a.png", "masks/a.png")
    folder.save("val/b.png", random_image())
    folder.write("masks/b.bmp", encode(Image.fromarray(random_mask()), "BMP"))
    layout = 'layout: {images: "{split}/{name}", masks: "masks/{name}.png"}\n'

    _, (issue,) = find_pairs(str(folder.root), described(layout, SPLITS))

    assert (issue.split, issue.found) == ("val", "an image without a mask, but masks/b.bmp is there")
