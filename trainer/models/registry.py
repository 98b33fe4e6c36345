"""Builds any architecture by its name, and checks that the input size suits it.

A new architecture is a file with `STRIDE`, `build` and `deep_layers`, and one entry here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import keras

from components.errors import UsageError
from trainer.config import ModelSettings, TrainingSettings
from trainer.models import (
    deeplabv3plus,
    depth_decoder,
    encoder_unet,
    encoder_weights,
    encoders,
    fcn8,
    fcn8_conv7,
    fcn16,
    fcn32,
    fcn_encoder,
    preprocessing,
    pspnet,
    segformer,
    segnet,
    unet,
)
from trainer.models.mask_rcnn import model as mask_rcnn


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What the registry knows of a network.

    Attributes:
        build: returns the network with random weights, for settings, input size and number of classes.
        stride: height and width of the input must be multiples of it, in pixels.
        deep_layers: returns the layers on whose output a training may put auxiliary scores, for settings.
        encoder: name of its source's encoder; None for one of its own that no pretrained weights fit.
        encoder_choices: what `model.encoder` may choose.
        upsampling_choices: what `model.upsampling` may choose.
        options: the settings in `OPTIONS` that it has a place for.
        source_options: those that it has a place for on its source's encoder alone.
        min_batch: least number of images a step; batch normalisation of features of one place needs two.
        blocks: the encoder's layers with weights, block by block, where it is not as Keras Applications has it.
        on_encoder: the architecture where `model.encoder` chooses one, if that is another network.
    """

    build: Callable[[ModelSettings, tuple[int | None, int | None], int], keras.Model]
    stride: int
    deep_layers: Callable[[ModelSettings], tuple[str, ...]]
    encoder: str | None = "vgg16"
    encoder_choices: tuple[str, ...] = tuple(encoders.ENCODERS)
    upsampling_choices: tuple[str, ...] = ("transposed", "nearest", "bilinear")
    options: tuple[str, ...] = ("normalization",)
    source_options: tuple[str, ...] = ()
    min_batch: int = 1
    blocks: encoders.Blocks | None = None
    on_encoder: Architecture | None = None


# Settings of the network that not every architecture has a place for.
_INSTANCE_OPTIONS = ("pyramid_filters", "proposals", "max_instances", "min_score")
OPTIONS = ("normalization", "base_filters", "head_filters", "dropout", "depth", *_INSTANCE_OPTIONS)

# The attention of MiT-B0 reads its features at fixed strides.
_DILATABLE = tuple(name for name in encoders.ENCODERS if name != "mit_b0")

ARCHITECTURES = {
    "fcn8": Architecture(
        fcn8.build, fcn8.STRIDE, fcn_encoder.deep_layers, options=("normalization", "head_filters", "depth")
    ),
    "fcn16": Architecture(fcn16.build, fcn16.STRIDE, fcn_encoder.deep_layers, source_options=("dropout",)),
    "fcn32": Architecture(fcn32.build, fcn32.STRIDE, fcn_encoder.deep_layers, source_options=("dropout",)),
    "fcn8_conv7": Architecture(
        fcn8_conv7.build, fcn8_conv7.STRIDE, fcn_encoder.deep_layers, encoder_choices=("vgg16",)
    ),
    "unet": Architecture(
        unet.build,
        unet.STRIDE,
        unet.deep_layers,
        encoder=None,
        options=("normalization", "base_filters", "dropout", "depth"),
        on_encoder=Architecture(
            encoder_unet.build,
            encoder_unet.STRIDE,
            encoder_unet.deep_layers,
            options=("normalization", "base_filters", "dropout", "depth"),
        ),
    ),
    "segnet": Architecture(
        segnet.build,
        segnet.STRIDE,
        segnet.deep_layers,
        encoder_choices=("vgg16",),
        upsampling_choices=(),
        options=(),
        blocks=segnet.BLOCKS,
    ),
    "pspnet": Architecture(
        pspnet.build,
        pspnet.STRIDE,
        pspnet.deep_layers,
        encoder=pspnet.ENCODER,
        options=("dropout",),
        encoder_choices=_DILATABLE,
        min_batch=pspnet.MIN_BATCH,
    ),
    "deeplabv3plus": Architecture(
        deeplabv3plus.build,
        deeplabv3plus.STRIDE,
        deeplabv3plus.deep_layers,
        encoder=deeplabv3plus.ENCODER,
        encoder_choices=_DILATABLE,
        options=("dropout",),
        min_batch=deeplabv3plus.MIN_BATCH,
    ),
    "segformer": Architecture(
        segformer.build,
        segformer.STRIDE,
        segformer.deep_layers,
        encoder=segformer.ENCODER,
        encoder_choices=(segformer.ENCODER,),
        options=("dropout",),
    ),
    "mask_rcnn": Architecture(
        mask_rcnn.build,
        mask_rcnn.STRIDE,
        mask_rcnn.deep_layers,
        encoder=mask_rcnn.ENCODER,
        upsampling_choices=(),
        options=_INSTANCE_OPTIONS,
    ),
}


