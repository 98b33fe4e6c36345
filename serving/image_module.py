"""Base of every exported model: decodes images for the network, and returns the model's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from components import features
from serving.decoding import decode_each
from serving.transform_graph import TransformGraph

# Images per call of the network if a caller's batch may be large.
_CHUNK = 8
BATCH_OF_STRINGS = [tf.TensorSpec([None], tf.string, name=features.IMAGE)]


class ImageModule(tf.Module):
    """A network behind Transform's graph, so that serving sees the same pixels as training."""

    def __init__(self, network: Any, transform_dir: str, metadata_file: str, metadata: Mapping[str, Any]) -> None:
        """Loads Transform's graph.

        Args:
            network: a Keras model, or a callable like one with `variables`; from float32 [B, H, W, 3], 0 to 255.
            transform_dir: Transform's output, whose graph decodes and resizes images.
            metadata_file: JSON that the signature `describe` returns.
            metadata: what `export` writes into the file. `input_size` is the height and width of the network's input,
                in pixels; `max_pixels` is the height times width of the largest image to decode.
        """
        super().__init__()
        # Tracks the weights as TensorFlow variables, and hides the Keras model in a lambda: a tracked Keras 3 model is
        # saved with a second copy of each variable, and TensorFlow Serving restores only that copy ("Could not find
        # variable").
        self._weights = [variable.value for variable in network.variables]
        self._network = lambda pixels: network(pixels, training=False)
        # `transform_features_layer()` is not used: it is a tf_keras object and returns PNG.
        self._transform = TransformGraph(transform_dir)
        self._metadata = tf.saved_model.Asset(metadata_file)
        self._input_size = tuple(metadata["input_size"])
        self._max_pixels = metadata["max_pixels"]

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def preprocess(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `pixels`, uint8 [B, H, W, 3]: the exact input of the network for encoded images."""
        return {"pixels": self._pixels(image)}

    def _describe(self) -> Any:
        """Returns a signature with the output `json`, string [B]: the model's metadata, once for each `unused` string.

        TensorFlow Serving batches every signature and counts a batch by its inputs, so there must be one. It has a
        default, so callers can leave it out.
        """

        # Defined here because the default value is a tensor: after TensorFlow has computed one, it refuses to join
        # other workers, so importing this module must not compute any.
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="unused")])
        def describe(unused: tf.Tensor = tf.constant([""])) -> dict[str, tf.Tensor]:  # noqa: B008
            return {"json": tf.fill(tf.shape(unused), tf.io.read_file(self._metadata.asset_path))}

        return describe

    def _in_chunks(
        self,
        image: tf.Tensor,
        predict: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Mapping[str, tf.Tensor]],
        outputs: Mapping[str, tf.TensorSpec],
    ) -> dict[str, tf.Tensor]:
        """Predicts a large batch in small chunks.

        Args:
            image: string [B].
            predict: from a chunk, its place in the batch and B to tensors by name, [chunk, ...] each.
            outputs: the outputs to return, with their shape for one image.
        """

        def chunk(start: tf.Tensor) -> dict[str, tf.Tensor]:
            found = predict(image[start : start + _CHUNK], start, tf.size(image))
            return {name: found[name] for name in outputs}

        chunks = tf.map_fn(
            chunk,
            tf.range(0, tf.size(image, out_type=tf.int64), _CHUNK),
            fn_output_signature={
                name: tf.RaggedTensorSpec([None, *spec.shape], spec.dtype, ragged_rank=0)
                for name, spec in outputs.items()
            },
            parallel_iterations=1,
        )
        return {name: each.flat_values for name, each in chunks.items()}

    def _pixels(self, image: tf.Tensor, start: tf.Tensor | int = 0, total: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the network's input; `start` and `total` give the chunk's place in the caller's batch, for errors."""
        output = tf.TensorSpec([*self._input_size, 3], tf.uint8)
        return decode_each(image, self._pixels_of_one, output, self._max_pixels, start, total)

    def _pixels_of_one(self, data: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(self._transform.pixels(data[tf.newaxis])[0], [*self._input_size, 3])
