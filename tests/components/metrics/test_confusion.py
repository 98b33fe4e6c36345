"""Counting pixels, and decoding the masks that are counted."""

from __future__ import annotations

import io

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from components.errors import DataRejectedError
from components.metrics.confusion import confusion_matrix, decode_mask

NUM_CLASSES = 5
masks = hnp.arrays(np.uint8, st.just((4, 6)), elements=st.integers(0, NUM_CLASSES - 1))
mask_pairs = st.lists(st.tuples(masks, masks), min_size=1, max_size=5)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_rows_are_the_truth_and_columns_the_prediction():
    truth = np.array([[0, 0, 1]], dtype=np.uint8)
    prediction = np.array([[0, 2, 1]], dtype=np.uint8)

    matrix = confusion_matrix(truth, prediction, 3)

    np.testing.assert_array_equal(matrix, [[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert matrix.dtype == np.int64


@given(masks, masks)
def test_agrees_with_scikit_learn(truth, prediction):
    expected = sklearn.metrics.confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(NUM_CLASSES))
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, NUM_CLASSES), expected)


@given(mask_pairs, st.randoms())
def test_the_order_of_frames_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(
        sum(confusion_matrix(*pair, NUM_CLASSES) for pair in shuffled),
        sum(confusion_matrix(*pair, NUM_CLASSES) for pair in pairs),
    )


@given(mask_pairs)
def test_counts_of_frames_add_up(pairs):
    truth, prediction = (np.concatenate(side) for side in zip(*pairs, strict=True))
    apart = sum(confusion_matrix(*pair, NUM_CLASSES) for pair in pairs)
    np.testing.assert_array_equal(apart, confusion_matrix(truth, prediction, NUM_CLASSES))


def test_256_classes_fit():
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(confusion_matrix(mask, mask, 256), np.eye(256, dtype=np.int64))


def test_masks_of_different_sizes_are_rejected():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        confusion_matrix(np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)


@pytest.mark.parametrize("what", ["truth", "prediction"])
def test_an_index_outside_the_class_map_is_rejected(what):
    inside, outside = np.array([[0, 1]], np.uint8), np.array([[0, 7]], np.uint8)
    with pytest.raises(ValueError, match=f"{what} holds class indices 0 to 7, expected 0 to 2"):
        confusion_matrix(*((outside, inside) if what == "truth" else (inside, outside)), 3)


def test_a_negative_index_is_rejected():
    with pytest.raises(ValueError, match="-1 to 0"):
        confusion_matrix(np.array([[-1, 0]]), np.array([[0, 0]]), 3)


@given(masks)
def test_a_grey_png_decodes_to_its_indices(mask):
    decoded = decode_mask(png(Image.fromarray(mask)))
    np.testing.assert_array_equal(decoded, mask)
    assert decoded.dtype == np.uint8


def test_a_colour_mask_is_rejected():
    with pytest.raises(DataRejectedError, match="mode RGB, expected 8-bit grey"):
        decode_mask(png(Image.new("RGB", (2, 2))))


@pytest.mark.parametrize("cut", [0, 10, -200])
def test_a_damaged_mask_is_rejected(cut):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    with pytest.raises(DataRejectedError, match="do not decode"):
        decode_mask(png(Image.fromarray(noise))[:cut])
