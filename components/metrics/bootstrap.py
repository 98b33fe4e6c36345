"""Compute 95 % intervals of the scores by a Poisson bootstrap over images, and of the paired change to a baseline.

A bootstrap scores many resamples of the images, each drawn with replacement. Here each image gets a weight from
Poisson(1) in every resample instead, so the resamples can be summed while images stream past (Hanley and MacGibbon,
Creating non-parametric bootstrap samples using Poisson frequencies, Computer Methods and Programs in Biomedicine 2006;
Chamandy et al., Estimating Uncertainty for Massive Data Streams, Google 2012). The scores of masks are functions of
three counts a class, so the sums hold `RESAMPLES` x 3 x classes numbers for any number of images: 264 kB for 11
classes, 6 MB for 255. Average precision is not a function of sums: see `average_precision.py`.

The weights are seeded by a hash of the image, so two models see the same resamples. The difference of their scores,
resample by resample, is the paired bootstrap of the change. Identical images get the same weights.

The interval is the percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). It
covers the choice of images only, not the seed of the training. It is too narrow for a few images, and for neighbouring
frames of a video, which are not independent.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

RESAMPLES = 1000
_TAIL = 0.025

Interval = tuple[float, float]
# Scores by metric name, `class_iou/<class name>` included, float64 [RESAMPLES] each; NaN if undefined.
Resampled = dict[str, np.ndarray]


def poisson_weights(image: bytes) -> np.ndarray:
    """Returns an image's weight in each resample, int64 [RESAMPLES], the same for the same bytes."""
    seed = int.from_bytes(hashlib.blake2b(image, digest_size=16).digest(), "big")
    return np.random.Generator(np.random.PCG64(seed)).poisson(1.0, RESAMPLES).astype(np.int64)


def interval(values: np.ndarray, comparisons: int = 1) -> Interval:
    """Returns the central 95 % of the values that are not NaN; (NaN, NaN) if all are.

    With several comparisons the interval is wider, so that 95 % holds for all of them together (Bonferroni's
    inequality). `RESAMPLES` values resolve 25 comparisons; with more, the interval ends near the extreme values.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, (_TAIL / comparisons, 1 - _TAIL / comparisons))
    return float(low), float(high)


def score_intervals(resampled: Resampled) -> dict[str, Interval]:
    """Returns the 95 % interval of each score by metric name."""
    return {name: interval(values) for name, values in resampled.items()}


def change_intervals(candidate: Resampled, baseline: Resampled, jointly: bool = False) -> dict[str, Interval]:
    """Returns the 95 % interval of each score's change, candidate minus baseline, by metric name.

    Args:
        candidate: the candidate's scores of every resample.
        baseline: the baseline's, on the same images.
        jointly: widen the intervals of the classes so that 95 % holds for all classes together. The gate compares
            every class; with 11 classes, one in four equal models would otherwise seem worse in one class by chance.
    """
    classes = {name.partition("/")[2] for name in candidate} - {""}
    joint = len(classes) if jointly else 1
    return {name: interval(after - baseline[name], joint if "/" in name else 1) for name, after in candidate.items()}


def counted_change(change: float, bounds: Interval, significant_only: bool, lower_is_better: bool = False) -> float:
    """Returns the change that the gate compares with its bound.

    Args:
        change: the score minus the baseline's; NaN for a class without a true pixel, which cannot drop.
        bounds: the interval of the change.
        significant_only: count a drop only if its whole interval is below 0.
        lower_is_better: whether the score is an error, whose rise counts as a drop.

    Returns:
        The change, or 0 if it is undefined or a drop that does not count.
    """
    if lower_is_better:
        return -counted_change(-change, (-bounds[1], -bounds[0]), significant_only)
    if math.isnan(change) or (significant_only and change < 0 <= bounds[1]):
        return 0.0
    return change