def build(
    settings: ModelSettings, input_size: tuple[int, int] | None, num_classes: int, pretrained: bool = True
) -> keras.Model:
    """Builds a network and loads its pretrained encoder, if the settings name one.

    Args:
        settings: architecture and options.
        input_size: height and width of the input in pixels; None for a network that takes any that its stride divides.
        num_classes: channels of the logits; for instances, number of classes that have some.
        pretrained: False leaves the encoder's weights random too, for a network whose weights come from elsewhere.

    Returns:
        A model from RGB, 0 to 255, uint8 or float32 [B, H, W, 3], to logits, float32
        [B, H, W, num_classes], or to what `mask_rcnn.model.build` or, with `depth`, `depth_decoder.attach` says.
        Pre-processing is part of it.

    Raises:
        UsageError: for an input size that the stride does not divide, an encoder, upsampling or option
            that the architecture has not, or pretrained weights that it has no place for or that cannot be read.
        SegpipeError: when weights cannot be downloaded.
    """
    check_options(settings)
    if input_size is not None:
        check_input_size(settings, "size", input_size)
    architecture = _architecture(settings.name, settings.encoder)
    model = architecture.build(settings, input_size or (None, None), num_classes)
    if pretrained and settings.encoder_weights != "none":
        encoder_weights.load(model, settings.encoder_weights, encoder_name(settings) or "")
    if settings.depth:
        name = encoder_name(settings)
        model = depth_decoder.attach(model, encoders.ENCODERS[name].deepest if name else unet.DEEPEST)
    return model


def check(settings: ModelSettings, size: tuple[int, int], training: TrainingSettings) -> None:
    """Checks all that settings tell before anything is built.

    Args:
        settings: the network.
        size: height and width of the images in pixels.
        training: `crop_size`, `frozen_blocks`, `encoder_lr_multiplier`, `deep_supervision` and `proposals`.

    Raises:
        UsageError: for options that do not fit the network, a size of images or windows that does not, frozen
            blocks that start from random weights, or a rate of an encoder that the network does not have.
    """
    if settings.task == "instance":
        _check_semantic_settings(settings, training)
    check_options(settings)
    check_input_size(settings, "size", size)
    if training.crop_size:
        check_input_size(settings, "training.crop_size", training.crop_size)
    if training.frozen_blocks and settings.encoder_weights == "none":
        raise UsageError(
            f"training.frozen_blocks: found {training.frozen_blocks}, but model.encoder_weights is none; set it to 0, "
            "or choose pretrained weights: random ones must learn"
        )
    if training.encoder_lr_multiplier < 1 and not encoder_blocks(settings):
        raise UsageError(
            f"training.encoder_lr_multiplier: found {training.encoder_lr_multiplier}, but {settings.name} has no "
            "encoder apart from the rest; set it to 1, or choose one by model.encoder"
        )


def _check_semantic_settings(settings: ModelSettings, training: TrainingSettings) -> None:
    """Raises UsageError for settings that a network of instances has no place for."""
    for group, found, names in (
        ("model", settings, ("test_time_flip", "test_time_scales")),
        ("training", training, ("crop_size", "deep_supervision")),
    ):
        for name in names:
            value, default = getattr(found, name), type(found).model_fields[name].default
            if value != default:
                raise UsageError(
                    f"{group}.{name}: found {value}, but {settings.name} has no place for it; leave it at "
                    f"{'null' if default is None else str(default).lower()}"
                )


