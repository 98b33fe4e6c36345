"""What a network does to pixels before its first convolution and to logits after its last.

Both are layers of the model itself, so that an exported model takes plain RGB and nobody has to
remember which scaling its weights were trained with.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# Mean of ImageNet's training pixels in BGR order, as Caffe's VGG16 and `keras.applications.vgg16` subtract it.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)

# Under mixed precision pixels stay float32, as bfloat16 cannot tell 200 from 201. Scores do not: they are computed
# in half precision, and handed on as float32 so that loss, softmax and metrics are.
_DTYPE = "float32"


@keras.saving.register_keras_serializable("segpipe")
class BgrMinusImagenetMean(keras.layers.Layer):
    """Turns RGB, 0 to 255, [..., 3], into BGR minus ImageNet's mean: the input of pretrained VGG16."""

    def call(self, inputs: Any) -> Any:
        """Returns the layer's output, float32, same shape as the inputs."""
        return ops.flip(inputs, axis=-1) - ops.convert_to_tensor(IMAGENET_MEAN_BGR, dtype=inputs.dtype)


def image_input(input_size: tuple[int | None, int | None]) -> Any:
    """Returns the symbolic input of every network: RGB, 0 to 255, float32 [B, height, width, 3]; uint8 is cast.

    A side that is None is known only when an image comes.
    """
    return keras.Input((*input_size, 3), dtype=_DTYPE, name="image")


def bgr_minus_imagenet_mean(image: Any) -> Any:
    """Applies `BgrMinusImagenetMean` to RGB, 0 to 255, [B, H, W, 3]."""
    return BgrMinusImagenetMean(dtype=_DTYPE, name="bgr_minus_imagenet_mean")(image)


def minus_one_to_one(image: Any) -> Any:
    """Scales pixels, 0 to 255, [B, H, W, 3], to -1 to 1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype=_DTYPE, name="minus_one_to_one")(image)


def float32_logits(logits: Any) -> Any:
    """Casts logits [B, H, W, num_classes] to float32; the softmax belongs to the loss and to the export.

    Under mixed precision they keep the rounding of the half precision that they were computed in.
    """
    return keras.layers.Activation("linear", dtype=_DTYPE, name="logits")(logits)
