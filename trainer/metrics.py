"""Metrics of training and validation: mean loss, and mean IoU from a confusion matrix.

Both sum up over devices. Keras' own metrics do not (Keras 3.8): their `assign_add` adds the old value once per device,
so early batches would count too much.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from components.class_map import ClassMap


class MeanLoss(keras.metrics.Metric):
    """Mean loss over images."""

    def __init__(self) -> None:
        super().__init__(name="loss")
        self._total = counter((), "total")
        self._images = counter((), "images")

    def update_state(self, loss: Any, images: Any) -> None:
        """Adds a batch: its mean loss, [], and its number of images without padding, []; see `padding.real_images`."""
        images = tf.cast(images, tf.float64)
        add(self._total, tf.cast(loss, tf.float64) * images)
        add(self._images, images)

    def result(self) -> tf.Tensor:
        """Returns the mean, float32 []; NaN before the first image."""
        return tf.cast(tf.convert_to_tensor(self._total) / tf.convert_to_tensor(self._images), tf.float32)


class MeanIoU(keras.metrics.Metric):
    """Mean intersection over union of the scored classes in the truth, as in `components.metrics.scores`.

    Skips pixels whose truth is the ignored class or padding.
    """

    def __init__(self, class_map: ClassMap) -> None:
        super().__init__(name="mean_iou")
        self._num_classes = class_map.num_classes
        self._scored = tf.constant(class_map.scored_indices, tf.int32)
        # A float32 counter would stop at 2^24 pixels, which is a few hundred images.
        self._matrix = counter((self._num_classes, self._num_classes), "confusion_matrix")

    def update_state(self, y_true: Any, y_pred: Any) -> None:
        """Adds a batch: class indices or padding [B, H, W] and logits [B, H, W, num_classes]."""
        # All zero for padding, which therefore adds nothing.
        truth = tf.one_hot(tf.reshape(tf.cast(y_true, tf.int32), [-1]), self._num_classes)
        predicted = tf.one_hot(tf.reshape(tf.argmax(y_pred, axis=-1, output_type=tf.int32), [-1]), self._num_classes)
        # A product of one-hot matrices is deterministic and compiles everywhere, also with XLA.
        add(self._matrix, tf.matmul(truth, predicted, transpose_a=True))

    def result(self) -> tf.Tensor:
        """Returns the mean IoU over all batches, float32 []; NaN without a scored pixel."""
        matrix = tf.gather(tf.convert_to_tensor(self._matrix), self._scored)
        intersection = tf.linalg.diag_part(tf.gather(matrix, self._scored, axis=1))
        predicted = tf.gather(tf.reduce_sum(matrix, axis=0), self._scored)
        truth = tf.reduce_sum(matrix, axis=1)
        # A class that is only predicted adds 0 to the total and nothing to the number of classes.
        present = tf.cast(truth > 0, tf.float64)
        total = tf.reduce_sum(tf.math.divide_no_nan(intersection, truth + predicted - intersection))
        return tf.cast(total / tf.reduce_sum(present), tf.float32)


def counter(shape: tuple[int, ...], name: str) -> keras.Variable:
    """Returns a float64 variable of zeros for `add`, with the same value on every device of every worker.

    A variable of `Metric.add_variable` (Keras 3.12) is summed over all workers at each read. So if one worker reads
    alone, as the chief does for a checkpoint or a progress record, the collective operations get out of step.
    """
    return keras.Variable("zeros", shape=shape, dtype="float64", trainable=False, aggregation="sum", name=name)


def add(variable: Any, value: Any) -> None:
    """Adds the counts of every device to a metric's variable."""
    variable.value.assign_add(tf.cast(value, variable.dtype))
