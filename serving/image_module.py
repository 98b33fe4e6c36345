"""What every exported model does: encoded images to the network's pixels, and a description of itself."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from components import features
from serving.decoding import decode_each
from serving.transform_graph import TransformGraph

# Images that the network takes at once where a caller's batch may be large.
CHUNK = 8
BATCH_OF_STRINGS = [tf.TensorSpec([None], tf.string, name=features.IMAGE)]


class ImageModule(tf.Module):
    """A network behind Transform's graph, so that serving sees the pixels that training saw."""

    def __init__(
        self, network: Any, transform_dir: str, metadata_file: str, input_size: tuple[int, int], max_pixels: int
    ) -> None:
        """Connects the parts.

        Args:
            network: a Keras model, or what is called like one and has `variables`; from float32 [B, H, W, 3], 0 to 255.
            transform_dir: Transform's output, whose graph decodes and resizes images.
            metadata_file: JSON that the signature `describe` returns.
            input_size: height and width of the network's input, in pixels.
            max_pixels: height times width of the largest image that is decoded.
        """
        super().__init__()
        # The weights are tracked as TensorFlow's own variables and the Keras model, in a lambda, is not:
        # a tracked Keras 3 model is saved with a second copy of each variable, and only that copy is
        # restored where TensorFlow Serving loads it ("Could not find variable").
        self._weights = [variable.value for variable in network.variables]
        self._network = lambda pixels: network(pixels, training=False)
        # Not `transform_features_layer()`, which is a tf_keras object and ends in PNG.
        self._transform = TransformGraph(transform_dir)
        self._metadata = tf.saved_model.Asset(metadata_file)
        self._input_size = tuple(input_size)
        self._max_pixels = max_pixels

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def preprocess(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `pixels`, uint8 [B, H, W, 3]: exactly what the network is fed for encoded images."""
        return {"pixels": self._pixels(image)}

    def _describe(self) -> Any:
        """Returns a signature whose `json`, string [B], is what the model says of itself, once for each unused string.

        TensorFlow Serving batches every signature, and a batch is counted by its inputs: there must be
        one. Its default lets a caller leave it out.
        """

        # The default value is a tensor, and TensorFlow refuses to join other workers once it has computed one. So
        # importing this module must not make it.
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="unused")])
        def describe(unused: tf.Tensor = tf.constant([""])) -> dict[str, tf.Tensor]:  # noqa: B008
            return {"json": tf.fill(tf.shape(unused), tf.io.read_file(self._metadata.asset_path))}

        return describe

    def _pixels(self, image: tf.Tensor, start: tf.Tensor | int = 0, total: tf.Tensor | None = None) -> tf.Tensor:
        """Returns what the network is fed; `start` and `total` place a chunk in the caller's batch."""
        output = tf.TensorSpec([*self._input_size, 3], tf.uint8)
        return decode_each(image, self._pixels_of_one, output, self._max_pixels, start, total)

    def _pixels_of_one(self, data: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(self._transform.pixels(data[tf.newaxis])[0], [*self._input_size, 3])
