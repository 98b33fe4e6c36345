"""What a network does to pixels before its first convolution and to logits after its last.

Both are layers of the model itself, so that an exported model takes plain RGB and nobody has to
remember which scaling its weights were trained with.
"""

from __future__ import annotations

import contextlib
from typing import Any

import keras
from keras import ops

from trainer import precision

# Mean of ImageNet's training pixels in BGR order, as Caffe's VGG16 and `keras.applications.vgg16` subtract it.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)

# Mean and standard deviation of the same pixels in RGB order, 0 to 1. Source: `IMAGENET_DEFAULT_MEAN` and
# `IMAGENET_DEFAULT_STD` in timm/data/constants.py, timm 1.0.31.
_IMAGENET_MOMENTS_RGB = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Of pixels and class scores under mixed precision: bfloat16 cannot tell 200 from 201.
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


def minus_127_over_128(image: Any) -> Any:
    """Subtracts 127 from pixels, 0 to 255, [B, H, W, 3], and divides by 128: the input of pretrained EfficientNet-Lite.

    Source: `MEAN_RGB` and `STDDEV_RGB` in models/official/efficientnet/lite/efficientnet_lite_builder.py of
    tensorflow/tpu, commit 22d5cab.
    """
    return keras.layers.Rescaling(1 / 128, offset=-127 / 128, dtype=_DTYPE, name="minus_127_over_128")(image)


def imagenet_mean_and_deviation(image: Any) -> Any:
    """Subtracts ImageNet's mean from RGB, 0 to 255, [B, H, W, 3], and divides by its standard deviation.

    The input of pretrained ConvNeXt, and of networks that PyTorch's libraries trained on ImageNet.
    """
    mean, deviation = _IMAGENET_MOMENTS_RGB
    scales, offsets = zip(*((1 / (255 * d), -m / d) for m, d in zip(mean, deviation, strict=True)), strict=True)
    return keras.layers.Rescaling(scales, offset=offsets, dtype=_DTYPE, name="imagenet_mean_and_deviation")(image)


def scores_policy() -> contextlib.AbstractContextManager[None]:
    """Makes the layers in a `with` block, which compute class scores, float32, as Keras advises for the last layers.

    On a CPU with bfloat16, at 192x256, that costs nothing for FCN-8 and 2 % of a step for UNet of 32 filters. It mends
    the gradients of their biases: TensorFlow sums those of bfloat16 layers in bfloat16, and that of FCN-8's last layer
    was off by 98 % at 96x128. (Figures not by a command.)
    """
    return precision.policy(_DTYPE)


def float32_logits(logits: Any) -> Any:
    """Names the logits [B, H, W, num_classes], float32; the softmax belongs to the loss and to the export."""
    return keras.layers.Activation("linear", dtype=_DTYPE, name="logits")(logits)
