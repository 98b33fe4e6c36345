"""The inspection counts pairs and issues, and warns of leaks."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dataset_folder import HEIGHT, WIDTH
from PIL import Image

from components.dataset.description import detect
from components.dataset.inspection import inspect
from components.dataset.pairs import EMPTY, MASK_MISSING


@pytest.fixture
def small(folder):
    """Two sequences in train, one of them in val too, all sound."""
    for seed, name in enumerate(["a_1", "a_2", "b_1"]):
        folder.pair(f"train/images/{name}.png", f"train/masks/{name}.png", seed)
    folder.pair("val/images/b_2.png", "val/masks/b_2.png", 7, (HEIGHT * 2, WIDTH))
    return folder


def test_it_counts_pairs_sequences_sizes_and_classes(small, tiny):
    found = inspect(str(small.root), tiny)

    assert found.pairs == 4
    assert list(found.splits) == ["train", "val"]
    train = found.splits["train"]
    assert train.sequences == {"a": 2, "b": 1}
    assert train.sizes == {(HEIGHT, WIDTH): 3}
    assert sum(train.class_pixels) == 3 * HEIGHT * WIDTH
    assert sum(train.class_fractions) == pytest.approx(1)
    assert found.splits["val"].sizes == {(HEIGHT * 2, WIDTH): 1}
    assert found.quarantined_fraction == 0


def test_it_collects_issues_of_names_and_of_content(small, tiny):
    small.write("train/images/c_1.png", b"-")
    small.write("val/masks/b_2.png", b"")

    found = inspect(str(small.root), tiny)

    assert {(issue.split, issue.name, issue.reason) for issue in found.issues} == {
        ("train", "c_1", MASK_MISSING),
        ("val", "b_2", EMPTY),
    }
    assert found.splits["train"].quarantined == {MASK_MISSING: 1}
    assert found.splits["val"].pairs == 0
    assert found.quarantined_fraction == pytest.approx(2 / 5)


@pytest.mark.parametrize("kinds", [("images", "masks"), ("images",)], ids=["same mask", "another mask"])
def test_an_image_in_two_splits_is_called_a_leak(small, tiny, kinds):
    small.pair("val/images/c_9.png", "val/masks/c_9.png", 9)
    for kind in kinds:
        shutil.copy(small.root / f"train/{kind}/a_1.png", small.root / f"val/{kind}/c_9.png")

    warnings = inspect(str(small.root), tiny).warnings

    assert any("leak: 1 images" in warning and "train/a_1 = val/c_9" in warning for warning in warnings)


def test_a_pair_twice_in_one_split_is_mentioned(small, tiny):
    for kind in ("images", "masks"):
        shutil.copy(small.root / f"train/{kind}/a_1.png", small.root / f"train/{kind}/a_9.png")

    warnings = inspect(str(small.root), tiny).warnings

    assert any("in one split more than once: train/a_1 = train/a_9" in warning for warning in warnings)
    assert not any("leak" in warning for warning in warnings)


def test_a_near_duplicate_in_another_split_is_a_warning_and_not_a_leak(small, tiny):
    image = np.asarray(Image.open(small.root / "train/images/a_1.png")).copy()
    image[0, 0] ^= 1
    small.save("val/images/c_9.png", Image.fromarray(image))
    shutil.copy(small.root / "train/masks/a_1.png", small.root / "val/masks/c_9.png")

    found = inspect(str(small.root), tiny)

    assert any("1 images are nearly the same" in text and "val/c_9 ~ train/a_1" in text for text in found.warnings)
    assert not any("leak" in warning for warning in found.warnings)
    (pair,) = found.to_dict()["similar_images"]
    assert (pair["split"], pair["name"], pair["other_split"], pair["other_name"]) == ("val", "c_9", "train", "a_1")


def test_a_sequence_in_two_splits_and_a_class_train_lacks_are_warnings(folder, tiny):
    for split, value in (("train", 0), ("val", 1)):
        folder.pair(f"{split}/images/a_{value}.png", f"{split}/masks/a_{value}.png", value)
        folder.save(f"{split}/masks/a_{value}.png", Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint8)))

    warnings = inspect(str(folder.root), tiny.model_copy(update={"ignore": None})).warnings

    assert any("sequence a is in the splits train, val" in warning for warning in warnings)
    assert any("no pixel of train shows void" in warning for warning in warnings)
    # What is ignored need not be learned.
    assert not any("no pixel of train" in warning for warning in inspect(str(folder.root), tiny).warnings)


def test_a_split_without_a_pixel_that_counts_is_named_with_the_classes(folder, tiny):
    for split, value in (("train", 0), ("val", 1)):
        folder.pair(f"{split}/images/{split}_1.png", f"{split}/masks/{split}_1.png", value)
        folder.save(f"{split}/masks/{split}_1.png", Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint8)))

    (warning,) = inspect(str(folder.root), tiny).warnings

    assert warning.startswith("no pixel of val shows road: all its pixels are ignored")


def test_progress_ends_at_the_number_of_pairs(small, tiny):
    calls = []

    inspect(str(small.root), tiny, on_progress=lambda done, total: calls.append((done, total)))

    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_dictionary_is_json(small, tiny):
    small.write("train/images/c_1.png", b"-")

    read_back = json.loads(json.dumps(inspect(str(small.root), tiny).to_dict()))

    assert read_back["splits"]["train"]["sizes"] == {"16x24": 3}
    assert read_back["issues"][0]["reason"] == MASK_MISSING
    assert set(read_back["splits"]["val"]["class_fractions"]) == {"road", "void"}


def test_an_empty_data_set_is_surveyed(folder, tiny):
    found = inspect(str(folder.root), tiny)

    assert (found.pairs, found.quarantined_fraction, found.splits) == (0, 0, {})


def test_real_camvid(real_camvid):
    found = inspect(str(real_camvid), detect(str(real_camvid)))

    assert (found.splits["train"].pairs, found.splits["val"].pairs) == (367, 101)
    assert found.splits["train"].sequences == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert any("0016E5" in warning for warning in found.warnings)
    assert not any("leak" in warning for warning in found.warnings)
