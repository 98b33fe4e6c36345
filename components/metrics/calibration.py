"""Compute calibration: whether a model with a confidence of 80 % is right in 80 % of its pixels.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (arXiv 1706.04599), section 2. The bins are
equations 1 and 2, the expected calibration error is equation 3.

The confidence is rounded to 8-bit levels, an error of at most 1/510 = 0.002. A bin is 1/15 wide and holds 17 levels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from components.class_map import ClassMap
from components.metrics.scores import or_null, ratio

BINS = 15
_LEVELS = 255


@dataclasses.dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram.

    Attributes:
        pixels: scored pixels whose confidence lies in the bin.
        hits: those whose class is right.
        confidence: their mean confidence, 0 to 1; None without pixels.
        accuracy: hits / pixels; None without pixels.
    """

    pixels: int
    hits: int
    confidence: float | None
    accuracy: float | None


def calibration_counts(
    truth: np.ndarray, prediction: np.ndarray, confidence: np.ndarray | None, class_map: ClassMap
) -> np.ndarray:
    """Counts the scored pixels by confidence.

    Args:
        truth: class indices, uint8 [H, W].
        prediction: class indices, uint8 [H, W].
        confidence: probability of the predicted class, uint8 [H, W], 0 to 255 for 0 to 1; None if the model returns
            none.
        class_map: the classes; pixels of the ignored class are not counted.

    Returns:
        Pixels, hits and the sum of the levels, int64 [BINS, 3]. Bin m holds the confidences above m / BINS, up
        to (m + 1) / BINS; the first bin holds 0 too. All 0 without confidence.

    Raises:
        ValueError: the confidence has another shape than the truth.
    """
    if confidence is None:
        return np.zeros((BINS, 3), np.int64)
    if confidence.shape != truth.shape:
        raise ValueError(
            f"calibration: confidence has shape {confidence.shape}, truth {truth.shape}; "
            "the model must return the confidence at the image's own size"
        )
    kinds = 2 * confidence.astype(np.intp) + (truth == prediction)
    if class_map.ignore_index is not None:
        kinds = kinds[truth != class_map.ignore_index]
    missed, hits = np.bincount(kinds.ravel(), minlength=2 * (_LEVELS + 1)).reshape(-1, 2).T
    pixels = missed + hits
    by_level = np.stack([pixels, hits, pixels * np.arange(_LEVELS + 1)], axis=-1)
    by_level[1] += by_level[0]
    return by_level[1:].reshape(BINS, _LEVELS // BINS, 3).sum(axis=1)


def expected_calibration_error(counts: np.ndarray) -> float:
    """Returns the mean over pixels of |accuracy - confidence| of their bin, 0 to 1; NaN without pixels.

    Args:
        counts: what `calibration_counts` returns, summed over images.
    """
    pixels, hits, levels = np.asarray(counts).T
    return float(ratio(np.abs(hits - levels / _LEVELS).sum(), pixels.sum()))


def reliability(counts: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Returns the bins of a reliability diagram, the least confident first; empty without pixels.

    Args:
        counts: what `calibration_counts` returns, summed over images.
    """
    pixels, hits, levels = np.asarray(counts).T
    if not pixels.any():
        return ()
    columns = pixels, hits, ratio(levels / _LEVELS, pixels), ratio(hits, pixels)
    return tuple(
        ReliabilityBin(pixels, hits, or_null(confidence), or_null(accuracy))
        for pixels, hits, confidence, accuracy in zip(*(column.tolist() for column in columns), strict=True)
    )
