"""Trains layers inside a network on the masks directly, beside the network's own output.

The network itself stays as it is: the heads belong to a second model around the same layers, which
only the steps of a training see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def attach(model: keras.Model, layer_names: Sequence[str], num_classes: int) -> keras.Model:
    """Returns a model around the same layers that gives a list: the network's logits, then each head's.

    A head is a 1x1 convolution to logits, which are resized to the size of the network's own.
    Sources: Lee et al. 2015, arXiv 1409.5185; Zhao et al. 2017, arXiv 1612.01105, section 3.3, who
    give the loss of their PSPNet's one head a weight of 0.4.

    Args:
        model: from images to logits, [B, H, W, num_classes]; it is not changed, and H and W may be unknown.
        layer_names: layers with outputs [B, h, w, C]; without any, the model itself is returned.
        num_classes: channels of the logits.
    """
    if not layer_names:
        return model
    outputs = [model.output, *(_head(model, name, num_classes) for name in layer_names)]
    return keras.Model(model.input, outputs, name=model.name)


class ResizeLike(keras.layers.Layer):
    """Resizes features [B, h, w, C], bilinearly, to the height and width of a reference [B, H, W, N]."""

    def call(self, features: Any, reference: Any) -> Any:
        """Returns the features, [B, H, W, C]."""
        return ops.image.resize(features, ops.shape(reference)[1:3], interpolation="bilinear")

    def compute_output_shape(self, features_shape: Any, reference_shape: Any) -> Any:
        """Returns the shape of `call`'s result."""
        return (*reference_shape[:3], features_shape[-1])


def _head(model: keras.Model, layer_name: str, num_classes: int) -> Any:
    features = model.get_layer(layer_name).output
    logits = keras.layers.Conv2D(num_classes, 1, name=f"{layer_name}_supervision")(features)
    # Logits are float32 under every policy, as the network's own.
    return ResizeLike(dtype="float32", name=f"{layer_name}_supervision_logits")(logits, model.output)
