"""What differs between the tasks of a training: semantic segmentation and instance segmentation.

Loop, checkpoints, strategies and optimizer know only the interfaces here; each task is one file.
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
    """A network with its loss and its validation score, as a `Learner` trains it.

    Attributes:
        model: the network that is exported.
        trained: a model around the same layers whose variables are trained.
        score: the metric that the epoch is chosen by, higher is better. It adds up over devices, as in
            `trainer.metrics`.
    """

    model: keras.Model
    trained: keras.Model
    score: keras.metrics.Metric

    def loss(self, images: tf.Tensor, truth: tf.Tensor, seed: tf.Tensor | None) -> tuple[tf.Tensor, Any]:
        """Returns the loss of the global batch, float32 [], and what `add_score` needs; without a seed, to validate."""

    def add_score(self, truth: tf.Tensor, outputs: Any) -> None:
        """Adds a batch to the score."""

    def real_images(self, truth: tf.Tensor) -> tf.Tensor:
        """Returns how many images of a batch are data and not padding, a number []."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns class indices to draw, integer [B, H, W], of RGB, 0 to 255, [B, H, W, 3]."""


class Task(Protocol):
    """What a training asks of its task."""

    def load(self, files: Sequence[str], sharding: Sharding) -> DecodedSplit:
        """Decodes what the devices of one process own of a split; see `decoded.load`."""

    def facts(self, counts: Sequence[Sequence[int]], split: str, files: Sequence[str]) -> SplitFacts:
        """Adds up `DecodedSplit.counts` of all processes.

        Raises:
            DataRejectedError: when the split is empty, or holds nothing to learn or to score.
            UsageError: when a device has no example.
        """

    def build(self, pretrained: bool) -> keras.Model:
        """Builds the network; see `registry.build`."""

    def objective(self, model: keras.Model, facts: SplitFacts) -> Objective:
        """Returns the objective for a network and the counts of the training split; call it in the strategy's scope."""

    def exported(self, model: keras.Model, precision: str) -> keras.Model:
        """Returns the trained network as it is exported: in one precision, whatever it was trained in."""

    def decode(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the batches of `input_pipeline` with their truth as the objective takes it."""

    def class_maps(self, truth: np.ndarray) -> np.ndarray:
        """Returns class indices to draw, integer [B, H, W], of some of a `DecodedSplit`'s masks."""
