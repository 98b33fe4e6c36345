"""One prediction from several looks at an image: at other sizes, and mirrored.

Source: the inference at several scales, mirrored too, of Chen et al. 2017, arXiv 1706.05587, section 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

# Every architecture's stride divides it.
_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class Looks:
    """The looks whose probabilities are averaged.

    Attributes:
        flip: whether each look is taken of the mirror image too.
        scales: sizes of the looks, as shares of the network's input size.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Looks:
        """Returns the looks that an exported model says it takes."""
        return cls(metadata["test_time_flip"], tuple(metadata["test_time_scales"]))

    def to_dict(self) -> dict[str, Any]:
        """Returns what an exported model says of itself; `of` reads it."""
        return {"test_time_flip": self.flip, "test_time_scales": list(self.scales)}

    def average(self, probabilities: Callable[[tf.Tensor], tf.Tensor], pixels: tf.Tensor) -> tf.Tensor:
        """Returns the mean over the looks, float32 [B, H, W, N].

        Args:
            probabilities: from float32 pixels [B, h, w, 3] to float32 [B, h, w, N].
            pixels: float32 [B, H, W, 3] at the network's input size.
        """
        size = (pixels.shape[1], pixels.shape[2])
        looks = [self._look(probabilities, pixels, size, scaled(size, scale)) for scale in self.scales]
        return tf.add_n(looks) / len(looks)

    def _look(
        self,
        probabilities: Callable[[tf.Tensor], tf.Tensor],
        pixels: tf.Tensor,
        size: tuple[int, int],
        look_size: tuple[int, int],
    ) -> tf.Tensor:
        resized = pixels if look_size == size else tf.image.resize(pixels, look_size, antialias=True)
        seen = probabilities(resized)
        if self.flip:
            mirrored = probabilities(tf.reverse(resized, axis=[2]))
            seen = (seen + tf.reverse(mirrored, axis=[2])) / 2
        return seen if look_size == size else tf.image.resize(seen, size)


ONE_LOOK = Looks()


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns the height and width in pixels of a look: the nearest multiples of 32; at scale 1, the size itself."""
    if scale == 1:
        return size
    height, width = (max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in size)
    return height, width
