"""Int8 networks for LiteRT (TensorFlow Lite): post-training quantisation, and running the result on XNNPACK.

TensorFlow Serving cannot run it behind encoded images, so the file is stored in the SavedModel's folder for devices
that run LiteRT.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from components.errors import UsageError
from serving.folding import FrozenNetwork

# In an exported model. TensorFlow Serving's --prefer_tflite_model looks for this name.
LITERT_FILE = "model.tflite"


def quantize(
    network: keras.Model, input_size: tuple[int, int], calibration: Callable[[], Iterator[np.ndarray]]
) -> bytes:
    """Converts a network to int8 weights and activations, except at its input and output.

    Source: Jacob et al. 2018, Quantization and Training of Neural Networks, arXiv 1712.05877.

    Args:
        network: a float32 network without batch norms behind convolutions; see `serving.folding.fold`.
        input_size: height and width in pixels.
        calibration: yields typical images, float32 [H, W, 3], 0 to 255, to measure the ranges of activations.

    Raises:
        UsageError: LiteRT does not support one of the network's operations.

    Returns:
        A LiteRT model from float32 [1, H, W, 3], 0 to 255, to logits, float32 [1, H, W, N].
    """
    graph = FrozenNetwork(network, input_size, batch=1).graph
    # LiteRT's own packages do not convert TensorFlow graphs.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([pixels[np.newaxis]] for pixels in calibration())
    try:
        return converter.convert()
    # The converter's exception class is not public.
    except Exception as error:
        raise UsageError(
            f"export.variants: found int8 for {network.name}, expected a network that LiteRT supports; leave int8 out. "
            f"Error of its converter: {str(error).strip().splitlines()[0]}"
        ) from error


class LiteRTNetwork:
    """A LiteRT model called like a Keras model. A graph that contains it cannot be exported."""

    variables = ()

    def __init__(self, content: bytes) -> None:
        """Loads a model, with one thread per processor."""
        self._interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def __call__(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits, float32 [B, H, W, N], for pixels, float32 [B, H, W, 3]."""
        del training
        logits = tf.numpy_function(self._run, [pixels], tf.float32)
        return tf.ensure_shape(logits, [None, *self._output["shape"][1:]])

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        answers = np.empty((len(pixels), *self._output["shape"][1:]), np.float32)
        for place in range(len(pixels)):
            self._interpreter.set_tensor(self._input["index"], pixels[place : place + 1])
            self._interpreter.invoke()
            answers[place] = self._interpreter.get_tensor(self._output["index"])[0]
        return answers
