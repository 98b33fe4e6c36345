"""Boundary IoU against the authors' definition, mask by mask and without their OpenCV."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.class_map import ClassMap
from components.metrics.boundary import band_width, boundary_counts, near_edges
from components.metrics.scores import iou

CLASS_MAP = ClassMap(
    ("sky", "road", "car", "tram", "void"),
    ((0, 0, 255), (99, 99, 99), (9, 9, 9), (0, 255, 0), (0, 0, 0)),
    ignore_index=4,
)


def mask_to_boundary(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of a mask, bool [H, W], near its edge.

    As `mask_to_boundary` in boundary_iou/utils/boundary_utils.py of github.com/bowenc0221/boundary-iou-api at 37d2558:
    the mask in a border of one empty pixel, eroded d times by a 3x3 kernel, is taken from the mask. OpenCV's `erode`
    ignores what lies outside the border.
    """
    height, width = mask.shape
    dilation = max(round(0.02 * np.sqrt(height**2 + width**2)), 1)
    eroded = np.pad(mask, 1)
    for _ in range(dilation):
        around = np.pad(eroded, 1, constant_values=True)
        places = [(row, column) for row in range(3) for column in range(3)]
        eroded = np.all([around[r : r + height + 2, c : c + width + 2] for r, c in places], axis=0)
    return mask & ~eroded[1:-1, 1:-1]


def blobs(shape: tuple[int, int], seed: int, classes: list[int]) -> np.ndarray:
    """Returns a mask of the areas nearest to random points, uint8 [H, W]."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, shape, (12, 2))
    rows, columns = np.indices(shape)
    nearest = np.argmin([np.hypot(rows - y, columns - x) for y, x in points], axis=0)
    return random.choice(classes, len(points))[nearest].astype(np.uint8)


@pytest.mark.parametrize("shape", [(60, 80), (97, 33), (128, 200), (5, 7), (1, 1)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_the_authors_code(shape, seed):
    truth = blobs(shape, seed, [0, 1, 2, 4])
    prediction = np.where(
        np.random.default_rng(seed).random(shape) < 0.02, 2, np.roll(blobs(shape, seed, [0, 1, 2]), 2, axis=0)
    )

    counts = boundary_counts(truth, prediction, CLASS_MAP)

    # The ignored pixels are cut out of both masks, so both end there.
    scored = truth != CLASS_MAP.ignore_index
    for place, index in enumerate(CLASS_MAP.scored_indices):
        true, predicted = (mask_to_boundary((mask == index) & scored) for mask in (truth, prediction))
        assert counts[:, place].tolist() == [(true & predicted).sum(), true.sum(), predicted.sum()]


def test_every_pixel_of_random_noise_is_near_an_edge():
    truth, prediction = np.random.default_rng(1).integers(0, 5, (2, 50, 50), np.uint8)

    counts = boundary_counts(truth, prediction, CLASS_MAP)

    scored = truth != 4
    assert counts[1].sum() == scored.sum()
    assert counts[0].sum() == (scored & (truth == prediction)).sum()


def test_all_256_classes_end_at_the_edge_of_the_image():
    for index in (0, 255):
        near = near_edges(np.full((9, 11), index, np.uint8), 2)
        assert near.sum() == 9 * 11 - 5 * 7


def test_predictions_in_an_ignored_area_have_no_effect():
    truth = blobs((60, 80), 5, [0, 1, 4])
    assert (truth == 4).any()
    prediction = blobs((60, 80), 6, [0, 1])
    other = np.where(truth == 4, 2, prediction)

    np.testing.assert_array_equal(
        boundary_counts(truth, prediction, CLASS_MAP), boundary_counts(truth, other, CLASS_MAP)
    )


def test_a_shifted_prediction_scores_far_below_its_iou():
    truth = np.zeros((300, 400), np.uint8)
    truth[100:250, 100:300] = 1
    shifted = np.roll(truth, 5, axis=1)

    assert iou(*boundary_counts(truth, truth, CLASS_MAP))[:2].tolist() == [1, 1]
    near_edge, whole = iou(*boundary_counts(truth, shifted, CLASS_MAP))[1], 195 / 205
    assert near_edge < 0.7 < whole
    assert math.isnan(iou(*boundary_counts(truth, shifted, CLASS_MAP))[2])


@pytest.mark.parametrize(("size", "width"), [((360, 480), 12), ((10, 10), 1), ((1024, 2048), 46)], ids=str)
def test_the_band_is_2_percent_of_the_diagonal(size, width):
    assert band_width(*size) == width
