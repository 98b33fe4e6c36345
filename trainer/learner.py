"""One step of training and one of validation, compiled once, on one device or mirrored over many.

Keras' `fit` is not used: with several devices its metrics and its losses without a batch axis are
wrong (Keras 3.8), over several machines it fails, and it cannot begin in the middle of an epoch.
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
    """A network with all that changes while it trains.

    Attributes:
        model: the network. Its weights are the newest; see `keep_average`.
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
            optimizer: made in the same scope by `optimizer.build`, under loss scaling or not.
            strategy: the strategy.
            xla: whether to compile with XLA.
            augment: varies each training batch on the device; None trains on the images as they are.
        """
        self.model = objective.model
        self.strategy = strategy
        self._objective = objective
        self._optimizer = optimizer
        self._augment = augment
        self._loss = metrics.MeanLoss()
        # Built here, the optimizer has slots for a checkpoint; built by the first step, it makes
        # TensorFlow trace that step twice.
        optimizer.build(objective.trained.trainable_variables)
        self._train = CompiledStep(self._train_step, strategy, xla, "training")
        self._validate = CompiledStep(self._validation_step, strategy, xla, "validation")

    @property
    def variables(self) -> list[Any]:
        """All that a checkpoint must hold: weights, random states, the optimizer's state, the scores so far."""
        scores = [*self._loss.variables, *self._objective.score.variables]
        return [*self._objective.trained.variables, *self._optimizer.variables, *scores]

    @property
    def score_name(self) -> str:
        """Name of the score that the epoch is chosen by, in `scores`."""
        return str(self._objective.score.name)

    @property
    def learning_rate(self) -> float:
        """The optimizer's rate at its present step."""
        return float(self._optimizer.learning_rate)

    def train(self, batch: Any) -> None:
        """Makes one step on a global batch: images, masks and a seed; see `input_pipeline.training_batches`."""
        self._train(batch)

    def validate(self, batch: Any) -> None:
        """Adds a global batch, images and masks, to the scores; see `averaged`."""
        self._validate(batch)

    def reset_scores(self) -> None:
        """Forgets all batches seen."""
        self._loss.reset_state()
        self._objective.score.reset_state()

    def scores(self) -> dict[str, float]:
        """Returns `loss` and the score over all batches since the last reset; not a number where undefined."""
        return {score.name: float(score.result()) for score in (self._loss, self._objective.score)}

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns class indices to draw, [B, H, W], of RGB, 0 to 255, [B, H, W, 3]; on this worker alone."""
        with self.averaged():
            return self._objective.predict(images)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Gives the model the moving average of its weights inside a `with` block, where one is kept."""
        return averaged(self._optimizer)

    def keep_average(self) -> None:
        """Ends the training: the model has the moving average of its weights for good, where one is kept."""
        swap_averages(self._optimizer)

    def _train_step(self, images: tf.Tensor, masks: tf.Tensor, seed: tf.Tensor) -> None:
        if self._augment:
            images, masks = self._augment(images, masks, seed)
        with tf.GradientTape() as tape:
            loss, outputs = self._objective.loss(images, masks, seed)
            # Every device has the whole loss, and the optimizer adds up the gradients of all.
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
        """Makes gradients that overflow on one device overflow on all of them.

        Keras' scaling of float16's loss decides on each device by itself whether to skip a step.
        """
        scaled = isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer)
        if not scaled or self.strategy.num_replicas_in_sync == 1:
            return gradients
        finite = [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients]
        overflows = distribution.total(tf.cast(tf.logical_not(tf.reduce_all(finite)), tf.float32))
        return [tf.where(overflows > 0, float("nan"), gradient) for gradient in gradients]
