"""Builds any architecture by its name, and checks that the input size suits it.

A new architecture is a file with `STRIDE` and `build`, and one line here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras

from components.errors import UsageError
from trainer import encoder_weights
from trainer.config import ModelSettings
from trainer.models import fcn8, fcn8_conv7, fcn16, fcn32, unet, vgg16


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What the registry knows of a network.

    Attributes:
        build: returns the network with random weights, for settings, input size and number of classes.
        stride: height and width of the input must be multiples of it, in pixels.
        encoder: name of the encoder that pretrained weights fit, or None.
    """

    build: Callable[[ModelSettings, tuple[int | None, int | None], int], keras.Model]
    stride: int
    encoder: str | None


ARCHITECTURES = {
    "fcn8": Architecture(fcn8.build, fcn8.STRIDE, encoder="vgg16"),
    "fcn16": Architecture(fcn16.build, fcn16.STRIDE, encoder="vgg16"),
    "fcn32": Architecture(fcn32.build, fcn32.STRIDE, encoder="vgg16"),
    "fcn8_conv7": Architecture(fcn8_conv7.build, fcn8_conv7.STRIDE, encoder="vgg16"),
    "unet": Architecture(unet.build, unet.STRIDE, encoder=None),
}


def build(settings: ModelSettings, input_size: tuple[int, int] | None, num_classes: int) -> keras.Model:
    """Builds a network and loads its pretrained encoder, if the settings name one.

    Args:
        settings: architecture and options.
        input_size: height and width of the input in pixels; None for a network that takes any that its stride divides.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, uint8 or float32 [B, H, W, 3], to logits, float32
        [B, H, W, num_classes]. Pre-processing is part of it.

    Raises:
        UsageError: for an input size that the stride does not divide, or pretrained weights that
            the architecture has no place for or that cannot be read.
        SegpipeError: when weights cannot be downloaded.
    """
    architecture = ARCHITECTURES[settings.name]
    if input_size is not None:
        check_input_size(settings.name, input_size)
    if settings.encoder_weights != "none" and architecture.encoder is None:
        raise UsageError(
            f"model.encoder_weights: found {settings.encoder_weights!r}, but {settings.name} has no pretrained "
            "encoder; set it to none, or choose model.name fcn8"
        )
    model = architecture.build(settings, input_size or (None, None), num_classes)
    encoder_weights.load(model, settings.encoder_weights)
    return model


def freeze(model: keras.Model, settings: ModelSettings, blocks: int) -> None:
    """Lets the first blocks of a pretrained encoder keep their weights; call it before `compile`.

    Raises:
        UsageError: when the encoder starts from random weights, or there is none.
    """
    if not blocks:
        return
    if settings.encoder_weights == "none":
        raise UsageError(
            f"training.frozen_blocks: found {blocks}, but model.encoder_weights is none; set it to 0, "
            "or choose pretrained weights: random ones must learn"
        )
    prefixes = tuple(f"block{index}_" for index in range(1, blocks + 1))
    for name in vgg16.layer_names():
        if name.startswith(prefixes):
            model.get_layer(name).trainable = False


def check_input_size(name: str, input_size: tuple[int, int]) -> None:
    """Raises UsageError where an architecture's stride does not divide a side, naming the sizes that fit."""
    stride = ARCHITECTURES[name].stride
    for side, found in zip(("height", "width"), input_size, strict=True):
        if found >= stride and found % stride == 0:
            continue
        below = found // stride * stride
        nearest = f"{below} or {below + stride}" if below else f"{stride}"
        raise UsageError(
            f"input size {input_size[0]}x{input_size[1]}: {name} needs a {side} that {stride} divides, "
            f"found {found}; use {nearest}"
        )
