"""Instance segmentation with Mask R-CNN: a mask for each object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from serving.instance_masks import paste
from trainer import instance_split
from trainer.average_precision import MaskAP50, mask_iou
from trainer.config import ModelSettings, TrainingSettings
from trainer.decoded import DecodedSplit, SplitFacts
from trainer.models import registry
from trainer.models.mask_rcnn import losses
from trainer.models.mask_rcnn.truth import read
from trainer.precision import policy
from trainer.sharding import Sharding

# Index of pixels without an instance. No class map has such a class, so pictures show it in white.
_NO_CLASS = 255

# Fixed, so that every validation samples the same boxes.
_VALIDATION_SEED = (0, 0)


class InstanceObjective:
    """The losses of Mask R-CNN; the metric is the mean AP at a mask IoU of 0.5, in validation only."""

    def __init__(self, model: keras.Model, things: Sequence[int], proposals: int) -> None:
        """Creates the objective.

        Args:
            model: the network of `mask_rcnn.model.build`.
            things: indices of the classes with instances.
            proposals: number of proposals per image that the heads learn from.
        """
        self.model = self.trained = model
        self.score = MaskAP50(len(things))
        # The last entry is for index -1, no instance.
        self._classes = np.array([*things, _NO_CLASS])
        self._proposals = proposals
        self._size = tuple(model.inputs[0].shape[1:3])
        parts = {name: model.get_layer(name).output for name in ("objectness", "offsets", "proposals")}
        parts["levels"] = [model.get_layer(f"p{level}").output for level in range(2, 6)]
        self._to_train = keras.Model(model.inputs, parts)
        self._to_validate = keras.Model(model.inputs, {**parts, "found": model.output})

    def loss(self, images: tf.Tensor, truth: tf.Tensor, seed: tf.Tensor | None) -> tuple[tf.Tensor, Any]:
        """Returns the loss and, in validation, the detections. Truth: masks [B, H, W, M] for `truth.read`."""
        training = seed is not None
        instances = read(truth)
        outputs = (self._to_train if training else self._to_validate)(images, training=training)
        anchor_seed, box_seed = tf.unstack(tf.random.split(seed if training else _VALIDATION_SEED, 2, alg="philox"))
        loss = losses.proposal_losses(outputs["objectness"], outputs["offsets"], instances, self._size, anchor_seed)
        loss += losses.head_losses(
            self.model, outputs["levels"], outputs["proposals"], instances, self._proposals, box_seed, training
        )
        return loss, outputs.get("found")

    def add_score(self, truth: tf.Tensor, outputs: Any) -> None:
        """Updates the average precision with a validation batch."""
        if outputs is None:
            return
        instances = read(truth)
        overlap = mask_iou(paste(outputs["masks"], outputs["boxes"], self._size), instances.masks)
        classes = tf.where(instances.images[:, tf.newaxis] > 0, outputs["classes"], -1)
        self.score.update_state(overlap, instances.labels, classes, outputs["scores"])

    def real_images(self, truth: tf.Tensor) -> tf.Tensor:
        """Returns the number of images that are not padding."""
        return tf.reduce_sum(read(truth).images)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns the class of the best instance at each pixel, or 255 for no instance."""
        found = self.model(images, training=False)
        masks = paste(found["masks"], found["boxes"], self._size).numpy()
        classes = self._classes[found["classes"].numpy()][..., None, None]
        return _first_class(np.moveaxis(np.where(masks, classes, _NO_CLASS), 1, -1))


class InstanceTask:
    """The parts of a training that depend on instance segmentation."""

    def __init__(
        self, model: ModelSettings, training: TrainingSettings, things: Sequence[int], input_size: tuple[int, int]
    ) -> None:
        self._model, self._training = model, training
        self._classes, self._input_size = (_NO_CLASS, *things), input_size

    def load(self, files: Sequence[str], sharding: Sharding) -> DecodedSplit:
        """Decodes images; masks stay encoded, because decoded ones take up to fifty times the memory."""
        return instance_split.load(files, self._input_size, self._training.memory_fraction, sharding)

    def facts(self, counts: Sequence[Sequence[int]], split: str, files: Sequence[str]) -> SplitFacts:
        """Adds up the instances; raises DataRejectedError for a split without any."""
        return instance_split.facts(counts, split, files)

    def build(self, pretrained: bool) -> keras.Model:
        """Builds the network for the input size, which determines its anchors."""
        return registry.build(self._model, self._input_size, len(self._classes) - 1, pretrained)

    def objective(self, model: keras.Model, facts: SplitFacts) -> InstanceObjective:
        """Returns the losses of Mask R-CNN."""
        return InstanceObjective(model, self._classes[1:], self._training.proposals)

    def exported(self, model: keras.Model, precision: str) -> keras.Model:
        """Returns a copy in float32, the only export precision for boxes."""
        with policy("float32"):
            copied = self.build(pretrained=False)
        copied.set_weights(model.get_weights())
        return copied

    def decode(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the batches with masks decoded to uint8 [B, H, W, M]."""

        def decoded(images: tf.Tensor, stacks: tf.Tensor, *seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
            masks = tf.map_fn(
                lambda stack: instance_split.decode(stack, self._input_size),
                stacks,
                fn_output_signature=tf.TensorSpec([*self._input_size, instance_split.MOST], tf.uint8),
            )
            return images, masks, *seed

        return batches.map(decoded, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def class_maps(self, truth: np.ndarray) -> np.ndarray:
        """Returns the class of the smallest instance at each pixel, or 255 for no instance."""
        labels = np.stack([instance_split.decode(stack, self._input_size).numpy() for stack in truth])
        return _first_class(np.array(self._classes)[labels[..., ::-1]])


def _first_class(classes: np.ndarray) -> np.ndarray:
    """Returns the first value along the last axis that is not 255, or 255: [...] for [..., N]."""
    first = np.argmax(classes != _NO_CLASS, axis=-1, keepdims=True)
    return np.take_along_axis(classes, first, axis=-1)[..., 0]
