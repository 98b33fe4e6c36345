"""Scores by object size against objects that are found pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from components.class_map import ClassMap
from components.metrics.confusion import confusion_matrix
from components.metrics.object_sizes import SIZES, SizeScore, object_counts, size_scores

CLASS_MAP = ClassMap(
    ("sky", "road", "car", "tram", "void"),
    ((0, 0, 255), (99, 99, 99), (9, 9, 9), (0, 255, 0), (0, 0, 0)),
    ignore_index=4,
)


def naive_objects(mask: np.ndarray) -> list[tuple[int, list[tuple[int, int]]]]:
    """Returns each object's class and pixels: those reached from a pixel by steps to the eight around it."""
    seen: set[tuple[int, int]] = set()
    objects = []
    for start in np.ndindex(mask.shape):
        if start in seen:
            continue
        pixels, waiting = [], [start]
        seen.add(start)
        while waiting:
            row, column = waiting.pop()
            pixels.append((row, column))
            for near in ((row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)):
                inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                if inside and near not in seen and mask[near] == mask[start]:
                    seen.add(near)
                    waiting.append(near)
        objects.append((int(mask[start]), pixels))
    return objects


def random_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns truth and prediction, uint8 [40, 60]: squares of many sizes, and pixels of noise."""
    random = np.random.default_rng(seed)
    truth = np.zeros((40, 60), np.uint8)
    for side in (20, 12, 9, 6, 3, 2, 1, 1, 5, 8):
        row, column = random.integers(0, (40 - side, 60 - side))
        truth[row : row + side, column : column + side] = random.choice([1, 2, 4])
    return truth, np.where(random.random(truth.shape) < 0.3, random.integers(0, 5, truth.shape), truth).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_a_flood_fill(seed):
    truth, prediction = random_masks(seed)
    expected = np.zeros((4, len(SIZES), 3), int)
    for index, pixels in naive_objects(truth):
        if index != CLASS_MAP.ignore_index:
            area = len(pixels) / truth.size
            size = 0 if area < 1024 / 307200 else 1 if area < 9216 / 307200 else 2
            expected[index, size] += 1, len(pixels), sum(prediction[pixel] == index for pixel in pixels)

    counts = object_counts(truth, prediction, CLASS_MAP)

    np.testing.assert_array_equal(counts, expected)
    assert counts.sum(axis=0)[:, 0].all()
    matrix = confusion_matrix(truth, prediction, 5)
    np.testing.assert_array_equal(counts[..., 1].sum(axis=1), matrix.sum(axis=1)[:4])
    np.testing.assert_array_equal(counts[..., 2].sum(axis=1), matrix.diagonal()[:4])


@pytest.mark.parametrize(("side", "size"), [(31, "small"), (32, "medium"), (95, "medium"), (96, "large")])
def test_bounds_equal_coco_in_an_image_of_640x480(side, size):
    truth = np.full((480, 640), 4, np.uint8)
    truth[100 : 100 + side, 200 : 200 + side] = 2

    counts = object_counts(truth, np.where(truth == 2, 2, 0), CLASS_MAP)

    scores = size_scores(counts.sum(axis=0))
    assert scores.pop(size) == SizeScore(objects=1, pixels=side * side, recall=1.0)
    assert set(scores.values()) == {SizeScore(objects=0, pixels=0, recall=None)}


def test_the_same_scene_in_a_larger_image_has_the_same_sizes():
    truth, prediction = random_masks(3)

    doubled = object_counts(*(np.kron(mask, np.ones((2, 2), np.uint8)) for mask in (truth, prediction)), CLASS_MAP)

    np.testing.assert_array_equal(doubled, object_counts(truth, prediction, CLASS_MAP) * [1, 4, 4])


def test_256_classes_fit():
    names = tuple(str(index) for index in range(256))
    truth = np.array([[0, 255], [255, 0]], np.uint8)

    counts = object_counts(truth, truth, ClassMap(names, ((0, 0, 0),) * 256))

    assert counts[[0, 255], 2].tolist() == [[1, 2, 2], [1, 2, 2]]
