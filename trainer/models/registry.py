"""Builds an architecture by its name, and checks that settings and image size suit it.

To add an architecture, add a file with `STRIDE` and `build`, and an entry here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import keras
import pydantic

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
    """A network and what it supports.

    Attributes:
        build: takes settings whose `encoder` is not "default" (unless the encoder is None), height and width in pixels
            (None for any multiple of the stride) and the number of classes. Returns the network with random weights,
            from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
        stride: height and width of the input must be multiples of it, in pixels.
        encoder: default encoder; None for an encoder of its own, without pretrained weights.
        encoder_choices: other values of `model.encoder`.
        upsampling_choices: values of `model.upsampling` besides "default".
        options: the settings in `OPTIONS` that it supports.
        default_encoder_options: options that it supports with its default encoder only.
        blocks: the encoder's layers with weights, block by block, if they differ from `encoders.ENCODERS`.
        deep_layers: layers for auxiliary scores, deepest first; None for the encoder's features of stride 16.
    """

    build: Callable[[ModelSettings, tuple[int | None, int | None], int], keras.Model]
    stride: int
    encoder: str | None = "vgg16"
    encoder_choices: tuple[str, ...] = tuple(encoders.ENCODERS)
    upsampling_choices: tuple[str, ...] = ("transposed", "nearest", "bilinear")
    options: tuple[str, ...] = ("normalization",)
    default_encoder_options: tuple[str, ...] = ()
    blocks: encoders.Blocks | None = None
    deep_layers: tuple[str, ...] | None = None


# Settings that only some architectures support.
_INSTANCE_OPTIONS = ("pyramid_filters", "proposals", "max_instances", "min_score")
OPTIONS = ("normalization", "base_filters", "head_filters", "dropout", "depth", *_INSTANCE_OPTIONS)

# MiT-B0's attention reads its features at fixed strides.
_DILATABLE = tuple(name for name in encoders.ENCODERS if name != "mit_b0")
_UNET_OPTIONS = ("normalization", "base_filters", "dropout", "depth")

ARCHITECTURES = {
    "fcn8": Architecture(fcn8.build, fcn_encoder.STRIDE, options=("normalization", "head_filters", "depth")),
    "fcn16": Architecture(fcn16.build, fcn_encoder.STRIDE, default_encoder_options=("dropout",)),
    "fcn32": Architecture(fcn32.build, fcn_encoder.STRIDE, default_encoder_options=("dropout",)),
    "fcn8_conv7": Architecture(fcn8_conv7.build, fcn_encoder.STRIDE, encoder_choices=("vgg16",)),
    "unet": Architecture(
        unet.build, unet.STRIDE, encoder=None, options=_UNET_OPTIONS, deep_layers=unet.deep_layers(unet.LEVELS)
    ),
    "segnet": Architecture(
        segnet.build,
        segnet.STRIDE,
        encoder_choices=("vgg16",),
        upsampling_choices=(),
        options=(),
        blocks=segnet.BLOCKS,
        deep_layers=segnet.DEEP_LAYERS,
    ),
    "pspnet": Architecture(
        pspnet.build,
        pspnet.STRIDE,
        encoder="resnet50",
        options=("dropout",),
        encoder_choices=_DILATABLE,
    ),
    "deeplabv3plus": Architecture(
        deeplabv3plus.build,
        deeplabv3plus.STRIDE,
        encoder="resnet50",
        encoder_choices=_DILATABLE,
        options=("dropout",),
    ),
    "segformer": Architecture(
        segformer.build, segformer.STRIDE, encoder="mit_b0", encoder_choices=("mit_b0",), options=("dropout",)
    ),
    "mask_rcnn": Architecture(
        mask_rcnn.build,
        mask_rcnn.STRIDE,
        encoder="resnet50",
        upsampling_choices=(),
        options=_INSTANCE_OPTIONS,
        deep_layers=(),
    ),
}
# "unet" with an encoder of `encoders.ENCODERS`.
_ENCODER_UNET = Architecture(
    encoder_unet.build,
    encoder_unet.STRIDE,
    options=_UNET_OPTIONS,
    deep_layers=unet.deep_layers(encoder_unet.LEVELS),
)


def build(
    settings: ModelSettings, input_size: tuple[int, int] | None, num_classes: int, pretrained: bool = True
) -> keras.Model:
    """Builds a network and loads its pretrained encoder, if the settings name one.

    Args:
        settings: architecture and options.
        input_size: height and width of the input in pixels; None for any multiple of the stride.
        num_classes: channels of the logits; for Mask R-CNN, the number of classes with instances.
        pretrained: whether to load pretrained weights; False if all weights will be set afterwards.

    Returns:
        A model from RGB, 0 to 255, uint8 or float32 [B, H, W, 3], to logits, float32 [B, H, W, num_classes], or to
        the outputs of `mask_rcnn.model.build` or, with `depth`, of `depth_decoder.attach`. It includes pre-processing.

    Raises:
        UsageError: if the stride does not divide the input size, the architecture does not support an encoder,
            upsampling or option, or pretrained weights do not fit or cannot be read.
        SegpipeError: if weights cannot be downloaded.
    """
    check_options(settings)
    if input_size is not None:
        check_input_size(settings, "size", input_size)
    model = _architecture(settings).build(_with_encoder(settings), input_size or (None, None), num_classes)
    name = encoder_name(settings)
    if name and pretrained:
        encoder_weights.load(model, settings.encoder_weights, name)
    if settings.depth:
        model = depth_decoder.attach(model, encoders.ENCODERS[name].deepest if name else unet.DEEPEST)
    return model


def check(settings: ModelSettings, size: tuple[int, int], training: TrainingSettings) -> None:
    """Checks settings against each other before anything is built.

    Args:
        settings: the network.
        size: height and width of the images in pixels.
        training: `crop_size`, `frozen_blocks`, `encoder_lr_multiplier` and `deep_supervision`.

    Raises:
        UsageError: if the network does not support an option or the size of images or crops, frozen blocks would keep
            random weights, or the encoder's learning rate is set for a network without a separate encoder.
    """
    if settings.task == "instance":
        for option in ("test_time_flip", "test_time_scales"):
            _check_default("model", settings, option, settings.name)
        for option in ("crop_size", "deep_supervision"):
            _check_default("training", training, option, settings.name)
    check_options(settings)
    check_input_size(settings, "size", size)
    if training.crop_size:
        check_input_size(settings, "training.crop_size", training.crop_size)
    if training.frozen_blocks and settings.encoder_weights == "none":
        raise UsageError(
            f"training.frozen_blocks: found {training.frozen_blocks} with model.encoder_weights=none, expected 0, "
            "because random weights must be trained. Set it to 0, or choose pretrained weights"
        )
    if training.encoder_lr_multiplier < 1 and not encoder_blocks(settings):
        raise UsageError(
            f"training.encoder_lr_multiplier: found {training.encoder_lr_multiplier}, but {settings.name} has no "
            "separate encoder; set it to 1, or choose an encoder with model.encoder"
        )


def check_options(settings: ModelSettings) -> None:
    """Raises UsageError if the network does not support its encoder, the encoder's weights, upsampling or an option."""
    architecture, encoder = _architecture(settings), encoder_name(settings)
    for option, choices in (("encoder", architecture.encoder_choices), ("upsampling", architecture.upsampling_choices)):
        found = getattr(settings, option)
        if found not in ("default", *choices):
            raise UsageError(
                f"model.{option}: found {found}, which {settings.name} does not support; "
                f"use {' or '.join(('default', *choices))}"
            )
    if settings.encoder_weights != "none" and encoder is None:
        raise UsageError(
            f"model.encoder_weights: found {settings.encoder_weights!r}, but {settings.name}'s own encoder has no "
            f"pretrained weights; set it to none, or model.encoder to {' or '.join(architecture.encoder_choices)}"
        )
    encoder_weights.check(settings.encoder_weights, encoder)
    supported = architecture.options
    if encoder == architecture.encoder:
        supported += architecture.default_encoder_options
    network = settings.name if settings.encoder == "default" else f"{settings.name} on {settings.encoder}"
    for option in OPTIONS:
        if option not in supported:
            _check_default("model", settings, option, network)


