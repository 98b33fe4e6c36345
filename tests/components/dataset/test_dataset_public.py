"""Public data sets are recognised in their original layout, or by name; the files are synthetic."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from dataset_folder import HEIGHT, WIDTH, Folder, content_fingerprint, random_image
from PIL import Image

from components.dataset.checks import Sample, read_pair
from components.dataset.description import built_in, detect, load
from components.dataset.inspection import inspect
from components.dataset.pairs import find_pairs
from components.errors import UsageError


def mask_of(values: list[int]) -> np.ndarray:
    """A mask of rows of these values."""
    return np.repeat(np.resize(np.array(values, np.uint8), HEIGHT)[:, None], WIDTH, axis=1)


def write(folder: Folder, image: str, mask: str, values: list[int], palette: bool = False) -> None:
    folder.save(image, random_image(zlib.crc32(image.encode())))
    stored = Image.fromarray(mask_of(values))
    if palette:
        stored.putpalette([255 - i // 3 for i in range(768)])
    folder.save(mask, stored)


def cityscapes(folder: Folder) -> None:
    """Masks of label ids beside what comes with them; the masks of test hold no classes."""
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "frankfurt"), ("test", "berlin")):
        name = f"{split}/{city}/{city}_000000_000019"
        values = [0, 3] if split == "test" else [7, 26, 33, 4, 29]
        write(folder, f"leftImg8bit/{name}_leftImg8bit.png", f"gtFine/{name}_gtFine_labelIds.png", values)
        folder.save(f"gtFine/{name}_gtFine_color.png", random_image())
        # Two cars side by side, a group of bicycles, and an id of a class that the benchmark leaves out, caravan.
        ids = mask_of(values).astype(np.uint16)
        ids[ids == 26] = 26000
        ids[:, WIDTH // 2 :][ids[:, WIDTH // 2 :] == 26000] = 26001
        ids[ids == 29] = 29000
        folder.save(f"gtFine/{name}_gtFine_instanceIds.png", Image.fromarray(ids))
        folder.write(f"gtFine/{name}_gtFine_polygons.json", b"{}")


def cityscapes_train_ids(folder: Folder) -> None:
    for split, city in (("train", "aachen"), ("val", "frankfurt")):
        name = f"{split}/{city}/{city}_000000_000019"
        write(
            folder,
            f"leftImg8bit/{name}_leftImg8bit.png",
            f"gtFine/{name}_gtFine_labelTrainIds.png",
            [0, 13, 18, 255, 255],
        )


def pascal_voc(folder: Folder) -> None:
    """All photos, palette masks of some of them, and the lists of those."""
    for name in ("2007_000032", "2008_000008", "2010_000001"):
        write(folder, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", [0, 1, 20, 255], palette=True)
        folder.save(f"SegmentationObject/{name}.png", Image.fromarray(mask_of([0, 1, 2])))
    for name in ("2007_000027", "2012_004331"):
        folder.save(f"JPEGImages/{name}.jpg", random_image())
    folder.write("ImageSets/Segmentation/train.txt", b"2007_000032\n2008_000008\n")
    folder.write("ImageSets/Segmentation/val.txt", b"2010_000001\n")
    folder.write("ImageSets/Segmentation/trainval.txt", b"2007_000032\n2008_000008\n2010_000001\n")
    folder.write("ImageSets/Main/aeroplane_train.txt", b"2007_000027 -1\n2007_000032  1\n")


def ade20k(folder: Folder) -> None:
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        write(folder, f"images/{split}/{name}.jpg", f"annotations/{split}/{name}.png", [0, 1, 150])


def oxford_pets(folder: Folder) -> None:
    """Lists with class numbers behind the names, and what macOS left in the archive of the trimaps."""
    for name in ("Abyssinian_100", "english_cocker_spaniel_1", "Abyssinian_201"):
        write(folder, f"images/{name}.jpg", f"annotations/trimaps/{name}.png", [1, 2, 3])
    folder.write("annotations/trimaps/._Abyssinian_100.png", b"-")
    folder.write("images/Abyssinian_100.mat", b"-")
    folder.write("annotations/list.txt", b"#Image CLASS-ID SPECIES BREED ID\nAbyssinian_100 1 1 1\n")
    folder.write("annotations/trainval.txt", b"Abyssinian_100 1 1 1\nenglish_cocker_spaniel_1 13 2 7\n")
    folder.write("annotations/test.txt", b"Abyssinian_201 1 1 1\n")


def bdd100k(folder: Folder) -> None:
    for split, name in (("train", "0004a4c0-d4dff0ad"), ("val", "7d2f7975-e0c1c5a7")):
        write(folder, f"images/10k/{split}/{name}.jpg", f"labels/sem_seg/masks/{split}/{name}.png", [0, 18, 255])
        folder.save(f"labels/sem_seg/colormaps/{split}/{name}.png", random_image())
    folder.save("images/10k/test/ac6d4f42-00000000.jpg", random_image())


def kitti_semantic(folder: Folder) -> None:
    for number in range(5):
        name = f"{number:06}_10.png"
        write(folder, f"training/image_2/{name}", f"training/semantic/{name}", [7, 26, 4])
        folder.save(f"training/semantic_rgb/{name}", random_image())
        folder.save(f"testing/image_2/{name}", random_image())


@pytest.mark.parametrize(
    ("make", "train", "val", "values"),
    [
        (cityscapes, 2, 1, {7: "road", 26: "car", 33: "bicycle", 4: "void", 29: "void"}),
        (cityscapes_train_ids, 1, 1, {0: "road", 13: "car", 18: "bicycle", 255: "void"}),
        (pascal_voc, 2, 1, {0: "background", 1: "aeroplane", 20: "tvmonitor", 255: "void"}),
        (ade20k, 1, 1, {0: "other", 1: "wall", 150: "flag"}),
        (oxford_pets, 2, 1, {1: "pet", 2: "background", 3: "not_classified"}),
        (bdd100k, 1, 1, {0: "road", 18: "bicycle", 255: "void"}),
        (kitti_semantic, 4, 1, {7: "road", 26: "car", 4: "void"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_public_data_set_is_recognised_and_read(folder, make, train, val, values):
    make(folder)

    described = detect(str(folder.root))
    found = inspect(str(folder.root), described)

    assert described == load(make.__name__)
    assert found.issues == ()
    assert {name: split.pairs for name, split in found.splits.items()} == {"train": train, "val": val}
    assert not any("leak" in warning for warning in found.warnings)
    shown = {name for name, pixels in zip(found.class_names, found.splits["train"].class_pixels, strict=True) if pixels}
    assert shown == set(values.values())
    assert {value: found.class_names[described.index_of_value()[value]] for value in values} == values
    assert described.ignore in found.class_names


@pytest.mark.parametrize("make", [cityscapes, ade20k, oxford_pets])
def test_what_is_stored_are_indices_from_0(folder, make):
    make(folder)
    described = load(make.__name__)

    pairs, _ = find_pairs(str(folder.root), described)
    sample = read_pair(str(folder.root), pairs[0], described)

    assert isinstance(sample, Sample)
    stored = np.asarray(Image.open(io.BytesIO(sample.mask)))
    assert stored.max() < len(described.classes)
    assert np.bincount(stored.ravel(), minlength=len(described.classes)).tolist() == sample.class_pixels.tolist()


def test_the_outline_of_pets_is_a_class_if_its_description_is_named(folder):
    oxford_pets(folder)
    described = load("oxford_pets_outline")

    found = inspect(str(folder.root), described)

    assert found.issues == ()
    assert {name: split.pairs for name, split in found.splits.items()} == {"train": 2, "val": 1}
    assert described.class_map.scored_names == ("background", "pet", "outline")
    assert described.index_of_value() == {2: 0, 1: 1, 3: 2}
    assert all(found.splits["train"].class_pixels)


def test_cityscapes_ids_are_instances_of_the_scored_classes_and_a_plain_value_is_a_crowd(folder):
    cityscapes(folder)
    described = detect(str(folder.root))
    pairs, _ = find_pairs(str(folder.root), described)

    found = read_pair(str(folder.root), pairs[0], described).instances

    names = [described.classes[index].name for index in found.classes]
    assert list(zip(names, found.crowd.tolist(), strict=True)) == [("bicycle", True), ("car", False), ("car", False)]
    bicycles, left, right = found.masks
    car = mask_of([7, 26, 33, 4, 29]) == 26
    middle = np.arange(WIDTH) < WIDTH // 2
    np.testing.assert_array_equal(bicycles, mask_of([7, 26, 33, 4, 29]) == 33)
    np.testing.assert_array_equal(left, car & middle)
    np.testing.assert_array_equal(right, car & ~middle)


def test_label_ids_come_before_train_ids(folder):
    cityscapes(folder)
    cityscapes_train_ids(folder)

    assert detect(str(folder.root)).name == "cityscapes"
    found = inspect(str(folder.root), load("cityscapes_train_ids"))
    assert {(issue.name, issue.reason) for issue in found.issues} == {("bochum_000000_000019", "mask_missing")}


def test_all_values_that_cityscapes_defines_are_named():
    """Ids 0 to 33, and 255 with the train ids 0 to 18 (labels.py)."""
    assert set(built_in("cityscapes").index_of_value()) == set(range(34))
    assert set(built_in("cityscapes_train_ids").index_of_value()) == {*range(19), 255}
    assert built_in("cityscapes").class_map == built_in("cityscapes_train_ids").class_map


def test_vocs_colours_are_those_of_its_colour_map():
    """Bits 0, 3 and 6 of an index are the highest of red, 1, 4 and 7 of green, 2 and 5 of blue (VOClabelcolormap)."""

    def color(index: int) -> tuple[int, ...]:
        return tuple(sum(((index >> 3 * i + c) & 1) << 7 - i for i in range(8)) for c in range(3))

    described = built_in("pascal_voc")
    values = {position: described.values_of(position)[0] for position in range(len(described.classes))}

    assert [item.color for item in described.classes] == [color(values[i]) for i in values]


def test_the_fingerprint_follows_the_lists(folder):
    pascal_voc(folder)
    before = content_fingerprint(str(folder.root), built_in("pascal_voc"))

    folder.write("ImageSets/Segmentation/val.txt", b"2008_000008\n")

    assert content_fingerprint(str(folder.root), built_in("pascal_voc")) != before


@pytest.mark.parametrize("gone", ["ImageSets/Segmentation/val.txt", "ImageSets/Main/aeroplane_train.txt"])
def test_other_data_in_vocs_layout_is_not_taken_for_voc(folder, gone):
    pascal_voc(folder)
    (folder.root / gone).unlink()

    with pytest.raises(UsageError, match=rf"pascal_voc: JPEGImages/ with SegmentationClass/, .*{gone}"):
        detect(str(folder.root))


def test_other_data_in_ade20ks_folders_is_not_taken_for_ade20k(folder):
    write(folder, "images/training/a_1.jpg", "annotations/training/a_1.png", [0, 1])

    with pytest.raises(UsageError, match="ade20k: images/training/ with annotations/training/"):
        detect(str(folder.root))


def test_voc_without_its_class_lists_is_read_by_name_as_the_error_advises(folder):
    pascal_voc(folder)
    (folder.root / "ImageSets/Main/aeroplane_train.txt").unlink()
    with pytest.raises(UsageError, match=r"name one of them as data\.description"):
        detect(str(folder.root))

    assert inspect(str(folder.root), load("pascal_voc")).pairs == 3
