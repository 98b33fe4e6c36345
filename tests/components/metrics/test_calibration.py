"""Calibration against Guo et al.'s equations, pixel by pixel, and models whose calibration is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.class_map import ClassMap
from components.metrics.calibration import BINS, calibration_counts, expected_calibration_error, reliability

CLASS_MAP = ClassMap(("sky", "road", "void"), ((0, 0, 255), (99, 99, 99), (0, 0, 0)), ignore_index=2)


def random_image(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns truth, prediction and confidence, uint8 [30, 41]."""
    random = np.random.default_rng(seed)
    truth, prediction = random.integers(0, 3, (2, 30, 41), np.uint8)
    return truth, prediction, random.integers(0, 256, truth.shape, np.uint8)


def naive_bins(truth: np.ndarray, prediction: np.ndarray, confidence: np.ndarray) -> list[list[tuple[bool, float]]]:
    """Returns (hit, confidence) of the scored pixels by bin; bin m holds the interval (m / BINS, (m + 1) / BINS]."""
    bins: list[list[tuple[bool, float]]] = [[] for _ in range(BINS)]
    for true, predicted, level in zip(truth.flat, prediction.flat, confidence.flat, strict=True):
        if true != CLASS_MAP.ignore_index:
            place = next(m for m in range(BINS) if int(level) * BINS <= (m + 1) * 255)
            bins[place].append((bool(true == predicted), int(level) / 255))
    return bins


@pytest.mark.parametrize("seed", range(5))
def test_bins_and_error_equal_the_equations(seed):
    truth, prediction, confidence = random_image(seed)

    counts = calibration_counts(truth, prediction, confidence, CLASS_MAP)

    bins = naive_bins(truth, prediction, confidence)
    scored = sum(len(each) for each in bins)
    error = 0.0
    for found, pixels in zip(reliability(counts), bins, strict=True):
        hits, confidences = zip(*pixels, strict=True)
        assert (found.pixels, found.hits) == (len(pixels), sum(hits))
        assert found.accuracy == pytest.approx(np.mean(hits))
        assert found.confidence == pytest.approx(np.mean(confidences))
        error += len(pixels) / scored * abs(np.mean(hits) - np.mean(confidences))
    assert counts.dtype == np.int64
    assert expected_calibration_error(counts) == pytest.approx(error)


def test_every_level_is_in_the_right_bin():
    levels = np.arange(256, dtype=np.uint8)[np.newaxis]
    pixels = calibration_counts(np.zeros_like(levels), np.zeros_like(levels), levels, CLASS_MAP)[:, 0]

    assert pixels.tolist() == [18] + [17] * (BINS - 1)


def sure_and_right(confidence: float, accuracy: float) -> np.ndarray:
    """Returns the counts of 10,000 pixels, all predicted with one confidence, of which a given fraction is right."""
    truth = np.zeros((100, 100), np.uint8)
    prediction = (np.arange(10_000).reshape(100, 100) >= 10_000 * accuracy).astype(np.uint8)
    level = np.full(truth.shape, round(255 * confidence), np.uint8)
    return calibration_counts(truth, prediction, level, CLASS_MAP)


def test_a_calibrated_model_has_no_error_and_an_overconfident_one_has_the_difference():
    calibrated = sure_and_right(0.8, 0.8) + sure_and_right(0.6, 0.6) + sure_and_right(1.0, 1.0)
    overconfident = sure_and_right(1.0, 0.7)

    assert expected_calibration_error(calibrated) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(overconfident) == pytest.approx(0.3)
    (full,) = (each for each in reliability(overconfident) if each.pixels)
    assert (full.confidence, full.accuracy) == (1.0, 0.7)


def test_eight_bits_shift_the_error_by_at_most_half_a_level():
    """Confidences drawn so that the model is calibrated exactly, before they are rounded."""
    random = np.random.default_rng(7)
    exact = random.uniform(0.4, 1, 200_000)
    hits = random.random(exact.size) < exact
    places = np.ceil(exact * BINS).astype(int) - 1
    error = sum(abs((hits - exact)[places == m].sum()) for m in range(BINS)) / exact.size

    levels = np.round(255 * exact).astype(np.uint8)[np.newaxis]
    counts = calibration_counts(np.zeros_like(levels), (~hits[np.newaxis]).astype(np.uint8), levels, CLASS_MAP)

    assert expected_calibration_error(counts) == pytest.approx(error, abs=1 / 510)


def test_a_model_without_confidence_has_no_calibration():
    truth, prediction, _ = random_image(0)

    counts = calibration_counts(truth, prediction, None, CLASS_MAP)

    assert math.isnan(expected_calibration_error(counts))
    assert reliability(counts) == ()


def test_a_confidence_of_another_size_is_rejected():
    truth, prediction, confidence = random_image(0)

    with pytest.raises(ValueError, match=r"confidence has shape \(29, 41\), truth \(30, 41\)"):
        calibration_counts(truth, prediction, confidence[1:], CLASS_MAP)
