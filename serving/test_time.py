"""Test-time augmentation: averages the predictions for an image at several sizes, and for its mirror image.

Source: the inference at several scales, mirrored too, of Chen et al. 2017, arXiv 1706.05587, section 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

# A multiple of every architecture's stride.
_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class TestTimeAugmentation:
    """Sizes and flips of an image to average over.

    Attributes:
        flip: whether to predict the mirror image too, at each size.
        scales: sizes, as fractions of the network's input size.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> TestTimeAugmentation:
        """Reads the test-time augmentation of an exported model from its metadata."""
        return cls(metadata["test_time_flip"], tuple(metadata["test_time_scales"]))

    def to_dict(self) -> dict[str, Any]:
        """Returns the metadata entries that `of` reads."""
        return {"test_time_flip": self.flip, "test_time_scales": list(self.scales)}

    def average(self, probabilities: Callable[[tf.Tensor], tf.Tensor], pixels: tf.Tensor) -> tf.Tensor:
        """Returns the mean probabilities, float32 [B, H, W, N], of pixels, float32 [B, H, W, 3], at the input size.

        The function maps pixels [B, h, w, 3] to probabilities [B, h, w, N].
        """
        size = (pixels.shape[1], pixels.shape[2])
        predictions = [self._predict(probabilities, pixels, size, scaled(size, scale)) for scale in self.scales]
        return tf.add_n(predictions) / len(predictions)

    def _predict(
        self,
        probabilities: Callable[[tf.Tensor], tf.Tensor],
        pixels: tf.Tensor,
        size: tuple[int, int],
        scaled_size: tuple[int, int],
    ) -> tf.Tensor:
        resized = pixels if scaled_size == size else tf.image.resize(pixels, scaled_size, antialias=True)
        predicted = probabilities(resized)
        if self.flip:
            mirrored = probabilities(tf.reverse(resized, axis=[2]))
            predicted = (predicted + tf.reverse(mirrored, axis=[2])) / 2
        return predicted if scaled_size == size else tf.image.resize(predicted, size)


NO_AUGMENTATION = TestTimeAugmentation()


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns a size, in pixels, times a scale: the nearest multiples of 32; at scale 1, the size itself."""
    if scale == 1:
        return size
    height, width = (max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in size)
    return height, width
