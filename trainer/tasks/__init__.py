"""Interfaces of the training tasks: semantic segmentation and instance segmentation, one file each.

Loop, checkpoints, strategies and optimizer depend on nothing else of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from trainer.decoded import DecodedSplit, SplitFacts
from trainer.sharding import Sharding


class Objective(Protocol):
    """A network with its loss and validation metric, for a `Learner`.

    Attributes:
        model: the network that is exported.
        trained: a model that contains the same layers and whose variables are trained.
        score: the metric that selects the epoch, higher is better. Devices' states add up, as in `trainer.metrics`.
    """

    model: keras.Model
    trained: keras.Model
    score: keras.metrics.Metric

    def loss(self, images: tf.Tensor, truth: tf.Tensor, seed: tf.Tensor | None) -> tuple[tf.Tensor, Any]:
        """Returns the global batch's loss, float32 [], and outputs for `add_score`; validates if `seed` is None."""

    def add_score(self, truth: tf.Tensor, outputs: Any) -> None:
        """Updates the metric with a batch."""

    def real_images(self, truth: tf.Tensor) -> tf.Tensor:
        """Returns the number of images that are not padding, []."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns class indices for pictures, integer [B, H, W], of RGB, 0 to 255, [B, H, W, 3]."""


class Task(Protocol):
    """The parts of a training that depend on the task."""

    def load(self, files: Sequence[str], sharding: Sharding) -> DecodedSplit:
        """Decodes the shard of a split that the devices of this process train on; see `decoded.load`."""

    def facts(self, counts: Sequence[Sequence[int]], split: str, files: Sequence[str]) -> SplitFacts:
        """Adds up `DecodedSplit.counts` of all processes.

        Raises:
            DataRejectedError: if the split is empty or contains nothing to learn or to score.
            UsageError: if a device has no example.
        """

    def build(self, pretrained: bool) -> keras.Model:
        """Builds the network; see `registry.build`."""

    def objective(self, model: keras.Model, facts: SplitFacts) -> Objective:
        """Returns the objective for a network and the facts of the training split; call it in the strategy's scope."""

    def exported(self, model: keras.Model, precision: str) -> keras.Model:
        """Returns a copy of the trained network in the precision of the export."""

    def decode(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the batches of `input_pipeline` with the truth in the format of the objective."""

    def class_maps(self, truth: np.ndarray) -> np.ndarray:
        """Returns class indices for pictures, integer [B, H, W], of masks of a `DecodedSplit`."""
