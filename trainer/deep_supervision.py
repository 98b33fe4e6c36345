"""Trains layers inside a network on the masks directly, beside the network's own output.

The network itself stays as it is: the heads belong to a second model around the same layers, which
only the steps of a training see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.losses import Loss
from trainer.models import preprocessing


def attach(model: keras.Model, layer_names: Sequence[str], num_classes: int) -> keras.Model:
    """Returns a model around the same layers that gives a list: the network's logits, then each head's.

    A head is a 1x1 convolution to logits of the layer's own height and width; see `loss`.
    Source: Lee et al. 2015, arXiv 1409.5185.

    Args:
        model: from images to logits, [B, H, W, num_classes]; it is not changed, and H and W may be unknown.
        layer_names: layers with outputs [B, h, w, C]; without any, the model itself is returned.
        num_classes: channels of the logits.
    """
    if not layer_names:
        return model
    outputs = [model.output, *(_head(model, name, num_classes) for name in layer_names)]
    return keras.Model(model.input, outputs, name=model.name)


def loss(objective: Loss, masks: tf.Tensor, heads: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the mean loss of some heads, each at its own size, float32 [].

    The masks shrink to it, which costs a fraction of enlarging the logits. Source: nnU-Net, Isensee
    et al. 2021, https://doi.org/10.1038/s41592-020-01008-z; its weights halve with the size, these are equal.

    Args:
        objective: the loss of the network's own output.
        masks: class indices or padding, int32 [B, H, W].
        heads: logits, float32 [B, h, w, num_classes].
    """
    return tf.add_n([objective(_shrunk(masks, logits), logits) for logits in heads]) / len(heads)


def _shrunk(masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns masks of the height and width of the logits, as tf.image.resize(method="nearest") would."""
    # By gathers: TensorFlow resizes integers on the CPU alone.
    for axis in (1, 2):
        length, source = tf.shape(logits)[axis], tf.shape(masks)[axis]
        masks = tf.gather(masks, (2 * tf.range(length) + 1) * source // (2 * length), axis=axis)
    return masks


def _head(model: keras.Model, layer_name: str, num_classes: int) -> Any:
    features = model.get_layer(layer_name).output
    with preprocessing.scores_policy():
        logits = keras.layers.Conv2D(num_classes, 1, name=f"{layer_name}_supervision")(features)
    # Handed on as float32 under every policy, as the network's own.
    return keras.layers.Activation("linear", dtype="float32", name=f"{layer_name}_supervision_logits")(logits)
