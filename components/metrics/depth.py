"""Define the scores of depth: absolute relative error, root mean squared error, and the fraction of pixels within 25 %.

Source: Eigen, Puhrsch and Fergus 2014, arXiv 1406.2283, section 4: "Abs Relative difference", "RMSE (linear)" and
"Threshold" of 1.25. All are means over the known pixels of all images.
"""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image

from components.metrics.bootstrap import RESAMPLES, Resampled, poisson_weights
from components.metrics.scores import DEPTH, ratio

THRESHOLD = 1.25


def decode_depth(png: bytes) -> np.ndarray:
    """Decodes a depth map, a grey PNG of 16 bits, to float64 [H, W]; 0 is unknown."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image, np.float64)


def error_sums(truth: np.ndarray, estimate: np.ndarray, depth_scale: float) -> np.ndarray:
    """Returns the sums over known pixels that the scores follow from, float64 [4].

    They are the number of pixels, the sum of their relative errors, the sum of their squared errors in square metres,
    and the number of pixels within the threshold.

    Args:
        truth: values of the depth map, [H, W]; 0 is unknown.
        estimate: values of the estimated depth map, above 0.
        depth_scale: value at a distance of 1 metre.

    Raises:
        ValueError: the shapes differ.
    """
    if truth.shape != estimate.shape:
        raise ValueError(
            f"depth: the estimate has shape {estimate.shape}, the truth {truth.shape}; the model must return each "
            "depth map at its image's own size"
        )
    known = truth > 0
    truth, estimate = truth[known], estimate[known]
    error = np.abs(estimate - truth)
    within = np.maximum(estimate / truth, truth / estimate) < THRESHOLD
    return np.array([truth.size, (error / truth).sum(), ((error / depth_scale) ** 2).sum(), within.sum()])


@dataclasses.dataclass
class DepthTally:
    """Sums over images.

    Attributes:
        sums: see `error_sums`, float64 [4].
        resamples: the sums of every bootstrap resample, float64 [RESAMPLES, 4].
    """

    sums: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(4))
    resamples: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((RESAMPLES, 4)))

    def add(self, sums: np.ndarray, image: bytes) -> None:
        """Adds an image: its sums, and its encoded bytes, which determine its bootstrap weights."""
        self.sums += sums
        self.resamples += poisson_weights(image)[:, np.newaxis] * sums

    def merge(self, other: DepthTally) -> None:
        """Adds the images of another tally."""
        self.sums += other.sums
        self.resamples += other.resamples

    def flat(self) -> dict[str, float]:
        """Returns the scores by metric name; NaN without a known pixel."""
        return {name: float(values[0]) for name, values in _scores(self.sums[np.newaxis]).items()}

    def resampled(self) -> Resampled:
        """Returns the scores of every bootstrap resample."""
        return _scores(self.resamples)


def _scores(sums: np.ndarray) -> Resampled:
    pixels, relative, square, within = sums.T
    values = ratio(relative, pixels), np.sqrt(ratio(square, pixels)), ratio(within, pixels)
    return dict(zip(DEPTH, values, strict=True))
