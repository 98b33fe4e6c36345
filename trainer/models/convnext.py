"""ConvNeXt-Tiny without its classifier.

Sources: Liu et al. 2022, arXiv 2201.03545; keras/src/applications/convnext.py, Keras 3.12.4. Keras' own network is not
used because it has grouped convolutions. On a CPU, Keras compiles those with XLA (`conv` in
keras/src/backend/tensorflow/nn.py), and TensorFlow Serving has no XLA. A depthwise convolution computes the same.
Stochastic depth is left out, as Keras leaves it out (`drop_path_rate=0.0`).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

_DEPTHS = (3, 3, 9, 3)
_FILTERS = (96, 192, 384, 768)
_EPSILON = 1e-6
_INITIAL_SCALE = 1e-6

# The last layers at strides 4, 8, 16 and 32: the normalisation before the next stage or the classifier.
FEATURES = ("stage1_norm", "stage2_norm", "stage3_norm", "stage4_norm")


@keras.saving.register_keras_serializable("segpipe")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel of [..., C] by a weight that begins as 1e-6.

    Source: Touvron et al. 2021, arXiv 2103.17239.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights, float32 [C]."""
        initial = keras.initializers.Constant(_INITIAL_SCALE)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=initial, name="gamma")

    def call(self, inputs: Any) -> Any:
        """Returns the scaled features."""
        return inputs * self.gamma


def layers_with_weights() -> tuple[tuple[str, ...], ...]:
    """Returns the names of the layers with weights: those of the stem, and of each stage."""
    steps = ("depthwise", "norm", "expand", "project", "scale")
    stages = [
        (
            *((f"stage{stage}_downsample",) if stage > 1 else ()),
            *(f"stage{stage}_block{block}_{step}" for block in range(1, depth + 1) for step in steps),
            f"stage{stage}_norm",
        )
        for stage, depth in enumerate(_DEPTHS, 1)
    ]
    return (("stem_conv", "stem_norm"), *stages)


def ConvNeXtTiny(
    include_top: bool = False,
    weights: str | None = None,
    input_tensor: Any | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
) -> keras.Model:
    """Builds the network as the constructors of Keras Applications do.

    Args:
        include_top: must be False, because the classifier is left out.
        weights: None for random weights, "imagenet" for those that Keras downloads.
        input_tensor: prepared pixels [B, H, W, 3], of a height and width that 32 divides; None for a new input.
        input_shape: height, width and channels of a new input.

    Returns:
        A model from prepared pixels [B, H, W, 3] to features [B, H/32, W/32, 768].
    """
    if include_top:
        raise ValueError("convnext_tiny: include_top is True, expected False; the classifier is not part of it")
    image = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = keras.layers.Conv2D(_FILTERS[0], 4, strides=4, name="stem_conv")(image)
    x = _normalized(x, "stem_norm")
    for stage, (depth, filters) in enumerate(zip(_DEPTHS, _FILTERS, strict=True), 1):
        if stage > 1:
            # Without effect here: `dilation` fills it in when it takes out the stride.
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
    """Builds Keras' own network, which its files fit."""
    return keras.applications.ConvNeXtTiny(include_top=False, include_preprocessing=False, weights=weights)


def keras_weights(application: keras.Model, model: keras.Model) -> list[np.ndarray]:
    """Returns the weights of Keras' network in the shapes of this one's, whose layers are in the same order."""
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
