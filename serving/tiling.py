"""Segments an image at its own size with sliding windows, blending the probabilities in their overlaps.

Resizing the whole image to the network's input size would lose small objects of large images.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from serving.masks import confidence_levels

Probabilities = Callable[[tf.Tensor], tf.Tensor]


class Segments(NamedTuple):
    """The segmentation of an image.

    Attributes:
        mask: class indices, uint8 [H, W].
        class_share: each class's fraction of the pixels, float32 [num_classes].
        confidence: mean over pixels of the chosen class's probability, float32 [].
        levels: the chosen class's probability at each pixel, uint8 [H, W], 0 to 255 for 0 to 1.
    """

    mask: tf.Tensor
    class_share: tf.Tensor
    confidence: tf.Tensor
    levels: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Size and overlap of the windows.

    Attributes:
        window: height and width, in pixels of the image.
        overlap: smallest overlap of neighbouring windows, as a fraction of a window, 0 to below 1.
    """

    window: tuple[int, int]
    overlap: float = 0.25

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Tiling | None:
        """Reads the windows of an exported model from its metadata; None without sliding windows."""
        tiling = metadata.get("tiling")
        return tiling and cls(tuple(tiling["window"]), tiling["overlap"])

    def to_dict(self) -> dict[str, Any]:
        """Returns the metadata that `of` reads."""
        return {"window": list(self.window), "overlap": self.overlap}

    def segment(self, pixels: tf.Tensor, probabilities: Probabilities, num_classes: int) -> Segments:
        """Segments an image.

        A window's weight falls off linearly in its overlaps, and the weights at a pixel add up to 1. Only overlaps with
        later windows are kept in memory, so memory grows with the image's width and not with its area.

        Args:
            pixels: RGB, uint8 [H, W, 3].
            probabilities: from float32 pixels of a window, [1, h, w, 3], to float32 [1, h, w, num_classes].
            num_classes: number of classes.
        """
        height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
        rows, columns = (_Axis(*each, self.overlap) for each in zip((height, width), self.window, strict=True))
        _, _, strips, counts, total = _loop(
            rows.count,
            _Windows(pixels, rows, columns, probabilities, num_classes).finish_row,
            _array(tf.float32, columns.count, [None, None, num_classes]),
            _array(tf.uint8, rows.count, [None, None, 2]),
            tf.zeros([num_classes], tf.int32),
            tf.constant(0.0, tf.float64),
        )
        mask, levels = tf.unstack(tf.ensure_shape(strips.concat(), [None, None, 2]), axis=-1)
        area = tf.cast(tf.size(mask), tf.float64)
        shares, confidence = (tf.cast(tf.cast(sums, tf.float64) / area, tf.float32) for sums in (counts, total))
        return Segments(mask, shares, confidence, levels)