def _check_default(group: str, settings: pydantic.BaseModel, option: str, network: str) -> None:
    """Raises UsageError if an option that a network does not support is set."""
    found, default = getattr(settings, option), type(settings).model_fields[option].default
    if found != default:
        expected = "null" if default is None else str(default).lower()
        raise UsageError(f"{group}.{option}: found {found}, but {network} does not support it; leave it at {expected}")


def check_batch(settings: ModelSettings, images: int) -> None:
    """Raises UsageError if a step has too few images, over all devices, for the network's batch normalisation."""
    if images < settings.min_images:
        raise UsageError(
            f"training.batch_size: found {images} image per step, but {settings.name} normalises image averages over "
            f"the batch; use at least {settings.min_images}"
        )


def check_input_size(settings: ModelSettings, field: str, input_size: tuple[int, int]) -> None:
    """Raises UsageError if a network's stride does not divide height and width in pixels; `field` is their setting."""
    stride = _architecture(settings).stride
    for side, found in zip(("height", "width"), input_size, strict=True):
        if found >= stride and found % stride == 0:
            continue
        below = found // stride * stride
        nearest = f"{below} or {below + stride}" if below else f"{stride}"
        raise UsageError(
            f"{field}: found {input_size[0]}x{input_size[1]}, but {settings.name} needs a {side} that is a multiple "
            f"of {stride}, not {found}; use {nearest}"
        )


