"""The calls that an exported model answers, as graphs: encoded images in, class maps out.

Every one begins with Transform's own graph, so serving sees the pixels that training saw.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from components import features
from serving.decoding import decode_each, encode_each, image_size
from serving.test_time import ONE_LOOK, Looks

_CHUNK = 8
_BATCH_OF_STRINGS = [tf.TensorSpec([None], tf.string, name=features.IMAGE)]
_BATCH_OF_PIXELS = [tf.TensorSpec([None, None, None, 3], tf.uint8, name=features.IMAGE)]


class ServingModule(tf.Module):
    """A network between Transform's graph and the class maps that clients want."""

    def __init__(
        self,
        network: Any,
        transform_dir: str,
        metadata_file: str,
        input_size: tuple[int, int],
        max_pixels: int,
        looks: Looks = ONE_LOOK,
    ) -> None:
        """Connects the parts.

        Args:
            network: a Keras model, or what is called like one and has `variables`; from float32
                [B, H, W, 3], 0 to 255, to logits [B, H, W, N]; of any size, where `looks` are of several.
            transform_dir: Transform's output, whose graph decodes and resizes images.
            metadata_file: JSON that the signature `describe` returns.
            input_size: height and width of the network's input, in pixels.
            max_pixels: height times width of the largest image that is decoded.
            looks: whose probabilities are averaged.
        """
        super().__init__()
        # The weights are tracked as TensorFlow's own variables and the Keras model, in a lambda, is not:
        # a tracked Keras 3 model is saved with a second copy of each variable, and only that copy is
        # restored where TensorFlow Serving loads it ("Could not find variable").
        self._weights = [variable.value for variable in network.variables]
        self._logits = lambda pixels: network(pixels, training=False)
        # Transform's SavedModel itself, not `transform_features_layer()`, which is a tf_keras object.
        self._transform = tf.saved_model.load(os.path.join(transform_dir, "transform_fn"))
        self._metadata = tf.saved_model.Asset(metadata_file)
        self._input_size = input_size
        self._max_pixels = max_pixels
        self._looks = looks

    def signatures(self) -> dict[str, Any]:
        """Returns the signatures by name, as `tf.saved_model.save` takes them."""
        return {
            "serving_default": self.serving_default,
            "raw": self.raw,
            "probabilities": self.probabilities,
            "describe": self._describe(),
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
            mask_png_bytes: string [B], the class map as a grey PNG at each image's own size.
            class_share: float32 [B, num_classes], each class's share of the pixels.
            confidence: float32 [B], mean over pixels of the winning class's probability.
        """
        return self._segment(image)

    @tf.function(input_signature=_BATCH_OF_PIXELS)
    def raw(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments RGB images of one size, uint8 [B, H, W, 3]; returns what `serving_default` returns.

        PNG keeps every pixel, so Transform's graph sees what it would have seen in a PNG file.
        """
        encoded = encode_each(image, self._max_pixels)
        return self._segment(encoded)

    @tf.function(input_signature=_BATCH_OF_STRINGS)
    def probabilities(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `probabilities`, float32 [B, H, W, N] at the network's input size, for encoded images."""
        return {"probabilities": self._probabilities(image)}

    @tf.function(input_signature=_BATCH_OF_STRINGS)
    def evaluation(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns only `mask_png_bytes` of `serving_default`: what the metrics compare with the truth.

        The evaluation's batches grow to a thousand images; the network takes them in small chunks.
        """

        def masks(start: tf.Tensor) -> tf.Tensor:
            chunk = image[start : start + _CHUNK]
            return self._masks_at_own_size(chunk, self._probabilities(chunk, start, tf.size(image)))

        chunks = tf.map_fn(
            masks,
            tf.range(0, tf.size(image, out_type=tf.int64), _CHUNK),
            fn_output_signature=tf.RaggedTensorSpec([None], tf.string, ragged_rank=0),
            parallel_iterations=1,
        )
        return {features.MASK_PNG: chunks.flat_values}

    @tf.function(input_signature=_BATCH_OF_STRINGS)
    def preprocess(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `pixels`, uint8 [B, H, W, 3]: exactly what the network is fed for encoded images."""
        return {"pixels": self._pixels(image)}

    def _describe(self) -> Any:
        """Returns a signature whose `json`, string [B], is what the model says of itself, once for each unused string.

        TensorFlow Serving batches every signature, and a batch is counted by its inputs: there must be
        one. Its default lets a caller leave it out.
        """

        # Made here and not with the class: whoever imports this may still have to join other workers, which
        # TensorFlow refuses once it has computed something.
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="unused")])
        def describe(unused: tf.Tensor = tf.constant([""])) -> dict[str, tf.Tensor]:  # noqa: B008
            return {"json": tf.fill(tf.shape(unused), tf.io.read_file(self._metadata.asset_path))}

        return describe

    def _segment(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = self._probabilities(image)
        class_map = tf.cast(tf.argmax(probabilities, axis=-1), tf.uint8)
        one_hot = tf.one_hot(tf.cast(class_map, tf.int32), probabilities.shape[-1])
        return {
            "class_map": class_map,
            features.MASK_PNG: self._masks_at_own_size(image, probabilities),
            "class_share": tf.reduce_mean(one_hot, axis=[1, 2]),
            "confidence": tf.reduce_mean(tf.reduce_max(probabilities, axis=-1), axis=[1, 2]),
        }

    def _pixels(self, image: tf.Tensor, start: tf.Tensor | int = 0, total: tf.Tensor | None = None) -> tf.Tensor:
        """Returns what the network is fed; `start` and `total` place a chunk in the caller's batch."""
        output = tf.TensorSpec([*self._input_size, 3], tf.uint8)
        return decode_each(image, self._pixels_of_one, output, self._max_pixels, start, total)

    def _pixels_of_one(self, data: tf.Tensor) -> tf.Tensor:
        transform = self._transform.transform_fn
        # The graph wants every raw feature; only the image reaches the pixels.
        ((specs,), _) = transform.structured_input_signature
        raw = {name: _placeholder(name, spec) for name, spec in specs.items()}
        raw[features.IMAGE] = tf.reshape(data, tf.shape(raw[features.IMAGE]))
        resized = tf.reshape(transform(raw)[features.TRANSFORMED_IMAGE], [])
        return tf.ensure_shape(tf.io.decode_png(resized, channels=3), [*self._input_size, 3])

    def _probabilities(self, image: tf.Tensor, start: tf.Tensor | int = 0, total: tf.Tensor | None = None) -> tf.Tensor:
        pixels = tf.cast(self._pixels(image, start, total), tf.float32)
        return self._looks.average(self._softmax, pixels)

    def _softmax(self, pixels: tf.Tensor) -> tf.Tensor:
        logits = self._logits(pixels)
        return tf.nn.softmax(tf.cast(logits, tf.float32))

    def _masks_at_own_size(self, image: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        """Resizes probabilities to each image's size before the class is chosen, which keeps edges smooth."""

        def mask_png(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            data, scores = pair
            resized = tf.image.resize(scores, image_size(data), method="bilinear")
            indices = tf.argmax(resized, axis=-1, output_type=tf.int32)
            return tf.io.encode_png(tf.cast(indices, tf.uint8)[..., tf.newaxis], compression=1)

        # One at a time: at the largest size allowed, one image's probabilities take most of a gigabyte.
        return tf.map_fn(mask_png, (image, probabilities), parallel_iterations=1, fn_output_signature=tf.string)


def _placeholder(name: str, spec: tf.TensorSpec) -> tf.Tensor:
    """Returns a neutral value of a raw feature of one example that serving does not have; a mask must still decode."""
    shape = [1 if side is None else side for side in spec.shape]
    if spec.dtype != tf.string:
        return tf.zeros(shape, spec.dtype)
    empty = tf.io.encode_png(tf.zeros([1, 1, 1], tf.uint8)) if name == features.MASK else tf.constant("")
    return tf.fill(shape, empty)
