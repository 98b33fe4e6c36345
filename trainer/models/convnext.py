"""ConvNeXt-Tiny without its classifier.

Sources: Liu et al. 2022, arXiv 2201.03545; keras/src/applications/convnext.py, Keras 3.12.4. Keras' own network has
grouped convolutions, which Keras compiles with XLA on a CPU (`conv` in keras/src/backend/tensorflow/nn.py), and
TensorFlow Serving has no XLA. A depthwise convolution computes the same. Stochastic depth is left out, as in Keras
(`drop_path_rate=0.0`).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

_DEPTHS = (3, 3, 9, 3)
_FILTERS = (96, 192, 384, 768)
_EPSILON = 1e-6
_INITIAL_SCALE = 1e-6


def _stage_layers(stage: int, depth: int) -> tuple[str, ...]:
    steps = ("depthwise", "norm", "expand", "project", "scale")
    downsample = (f"stage{stage}_downsample",) if stage > 1 else ()
    blocks = (f"stage{stage}_block{block}_{step}" for block in range(1, depth + 1) for step in steps)
    return (*downsample, *blocks, f"stage{stage}_norm")


# The layers with weights: the stem, and each stage. A stage, of stride 4, 8, 16 or 32, ends with the normalisation
# before the next stage or the classifier.
BLOCKS = (("stem_conv", "stem_norm"), *(_stage_layers(stage, depth) for stage, depth in enumerate(_DEPTHS, 1)))


@keras.saving.register_keras_serializable("segpipe")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel of [..., C] by a weight, 1e-6 at first (Touvron et al. 2021, arXiv 2103.17239)."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights, float32 [C]."""
        initial = keras.initializers.Constant(_INITIAL_SCALE)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=initial, name="gamma")

    def call(self, inputs: Any) -> Any:
        """Returns the scaled features."""
        return inputs * self.gamma


def ConvNeXtTiny(
    include_top: bool = False,
    weights: str | None = None,
    input_tensor: Any | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
) -> keras.Model:
    """Builds the network with the arguments of Keras Applications.

    Args:
        include_top: must be False, because the classifier is left out.
        weights: None for random weights, "imagenet" for those that Keras downloads.
        input_tensor: pre-processed pixels [B, H, W, 3], with H and W multiples of 32; None for a new input.
        input_shape: height, width and channels of a new input.

    Returns:
        A model from pre-processed pixels [B, H, W, 3] to features [B, H/32, W/32, 768].
    """
    if include_top:
        raise ValueError("convnext_tiny: include_top is True, expected False; the classifier is not part of it")
    image = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = keras.layers.Conv2D(_FILTERS[0], 4, strides=4, name="stem_conv")(image)
    x = _normalized(x, "stem_norm")
    for stage, (depth, filters) in enumerate(zip(_DEPTHS, _FILTERS, strict=True), 1):
        if stage > 1:
            # No padding yet: `dilation` sets it when it removes the stride.
            x = keras.layers.ZeroPadding2D(0, name=f"stage{stage}_pad")(x)
            x = keras.layers.Conv2D(filters, 2, strides=2, name=f"stage{stage}_downsample")(x)
        for block in range(1, depth + 1):
            x = _block(x, f"stage{stage}_block{block}")
        x = _normalized(x, f"stage{stage}_norm")
    model = keras.Model(image, x, name="convnext_tiny")
    if weights == "imagenet":
        model.set_weights(keras_weights(application(weights), model))
    return model


def application(weights: str | None = None) -> keras.Model:
    """Builds Keras' own network, which fits weights files of Keras."""
    return keras.applications.ConvNeXtTiny(include_top=False, include_preprocessing=False, weights=weights)


def keras_weights(application: keras.Model, model: keras.Model) -> list[np.ndarray]:
    """Reshapes the weights of Keras' network, whose layers are in the same order, to those of this one."""
    pairs = zip(application.get_weights(), model.weights, strict=True)
    return [np.reshape(array, weight.shape) for array, weight in pairs]


def _block(inputs: Any, name: str) -> Any:
    filters = inputs.shape[-1]
    x = keras.layers.DepthwiseConv2D(7, padding="same", name=f"{name}_depthwise")(inputs)
    x = _normalized(x, f"{name}_norm")
    x = keras.layers.Conv2D(4 * filters, 1, activation="gelu", name=f"{name}_expand")(x)
    x = keras.layers.Conv2D(filters, 1, name=f"{name}_project")(x)
    x = LayerScale(name=f"{name}_scale")(x)
    return keras.layers.Add(name=f"{name}_add")([inputs, x])


def _normalized(x: Any, name: str) -> Any:
    return keras.layers.LayerNormalization(epsilon=_EPSILON, name=name)(x)
