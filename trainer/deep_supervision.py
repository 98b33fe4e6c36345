"""Deep supervision: trains layers inside a network directly on the masks, with auxiliary heads.

The network itself does not change: the heads belong to a second model around the same layers, used only for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.losses import Loss
from trainer.models import preprocessing


def attach(model: keras.Model, layer_names: Sequence[str], num_classes: int) -> keras.Model:
    """Returns a model around the same layers with a list of outputs: the network's logits, then each head's.

    A head is a 1x1 convolution to logits of the layer's own height and width; see `loss`.
    Source: Lee et al. 2015, arXiv 1409.5185.

    Args:
        model: from images to logits, [B, H, W, num_classes]; H and W may be unknown.
        layer_names: layers with outputs [B, h, w, C]; if empty, returns the model itself.
        num_classes: channels of the logits.
    """
    if not layer_names:
        return model
    outputs = [model.output, *(_head(model, name, num_classes) for name in layer_names)]
    return keras.Model(model.input, outputs, name=model.name)


def loss(objective: Loss, masks: tf.Tensor, heads: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the mean loss of the heads, each at its own size, float32 [].

    Shrinks the masks, which is cheaper than enlarging the logits. Source: nnU-Net, Isensee et al. 2021,
    https://doi.org/10.1038/s41592-020-01008-z, but with equal weights instead of weights that halve with the size.

    Args:
        objective: the loss of the network's own output.
        masks: class indices or padding, int32 [B, H, W].
        heads: logits, float32 [B, h, w, num_classes].
    """
    return tf.add_n([objective(_shrunk(masks, logits), logits) for logits in heads]) / len(heads)


def _shrunk(masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Resizes masks to the height and width of the logits, like tf.image.resize(method="nearest")."""
    # Uses gathers, because TensorFlow resizes integers only on the CPU.
    for axis in (1, 2):
        length, source = tf.shape(logits)[axis], tf.shape(masks)[axis]
        masks = tf.gather(masks, (2 * tf.range(length) + 1) * source // (2 * length), axis=axis)
    return masks


def _head(model: keras.Model, layer_name: str, num_classes: int) -> Any:
    features = model.get_layer(layer_name).output
    with preprocessing.scores_policy():
        logits = keras.layers.Conv2D(num_classes, 1, name=f"{layer_name}_supervision")(features)
    # float32 under every policy, like the network's own logits.
    return keras.layers.Activation("linear", dtype="float32", name=f"{layer_name}_supervision_logits")(logits)
