"""One training step and one validation step, compiled once, on one device or mirrored over several.

Keras' `fit` is not used (Keras 3.8): on several devices, its metrics and its losses without a batch axis are wrong; on
several machines it fails; and it cannot start in the middle of an epoch.
"""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import distribution, metrics
from trainer.augmentation import Augmentation
from trainer.compiled_step import CompiledStep
from trainer.optimizer import averaged, swap_averages
from trainer.tasks import Objective


class Learner:
    """A network with its optimizer, loss and score.

    Attributes:
        model: the network, with its newest weights; see `keep_average`.
        strategy: the strategy in whose scope it was made.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        xla: bool = False,
        augment: Augmentation | None = None,
    ) -> None:
        """Compiles nothing yet; call it in the strategy's scope.

        Args:
            objective: the network, its loss and its score, made in the same scope.
            optimizer: made in the same scope by `optimizer.build`, possibly wrapped for loss scaling.
            strategy: the strategy.
            xla: whether to compile with XLA.
            augment: augments each training batch on the device; None leaves the images unchanged.
        """
        self.model = objective.model
        self.strategy = strategy
        self._objective = objective
        self._optimizer = optimizer
        self._augment = augment
        self._loss = metrics.MeanLoss()
        # A checkpoint needs the optimizer's slots, and building them in the first step would trace that step twice.
        optimizer.build(objective.trained.trainable_variables)
        self._train = CompiledStep(self._train_step, strategy, xla, "training")
        self._validate = CompiledStep(self._validation_step, strategy, xla, "validation")

    @property
    def variables(self) -> list[Any]:
        """Everything that a checkpoint must hold: weights, random states, the optimizer's state, the scores so far."""
        scores = [*self._loss.variables, *self._objective.score.variables]
        return [*self._objective.trained.variables, *self._optimizer.variables, *scores]

    @property
    def score_name(self) -> str:
        """Name, in `scores`, of the score that chooses the best epoch."""
        return str(self._objective.score.name)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the current step."""
        return float(self._optimizer.learning_rate)

    def train(self, batch: Any) -> None:
        """Runs one step on a global batch of images, masks and a seed; see `input_pipeline.training_batches`."""
        self._train(batch)

    def validate(self, batch: Any) -> None:
        """Adds a global batch of images and masks to the scores; see `averaged`."""
        self._validate(batch)

    def reset_scores(self) -> None:
        """Resets the loss and the score."""
        self._loss.reset_state()
        self._objective.score.reset_state()

    def scores(self) -> dict[str, float]:
        """Returns `loss` and the score over all batches since the last reset; NaN if undefined."""
        return {score.name: float(score.result()) for score in (self._loss, self._objective.score)}

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns class indices, [B, H, W], of RGB, 0 to 255, [B, H, W, 3]; runs on this worker only."""
        with self.averaged():
            return self._objective.predict(images)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Uses the moving average of the weights, if there is one, inside a `with` block."""
        return averaged(self._optimizer)

    def keep_average(self) -> None:
        """Replaces the weights by their moving average, if there is one, for good; call it after the training."""
        swap_averages(self._optimizer)

    def _train_step(self, images: tf.Tensor, masks: tf.Tensor, seed: tf.Tensor) -> None:
        if self._augment:
            images, masks = self._augment(images, masks, seed)
        with tf.GradientTape() as tape:
            loss, outputs = self._objective.loss(images, masks, seed)
            # Every device computes the whole loss, and the optimizer sums the gradients of all devices.
            scaled = self._optimizer.scale_loss(loss / self.strategy.num_replicas_in_sync)
        weights = self._objective.trained.trainable_variables
        self._optimizer.apply(self._same_on_all(tape.gradient(scaled, weights)), weights)
        self._add_scores(loss, masks, outputs)

    def _validation_step(self, images: tf.Tensor, masks: tf.Tensor) -> None:
        loss, outputs = self._objective.loss(images, masks, None)
        self._add_scores(loss, masks, outputs)

    def _add_scores(self, loss: tf.Tensor, masks: tf.Tensor, outputs: Any) -> None:
        self._loss.update_state(loss, self._objective.real_images(masks))
        self._objective.add_score(masks, outputs)

    def _same_on_all(self, gradients: list[Any]) -> list[Any]:
        """Makes gradients that overflow on one device overflow on all devices.

        Keras' loss scaling for float16 decides on each device separately whether to skip a step.
        """
        scaled = isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer)
        if not scaled or self.strategy.num_replicas_in_sync == 1:
            return gradients
        finite = [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients]
        overflows = distribution.total(tf.cast(tf.logical_not(tf.reduce_all(finite)), tf.float32))
        return [tf.where(overflows > 0, float("nan"), gradient) for gradient in gradients]