def encoder_name(settings: ModelSettings) -> str | None:
    """Returns the name of the network's encoder, or None for the architecture's own."""
    return ARCHITECTURES[settings.name].encoder if settings.encoder == "default" else settings.encoder


def encoder_blocks(settings: ModelSettings) -> encoders.Blocks:
    """Returns the names of the encoder's layers with weights for each of its five blocks.

    A block ends where height and width halve. Returns an empty tuple for an architecture's own encoder.
    """
    name = encoder_name(settings)
    if name is None:
        return ()
    return ARCHITECTURES[settings.name].blocks or encoders.ENCODERS[name].blocks


def compiles_with_xla(settings: ModelSettings, deep_supervision: float = 0.0) -> bool:
    """Returns whether `training.xla` "auto" may compile a network for a GPU.

    False for PSPNet, EfficientNet-Lite2 and UNet on VGG16 with deep supervision, which XLA had not compiled after 190 s
    beside seven other networks on an H200 (not measured by a script), and for what was not tried: DeepLabV3+, Mask
    R-CNN, the other encoders, other networks with deep supervision, and depth.
    """
    if settings.name in ("pspnet", "deeplabv3plus", "mask_rcnn") or settings.depth or deep_supervision:
        return False
    return encoder_name(settings) in (None, "vgg16")


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layers [B, h, w, C] that training may attach auxiliary scores to, deepest first."""
    layers = _architecture(settings).deep_layers
    return (encoders.chosen(_with_encoder(settings)).features[3],) if layers is None else layers


def pixels(settings: ModelSettings) -> str:
    """Returns the name of the pre-processing in `preprocessing`, which is also the name of its layer."""
    if encoder_name(settings) is None:
        return preprocessing.minus_one_to_one.__name__
    return encoders.pixels(_with_encoder(settings)).__name__


def freeze(model: keras.Model, settings: ModelSettings, blocks: int) -> None:
    """Freezes the first blocks of an encoder, including the statistics of their batch normalisation.

    Call it before `compile`. `check` rejects frozen blocks of an encoder that is not pretrained.
    """
    for name in itertools.chain.from_iterable(encoder_blocks(settings)[:blocks]):
        model.get_layer(name).trainable = False


def _architecture(settings: ModelSettings) -> Architecture:
    if settings.name == "unet" and settings.encoder != "default":
        return _ENCODER_UNET
    return ARCHITECTURES[settings.name]


def _with_encoder(settings: ModelSettings) -> ModelSettings:
    """Replaces the encoder "default" by its name, unless the architecture has its own encoder."""
    return settings.model_copy(update={"encoder": encoder_name(settings) or "default"})
