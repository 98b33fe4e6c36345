"""95 % intervals of the scores by a Poisson bootstrap over images, and the paired change against a baseline.

A bootstrap scores many resamples of the images, each drawn with replacement. Here a resample gives every image a
weight from Poisson(1) instead, so that it can be summed while images stream past (Hanley and MacGibbon, Creating
non-parametric bootstrap samples using Poisson frequencies, Computer Methods and Programs in Biomedicine 2006;
Chamandy et al., Estimating Uncertainty for Massive Data Streams, Google 2012). Scores of masks are functions of three
counts a class, so the sums hold `RESAMPLES` x 3 x classes numbers, however many images there are: 264 kB for 11
classes, 6 MB for 255. Average precision is no function of sums: see `average_precision.py`.

The weights come from a hash of the image. Two models therefore see the same resamples, and the difference of their
scores, resample by resample, is the paired bootstrap of the change. Identical images get the same weight.

The interval is that of the percentiles (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). It
covers the choice of images only, not the seed of the training. It is too narrow for a few images, and for neighbouring
frames of a video, which are not independent.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from components.class_map import ClassMap
from components.metrics import scores

RESAMPLES = 1000
_TAIL = 0.025

Interval = tuple[float, float]
# Scores by metric name, `class_iou/<class name>` included, float64 [RESAMPLES] each; NaN where undefined.
Resampled = dict[str, np.ndarray]


def poisson_weights(image: bytes) -> np.ndarray:
    """Returns an image's weight in each resample, int64 [RESAMPLES], the same for the same bytes."""
    seed = int.from_bytes(hashlib.blake2b(image, digest_size=16).digest(), "big")
    return np.random.Generator(np.random.PCG64(seed)).poisson(1.0, RESAMPLES).astype(np.int64)


def resampled_scores(resamples: np.ndarray, class_map: ClassMap) -> Resampled:
    """Scores every resample.

    Args:
        resamples: pixels hit, true and predicted of each scored class, int64 [RESAMPLES, 3, scored classes].
        class_map: names of the classes.
    """
    counts = np.moveaxis(resamples, 1, 0)
    result = {}
    for name, by_class in (("iou", scores.iou(*counts)), ("dice", scores.dice(*counts))):
        result[f"mean_{name}"] = scores.mean(by_class)
        for index, class_name in enumerate(class_map.scored_names):
            result[scores.metric_name(f"class_{name}", class_name)] = by_class[:, index]
    return result


def interval(values: np.ndarray, comparisons: int = 1) -> Interval:
    """Returns an interval of the values that are not NaN, NaN and NaN if none is left.

    It is the central 95 % of them. With several comparisons it is wider, so that 95 % holds for all of them together
    (Bonferroni's inequality). `RESAMPLES` values resolve 25 comparisons; beyond, it ends near their extremes.
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
        candidate: the scores of every resample.
        baseline: the same of the baseline, on the same images.
        jointly: widen those of the classes so that 95 % holds for all classes together. The gate compares every class,
            and with 11 classes one in four equal models would otherwise seem worse in one of them by chance.
    """
    classes = {name.partition("/")[2] for name in candidate} - {""}
    joint = len(classes) if jointly else 1
    return {name: interval(after - baseline[name], joint if "/" in name else 1) for name, after in candidate.items()}


def counted_change(change: float, bounds: Interval, significant_only: bool, lower_is_better: bool = False) -> float:
    """Returns the change that the gate compares with its bound.

    Args:
        change: the score minus the baseline's; NaN for a class without a true pixel, which cannot drop.
        bounds: the interval of the change.
        significant_only: count a drop only if its whole interval lies below 0.
        lower_is_better: whether the score is an error: a rise then counts as a drop of others.

    Returns:
        The change, or 0 if it is undefined or a drop that does not count.
    """
    if lower_is_better:
        return -counted_change(-change, (-bounds[1], -bounds[0]), significant_only)
    if math.isnan(change) or (significant_only and change < 0 <= bounds[1]):
        return 0.0
    return change
