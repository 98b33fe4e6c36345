"""Semantic segmentation: a class for each pixel, and its depth if the network has a depth decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.class_map import ClassMap
from serving.precision import with_precision
from trainer import decoded, deep_supervision, losses, metrics
from trainer.config import ModelSettings, TrainingSettings
from trainer.decoded import DecodedSplit, SplitFacts
from trainer.losses import Loss, balance
from trainer.losses.depth import ScaleInvariantError
from trainer.models import registry
from trainer.padding import real_images
from trainer.sharding import Sharding


class SemanticObjective:
    """A loss on logits; the score is the mean IoU, which is counted while training too."""

    def __init__(
        self,
        model: keras.Model,
        trained: keras.Model,
        loss: Loss,
        class_map: ClassMap,
        head_weight: float = 0.0,
        depth_loss: Loss | None = None,
    ) -> None:
        """Creates the objective.

        Args:
            model: from images to logits [B, H, W, num_classes], or to the outputs of `depth_decoder.attach`.
            trained: `model`, or the model of `deep_supervision.attach`, with additional outputs.
            loss: of masks and logits.
            class_map: the classes of the masks.
            head_weight: weight of the mean loss of the auxiliary heads in training.
            depth_loss: of depth maps and the logarithm of depth; None without depth.
        """
        self.model, self.trained = model, trained
        self.score = metrics.MeanIoU(class_map)
        self._loss, self._head_weight, self._depth_loss = loss, head_weight, depth_loss

    def loss(self, images: tf.Tensor, truth: tf.Tensor, seed: tf.Tensor | None) -> tuple[tf.Tensor, Any]:
        """Returns the loss and logits. Truth: class indices or padding, [B, H, W]; [B, H, W, 2] with depth last."""
        training = seed is not None
        logits, *heads = keras.tree.flatten((self.trained if training else self.model)(images, training=training))
        masks = self._masks(truth)
        loss = self._loss(masks, logits)
        if self._depth_loss:
            loss += self._depth_loss(tf.cast(truth, tf.float32)[..., 1], heads.pop(0))
        if heads:
            loss += self._head_weight * deep_supervision.loss(self._loss, masks, heads)
        return loss, logits

    def add_score(self, truth: tf.Tensor, outputs: Any) -> None:
        """Updates the mean IoU with a batch."""
        self.score.update_state(self._masks(truth), outputs)

    def real_images(self, truth: tf.Tensor) -> tf.Tensor:
        """Returns the number of images that are not padding."""
        return real_images(self._masks(truth))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns the class of each pixel."""
        logits, *_ = keras.tree.flatten(self.model(images, training=False))
        return np.argmax(logits, axis=-1)

    def _masks(self, truth: tf.Tensor) -> tf.Tensor:
        # Sliced as float32, because TensorFlow slices int32 on the CPU, even on a machine with a GPU.
        return tf.cast(tf.cast(truth, tf.float32)[..., 0], tf.int32) if self._depth_loss else truth


class SemanticTask:
    """The parts of a training that depend on semantic segmentation."""

    def __init__(
        self,
        model: ModelSettings,
        training: TrainingSettings,
        class_map: ClassMap,
        input_size: tuple[int, int],
        depth_scale: float,
    ) -> None:
        self._model, self._training, self._depth_scale = model, training, depth_scale
        self._class_map, self._input_size = class_map, input_size

    def load(self, files: Sequence[str], sharding: Sharding) -> DecodedSplit:
        """Decodes images and masks, and depth maps if the network estimates depth."""
        fraction = self._training.memory_fraction
        return decoded.load(files, self._input_size, fraction, sharding, depth=self._model.depth)

    def facts(self, counts: Sequence[Sequence[int]], split: str, files: Sequence[str]) -> SplitFacts:
        """Adds up class pixels; raises DataRejectedError for unknown labels or nothing but ignored pixels."""
        facts = decoded.facts(counts, self._class_map.num_classes, split, files)
        balance.check_scored(split, facts, self._class_map)
        return facts

    def build(self, pretrained: bool) -> keras.Model:
        """Builds the network for any size: it trains on crops, and predicts whole images."""
        return registry.build(self._model, None, self._class_map.num_classes, pretrained)

    def objective(self, model: keras.Model, facts: SplitFacts) -> SemanticObjective:
        """Returns the objective with the losses from the settings."""
        settings = self._training
        heads = registry.deep_layers(self._model) if settings.deep_supervision else ()
        trained = deep_supervision.attach(model, heads, self._class_map.num_classes)
        loss = losses.build(settings, facts, self._class_map)
        depth_loss = None
        if self._model.depth:
            depth_loss = losses.WeightedSum([(settings.depth_weight, ScaleInvariantError(self._depth_scale))])
        return SemanticObjective(model, trained, loss, self._class_map, settings.deep_supervision, depth_loss)

    def exported(self, model: keras.Model, precision: str) -> keras.Model:
        """Returns a copy in the given precision; see `with_precision`."""
        return with_precision(model, precision)

    def decode(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the batches unchanged, because their masks are decoded."""
        return batches

    def class_maps(self, truth: np.ndarray) -> np.ndarray:
        """Returns the masks without depth."""
        return truth[..., 0] if self._model.depth else truth