def check_options(settings: ModelSettings) -> None:
    """Raises UsageError for an encoder, its weights, a way to upsample or an option that a network has no place for."""
    architecture = ARCHITECTURES[settings.name]
    for option, fitting in (("encoder", architecture.encoder_choices), ("upsampling", architecture.upsampling_choices)):
        found = getattr(settings, option)
        if found not in ("default", *fitting):
            raise UsageError(
                f"model.{option}: found {found}, but {settings.name} cannot have it; "
                f"use {' or '.join(('default', *fitting))}"
            )
    if settings.encoder_weights != "none" and encoder_name(settings) is None:
        raise UsageError(
            f"model.encoder_weights: found {settings.encoder_weights!r}, but {settings.name}'s own encoder has no "
            f"pretrained weights; set it to none, or model.encoder to {' or '.join(architecture.encoder_choices)}"
        )
    encoder_weights.check(settings.encoder_weights, encoder_name(settings))
    chosen = _architecture(settings.name, settings.encoder)
    places = chosen.options + (chosen.source_options if encoder_name(settings) == chosen.encoder else ())
    for option in OPTIONS:
        found, default = getattr(settings, option), type(settings).model_fields[option].default
        if found != default and option not in places:
            on = settings.name if settings.encoder == "default" else f"{settings.name} on {settings.encoder}"
            raise UsageError(
                f"model.{option}: found {found}, but {on} has no place for it; leave it at "
                f"{'null' if default is None else str(default).lower()}"
            )


def min_batch(settings: ModelSettings) -> int:
    """Returns the least number of images a step, over all devices, that a network can learn from."""
    return _architecture(settings.name, settings.encoder).min_batch


def check_batch(settings: ModelSettings, images: int) -> None:
    """Raises UsageError where a network cannot learn from so few images a step, over all devices."""
    least = min_batch(settings)
    if images < least:
        raise UsageError(
            f"training.batch_size: found {images} image a step, but {settings.name} normalises the average of each "
            f"image by those of the step's others; use at least {least}"
        )


def encoder_name(settings: ModelSettings) -> str | None:
    """Returns the encoder that the network has, or None for one of the architecture's own."""
    return ARCHITECTURES[settings.name].encoder if settings.encoder == "default" else settings.encoder


def encoder_blocks(settings: ModelSettings) -> encoders.Blocks:
    """Returns the encoder's layers with weights, one tuple of names for each of the five blocks.

    Blocks end where the features halve; an empty tuple for an encoder of the architecture's own.
    """
    name = encoder_name(settings)
    if name is None:
        return ()
    return ARCHITECTURES[settings.name].blocks or encoders.ENCODERS[name].blocks


def compiles_with_xla(settings: ModelSettings) -> bool:
    """Returns whether `training.xla` "auto" may compile a network for a GPU.

    False for PSPNet and EfficientNet-Lite2, which XLA had not compiled after 190 s beside seven other networks on an
    H200 (not by a command), and for DeepLabV3+, Mask R-CNN and the other encoders, which were not tried.
    """
    return settings.name not in ("pspnet", "deeplabv3plus", "mask_rcnn") and encoder_name(settings) in (None, "vgg16")


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layers on whose output [B, h, w, C] a training may put auxiliary scores, deepest first."""
    return _architecture(settings.name, settings.encoder).deep_layers(settings)


def pixels(settings: ModelSettings) -> str:
    """Returns the name of the pre-processing in `preprocessing`, which is also the name of its layer."""
    name = encoder_name(settings)
    if name is None:
        return preprocessing.minus_one_to_one.__name__
    return encoders.pixels(settings, encoders.chosen(settings, name)).__name__


def freeze(model: keras.Model, settings: ModelSettings, blocks: int) -> None:
    """Lets the first blocks of a pretrained encoder keep their weights; call it before `compile`.

    Their batch normalisation keeps its statistics, too. That the encoder is a pretrained one is for `check` to say.
    """
    for name in itertools.chain.from_iterable(encoder_blocks(settings)[:blocks]):
        model.get_layer(name).trainable = False


def check_input_size(settings: ModelSettings, field: str, input_size: tuple[int, int]) -> None:
    """Raises UsageError where a network's stride does not divide a side, naming the sizes that fit.

    Args:
        settings: the network.
        field: the setting that the size comes from.
        input_size: height and width in pixels.
    """
    stride = _architecture(settings.name, settings.encoder).stride
    for side, found in zip(("height", "width"), input_size, strict=True):
        if found >= stride and found % stride == 0:
            continue
        below = found // stride * stride
        nearest = f"{below} or {below + stride}" if below else f"{stride}"
        raise UsageError(
            f"{field}: found {input_size[0]}x{input_size[1]}, but {settings.name} needs a {side} that {stride} "
            f"divides, not {found}; use {nearest}"
        )


def _architecture(name: str, encoder: str) -> Architecture:
    architecture = ARCHITECTURES[name]
    if encoder != "default" and architecture.on_encoder is not None:
        return architecture.on_encoder
    return architecture
