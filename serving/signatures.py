"""The calls that an exported model answers, as graphs: encoded images in, class maps out.

Every one begins with Transform's own graph, so serving sees the pixels that training saw.
"""

from __future__ import annotations

import os
from typing import Any

import keras
import tensorflow as tf

from components import features
from components.class_map import ClassMap

_CHUNK = 8
_BATCH_OF_STRINGS = [tf.TensorSpec([None], tf.string, name=features.IMAGE)]


class ServingModule(tf.Module):
    """A network between Transform's graph and the class maps that clients want."""

    def __init__(
        self,
        model: keras.Model,
        transform_dir: str,
        class_map: ClassMap,
        input_size: tuple[int, int],
        test_time_flip: bool = False,
    ) -> None:
        super().__init__()
        self._test_time_flip = test_time_flip
        self._model = model
        # Transform's SavedModel itself, not `transform_features_layer()`, which is a tf_keras object.
        self._transform = tf.saved_model.load(os.path.join(transform_dir, "transform_fn"))
        self._num_classes = class_map.num_classes
        self._input_size = input_size

    def signatures(self) -> dict[str, Any]:
        """Returns the signatures by name, as `tf.saved_model.save` takes them."""
        return {
            "serving_default": self.serving_default,
            "evaluation": self.evaluation,
            "preprocess": self.preprocess,
        }

    @tf.function(input_signature=_BATCH_OF_STRINGS)
    def serving_default(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments encoded images of any sizes.

        Args:
            image: string [B], PNG or JPEG.

        Returns:
            class_map: uint8 [B, H, W] at the network's input size.
            mask_png: string [B], the class map as a grey PNG at each image's own size.
            class_share: float32 [B, num_classes], each class's share of the pixels.
            confidence: float32 [B], mean over pixels of the winning class's probability.
        """
        probabilities = self._probabilities(image)
        class_map = tf.cast(tf.argmax(probabilities, axis=-1), tf.uint8)
        one_hot = tf.one_hot(tf.cast(class_map, tf.int32), self._num_classes)
        return {
            "class_map": class_map,
            "mask_png": self._masks_at_own_size(image, probabilities),
            "class_share": tf.reduce_mean(one_hot, axis=[1, 2]),
            "confidence": tf.reduce_mean(tf.reduce_max(probabilities, axis=-1), axis=[1, 2]),
        }

    @tf.function(input_signature=_BATCH_OF_STRINGS)
    def evaluation(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns only `mask_png` of `serving_default`: what the metrics compare with the truth.

        The evaluation's batches grow to a thousand images; the network takes them in small chunks.
        """

        def masks(start: tf.Tensor) -> tf.Tensor:
            chunk = image[start : start + _CHUNK]
            return self._masks_at_own_size(chunk, self._probabilities(chunk))

        chunks = tf.map_fn(
            masks,
            tf.range(0, tf.size(image), _CHUNK),
            fn_output_signature=tf.RaggedTensorSpec([None], tf.string, ragged_rank=0),
            parallel_iterations=1,
        )
        return {"mask_png": chunks.flat_values}

    @tf.function(input_signature=_BATCH_OF_STRINGS)
    def preprocess(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `pixels`, uint8 [B, H, W, 3]: exactly what the network is fed for encoded images."""
        return {"pixels": self._pixels(image)}

    def _pixels(self, image: tf.Tensor) -> tf.Tensor:
        transform = self._transform.transform_fn
        # The graph wants every raw feature; only the image reaches the pixels.
        ((specs,), _) = transform.structured_input_signature
        raw = {name: _placeholder(name, spec, tf.shape(image)[0]) for name, spec in specs.items()}
        raw[features.IMAGE] = tf.reshape(image, tf.shape(raw[features.IMAGE]))
        resized = transform(raw)[features.TRANSFORMED_IMAGE]
        pixels = tf.map_fn(
            lambda data: tf.io.decode_png(data, channels=3), tf.reshape(resized, [-1]), fn_output_signature=tf.uint8
        )
        return tf.ensure_shape(pixels, [None, *self._input_size, 3])

    def _probabilities(self, image: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(self._pixels(image), tf.float32)
        probabilities = self._softmax(pixels)
        if not self._test_time_flip:
            return probabilities
        mirrored = tf.reverse(self._softmax(tf.reverse(pixels, axis=[2])), axis=[2])
        return (probabilities + mirrored) / 2

    def _softmax(self, pixels: tf.Tensor) -> tf.Tensor:
        logits = self._model(pixels, training=False)
        return tf.nn.softmax(tf.cast(logits, tf.float32))

    def _masks_at_own_size(self, image: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        """Resizes probabilities to each image's size before the class is chosen, which keeps edges smooth."""

        def mask_png(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            data, scores = pair
            resized = tf.image.resize(scores, image_size(data), method="bilinear")
            indices = tf.argmax(resized, axis=-1, output_type=tf.int32)
            return tf.io.encode_png(tf.cast(indices, tf.uint8)[..., tf.newaxis], compression=1)

        return tf.map_fn(mask_png, (image, probabilities), fn_output_signature=tf.string)


def image_size(data: tf.Tensor) -> tf.Tensor:
    """Reads height and width, int32 [2], from the header of an encoded PNG or JPEG, without decoding it."""

    def of_png() -> tf.Tensor:
        # PNG specification, section 11.2.2: width and height are big-endian, bytes 16 to 23.
        width_height = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)
        return tf.reverse(width_height, axis=[0])

    def of_jpeg() -> tf.Tensor:
        return tf.io.extract_jpeg_shape(data, output_type=tf.int32)[:2]

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(data), of_jpeg, of_png), [2])


def _placeholder(name: str, spec: tf.TensorSpec, batch: tf.Tensor) -> tf.Tensor:
    """Returns a neutral value of a raw feature that serving does not have; a mask must still decode."""
    shape = [batch if side is None else side for side in spec.shape]
    if spec.dtype != tf.string:
        return tf.zeros(shape, spec.dtype)
    empty = tf.io.encode_png(tf.zeros([1, 1, 1], tf.uint8)) if name == features.MASK else tf.constant("")
    return tf.fill(shape, empty)
