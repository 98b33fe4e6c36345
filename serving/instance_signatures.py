"""Signatures of an exported instance segmentation model: encoded images in, boxes and masks out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from components import features
from components.class_map import ClassMap
from serving.decoding import image_size
from serving.image_module import BATCH_OF_STRINGS, ImageModule
from serving.instance_masks import paste


class InstanceModule(ImageModule):
    """A network for instance segmentation behind Transform's graph."""

    def __init__(self, network: Any, transform_dir: str, metadata_file: str, metadata: Mapping[str, Any]) -> None:
        """Takes the arguments of `ImageModule`.

        In the metadata, `things` are the names of the classes whose instances are found, in the order of the network's
        classes. The network returns the outputs of `trainer.models.mask_rcnn.model.build`.
        """
        super().__init__(network, transform_dir, metadata_file, metadata)
        class_map = ClassMap.from_dict(metadata["class_map"])
        # The last entry stands for no instance, which has position -1.
        self._things = [*map(class_map.index, metadata["things"]), -1]
        most = self._most = network.output["scores"].shape[1]
        self._specs = {
            features.BOXES: tf.TensorSpec([most, 4], tf.float32),
            features.CLASSES: tf.TensorSpec([most], tf.int64),
            features.SCORES: tf.TensorSpec([most], tf.float32),
            features.INSTANCE_PNG: tf.TensorSpec([most], tf.string),
        }

    def signatures(self) -> dict[str, Any]:
        """Returns the signatures by name, as `tf.saved_model.save` takes them."""
        return {
            "serving_default": self.serving_default,
            features.FIND_INSTANCES: self._find_instances(),
            "describe": self._describe(),
            "evaluation": self.evaluation,
            "preprocess": self.preprocess,
        }

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def serving_default(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Finds the instances in encoded images of any sizes.

        Args:
            image: string [B], PNG or JPEG.

        Returns:
            boxes: float32 [B, M, 4], (y_min, x_min, y_max, x_max) in pixels of the image's own size.
            classes: int64 [B, M], class index; -1 for no instance.
            scores: float32 [B, M], falling; 0 for no instance.
            instance_png_bytes: string [B, M], a grey PNG, 0 and 255, at the image's own size; empty for no instance.
        """
        return self._find(image)

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def evaluation(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs of `serving_default`, for batches of any size."""
        return self._in_chunks(image, self._find, self._specs)

    def _find_instances(self) -> Any:
        """Returns a signature with the outputs of `serving_default` and limits for each image.

        Args of the signature:
            image: string [B], PNG or JPEG.
            score_threshold: float32 [B]; keeps instances with a higher score. Default: 0.
            max_instances: int64 [B]; largest number of instances per image. Default: M.

        Both limits may be left out, or have one value for all images. A server that batches needs [B] for all inputs;
        TensorFlow Serving is one (batching_session.cc, ComputeInputSize, at 9d981c5), and fills in a default of one row
        before. Its REST API requires every input (json_tensor.cc), so `serving_default` has only the image.
        """

        # Defined here for the same reason as in `_describe`.
        @tf.function(
            input_signature=[
                *BATCH_OF_STRINGS,
                tf.TensorSpec([None], tf.float32, name=features.SCORE_THRESHOLD),
                tf.TensorSpec([None], tf.int64, name=features.MAX_INSTANCES),
            ]
        )
        def find_instances(
            image: tf.Tensor,
            score_threshold: tf.Tensor = tf.constant([0.0]),  # noqa: B008
            max_instances: tf.Tensor = tf.constant([self._most], tf.int64),  # noqa: B008
        ) -> dict[str, tf.Tensor]:
            return self._find(image, limits=(score_threshold, max_instances))

        return find_instances

    def _find(
        self,
        image: tf.Tensor,
        start: tf.Tensor | int = 0,
        total: tf.Tensor | None = None,
        limits: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the outputs of `serving_default`; `start` and `total` as in `_pixels`."""
        found = self._network(tf.cast(self._pixels(image, start, total), tf.float32))
        if limits is not None:
            threshold, most = (tf.broadcast_to(each, tf.shape(image))[:, tf.newaxis] for each in limits)
            scores = found["scores"]
            kept = (scores > threshold) & (tf.range(self._most, dtype=tf.int64) < most)
            found = {
                **found,
                "boxes": tf.where(kept[..., tf.newaxis], found["boxes"], 0.0),
                "classes": tf.where(kept, found["classes"], -1),
                "scores": tf.where(kept, scores, 0.0),
            }
        return tf.map_fn(self._at_own_size, (image, found), parallel_iterations=1, fn_output_signature=self._specs)

    def _at_own_size(self, pair: tuple[tf.Tensor, dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Returns the instances of one image, string [], in its own pixels."""
        data, found = pair
        size = image_size(data)
        boxes = found["boxes"] * tf.tile(tf.cast(size, tf.float32) / tf.constant(self._input_size, tf.float32), [2])

        # One at a time: all masks of a large image would take up to fifty times its pixels.
        def png(instance: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
            score, mask, box = instance
            return tf.cond(
                score > 0,
                lambda: tf.io.encode_png(
                    tf.cast(paste(mask, box, size), tf.uint8)[..., tf.newaxis] * 255, compression=1
                ),
                lambda: tf.constant(b""),
            )

        scores = found["scores"]
        return {
            features.BOXES: boxes,
            features.CLASSES: tf.gather(tf.constant(self._things, tf.int64), found["classes"] % len(self._things)),
            features.SCORES: scores,
            features.INSTANCE_PNG: tf.map_fn(
                png, (scores, found["masks"], boxes), parallel_iterations=1, fn_output_signature=tf.string
            ),
        }
