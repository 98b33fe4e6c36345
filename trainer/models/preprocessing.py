"""The first and last layers of every network: pre-processing of pixels, and float32 logits.

Because they are part of the model, an exported model takes plain RGB whatever scaling its weights expect.
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

# Of pixels and class scores even in mixed precision: bfloat16 cannot tell 200 from 201.
_DTYPE = "float32"


@keras.saving.register_keras_serializable("segpipe")
class BgrMinusImagenetMean(keras.layers.Layer):
    """Turns RGB, 0 to 255, [..., 3], into BGR minus ImageNet's mean: the input of pretrained VGG16 and ResNet50."""

    def call(self, inputs: Any) -> Any:
        """Returns float32 of the same shape."""
        return ops.flip(inputs, axis=-1) - ops.convert_to_tensor(IMAGENET_MEAN_BGR, dtype=inputs.dtype)


def image_input(input_size: tuple[int | None, int | None]) -> Any:
    """Returns a network's symbolic input, RGB, 0 to 255, float32 [B, H, W, 3]; uint8 is cast, None is any size."""
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

    The input of pretrained ConvNeXt, and of networks that were trained with PyTorch's libraries.
    """
    mean, deviation = _IMAGENET_MOMENTS_RGB
    scales, offsets = zip(*((1 / (255 * d), -m / d) for m, d in zip(mean, deviation, strict=True)), strict=True)
    return keras.layers.Rescaling(scales, offset=offsets, dtype=_DTYPE, name="imagenet_mean_and_deviation")(image)


def scores_policy() -> contextlib.AbstractContextManager[None]:
    """Returns a context in which layers are float32, for class scores, as Keras advises for the last layers.

    TensorFlow sums the bias gradients of bfloat16 layers in bfloat16; that of FCN-8's last layer was wrong by 98 % at
    96x128. On a CPU with bfloat16, at 192x256, float32 costs nothing for FCN-8 and 2 % of a step for UNet with 32
    filters. (Not measured by a script.)
    """
    return precision.policy(_DTYPE)


def float32_logits(logits: Any) -> Any:
    """Names the logits and casts them to float32; the softmax belongs to the loss and to the export."""
    return keras.layers.Activation("linear", dtype=_DTYPE, name="logits")(logits)