@dataclasses.dataclass(frozen=True)
class _Windows:
    """The windows over an image, finished from left to right and from top to bottom."""

    pixels: tf.Tensor
    rows: _Axis
    columns: _Axis
    probabilities: Probabilities
    num_classes: int

    def finish_row(self, row: tf.Tensor, below: Any, strips: Any, counts: tf.Tensor, total: tf.Tensor) -> Any:
        """Writes the classes and levels of a row's finished pixels; passes on its overlap with the next row."""
        _, _, chosen, below, counts, total = _loop(
            self.columns.count,
            functools.partial(self._finish_window, row),
            tf.zeros([0, self.rows.side, self.num_classes]),
            _array(tf.uint8, self.columns.count, [None, None, 2]),
            below,
            counts,
            total,
        )
        strips = strips.write(row, tf.transpose(chosen.concat(), [1, 0, 2]))
        return row + 1, below, strips, counts, total

    def _finish_window(
        self,
        row: tf.Tensor,
        column: tf.Tensor,
        left: tf.Tensor,
        chosen: Any,
        below: Any,
        counts: tf.Tensor,
        total: tf.Tensor,
    ) -> Any:
        """Writes the finished block of a window; passes on its overlap with the next window."""
        finished, right = _split(_add_in_front(self._weighted(row, column), left), self.columns.step(column))
        finished = tf.transpose(finished, [1, 0, 2])
        above = tf.cond(row > 0, lambda: below.read(column), lambda: finished[:0])
        finished, down = _split(_add_in_front(finished, above), self.rows.step(row))
        classes = tf.argmax(finished, axis=-1, output_type=tf.int32)
        counts += tf.math.bincount(classes, minlength=self.num_classes, maxlength=self.num_classes)
        total += tf.cast(tf.reduce_sum(tf.reduce_max(finished, axis=-1)), tf.float64)
        pair = tf.stack([tf.cast(classes, tf.uint8), confidence_levels(finished)], axis=-1)
        chosen = chosen.write(column, tf.transpose(pair, [1, 0, 2]))
        below = below.write(column, down)
        return column + 1, right, chosen, below, counts, total

    def _weighted(self, row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        """Returns a window's weighted probabilities with the columns first, float32 [w, h, num_classes]."""
        rows, columns = self.rows, self.columns
        seen = tf.gather(tf.gather(self.pixels, rows.places(row)), columns.places(column), axis=1)
        scores = self.probabilities(tf.cast(seen, tf.float32)[tf.newaxis])[0, : rows.side, : columns.side]
        weighted = scores * rows.weights(row)[:, tf.newaxis, tf.newaxis] * columns.weights(column)[:, tf.newaxis]
        return tf.transpose(weighted, [1, 0, 2])


class _Axis:
    """Positions and weights of the windows along one axis of an image.

    Attributes:
        side: pixels of a window inside the image.
        count: number of windows.
        starts: first pixel of each window, int32 [count].
    """

    def __init__(self, length: tf.Tensor, window: int, overlap: float) -> None:
        ramp = min(max(round(window * overlap), 0), window - 1)
        self._window = window
        self._length = length
        self.side = tf.minimum(window, length)
        self.count = 1 - (self.side - length) // (window - ramp)
        self.starts = (tf.range(self.count) * (length - self.side)) // tf.maximum(self.count - 1, 1)
        self._ends = tf.concat([self.starts[1:], [length]], 0)
        edge = tf.range(self.side)
        self._taper = tf.cast(tf.minimum(tf.minimum(edge, self.side - 1 - edge), ramp) + 1, tf.float32)
        places = self.starts[:, tf.newaxis] + edge
        taper = tf.broadcast_to(self._taper, tf.shape(places))
        self._sum = tf.math.unsorted_segment_sum(taper, places, length)

    def places(self, index: tf.Tensor) -> tf.Tensor:
        """Returns the pixels of a window, int32 [window]; repeats the last one if the image is smaller."""
        return tf.minimum(self.starts[index] + tf.range(self._window), self._length - 1)

    def weights(self, index: tf.Tensor) -> tf.Tensor:
        """Returns a window's weight at each of its pixels, float32 [side]; those of all windows add up to 1."""
        begin = self.starts[index]
        return self._taper / self._sum[begin : begin + self.side]

    def step(self, index: tf.Tensor) -> tf.Tensor:
        """Returns the number of pixels from a window's start to the next window, or to the image's end."""
        return self._ends[index] - self.starts[index]


def _add_in_front(values: tf.Tensor, front: tf.Tensor) -> tf.Tensor:
    """Adds a shorter tensor to the start of a longer one along axis 0."""
    count = tf.shape(front)[0]
    return tf.concat([values[:count] + front, values[count:]], 0)


def _split(values: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return values[:count], values[count:]


def _array(dtype: tf.DType, size: tf.Tensor, shape: list[int | None]) -> tf.TensorArray:
    return tf.TensorArray(dtype, size, clear_after_read=False, infer_shape=False, element_shape=shape)


def _loop(count: tf.Tensor, body: Callable[..., Any], *state: Any) -> Any:
    """Calls `body` with 0 to count - 1 and a state; its tensors of rank 3 may change their size."""
    invariants = [tf.TensorShape([])]
    for each in state:
        shape = tf.TensorShape(None) if isinstance(each, tf.TensorArray) else each.shape
        invariants.append(tf.TensorShape([None, None, shape[-1]]) if shape.rank == 3 else shape)
    return tf.while_loop(lambda index, *_: index < count, body, (0, *state), tuple(invariants), parallel_iterations=1)
