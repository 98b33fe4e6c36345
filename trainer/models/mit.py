"""MiT-B0, the encoder of SegFormer: a transformer of four stages, whose attention reads keys from reduced features.

Sources: Xie et al. 2021, arXiv 2105.15203; transformers/models/segformer/modeling_segformer.py, transformers 5.24.0.
Stochastic depth is left out. keras-hub 0.32's `MiTBackbone` only takes square images of one size (`mit_layers.py`
computes height and width as the square root of the number of pixels), and requires Python 3.11, tokenizers and
tensorflow-text.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_DEPTH = 2
_FILTERS = (32, 64, 160, 256)
_HEADS = (1, 2, 5, 8)
# Factor by which height and width of keys and values are reduced.
_REDUCTIONS = (8, 4, 2, 1)
_EXPANSION = 4
_EPSILON = 1e-5


def _stage_layers(stage: int, reduction: int) -> tuple[str, ...]:
    reduce = ("reduce", "reduce_norm") if reduction > 1 else ()
    steps = ("norm1", "query", *reduce, "key", "value", "output", "norm2", "expand", "depthwise", "project")
    blocks = [f"stage{stage}_block{block}_{step}" for block in range(1, _DEPTH + 1) for step in steps]
    return (f"stage{stage}_embed", f"stage{stage}_embed_norm", *blocks, f"stage{stage}_norm")


_FIRST, *_STAGES = (_stage_layers(stage, reduction) for stage, reduction in enumerate(_REDUCTIONS, 1))
# The layers with weights: the stem, and the rest of each stage. A stage, of stride 4, 8, 16 or 32, ends with its norm.
BLOCKS = (_FIRST[:2], _FIRST[2:], *_STAGES)


@keras.saving.register_keras_serializable("segpipe")
class Attention(keras.layers.Layer):
    """Multi-head attention between features of any two sizes, without projections.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2.
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._heads = heads

    def call(self, inputs: tuple[Any, Any, Any]) -> Any:
        """Returns [B, H, W, C] for queries [B, H, W, C], keys [B, h, w, C] and values [B, h, w, C]."""
        queries, keys, values = (self._split(x) for x in inputs)
        scores = ops.einsum("bqhc,bkhc->bhqk", queries, keys) * queries.shape[-1] ** -0.5
        weights = ops.cast(ops.softmax(ops.cast(scores, "float32")), values.dtype)
        return ops.reshape(ops.einsum("bhqk,bkhc->bqhc", weights, values), ops.shape(inputs[0]))

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Returns the output shape, which is that of the queries."""
        return input_shape[0]

    def _split(self, x: Any) -> Any:
        """Splits the channels between the heads: [B, H W, heads, C / heads]."""
        _, height, width, channels = ops.shape(x)
        return ops.reshape(x, (-1, height * width, self._heads, channels // self._heads))


def MiTB0(
    include_top: bool = False,
    weights: str | None = None,
    input_tensor: Any | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
) -> keras.Model:
    """Builds the network with the arguments of Keras Applications; see `convnext.ConvNeXtTiny`.

    `weights` must be None, because there is no download. The features have 256 channels.
    """
    if include_top or weights is not None:
        raise ValueError(f"mit_b0: found include_top {include_top} and weights {weights}, expected False and None")
    image = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = image
    for stage, (filters, heads, reduction) in enumerate(zip(_FILTERS, _HEADS, _REDUCTIONS, strict=True), 1):
        kernel, stride = (7, 4) if stage == 1 else (3, 2)
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"stage{stage}_pad")(x)
        x = keras.layers.Conv2D(filters, kernel, strides=stride, name=f"stage{stage}_embed")(x)
        x = _normalized(x, f"stage{stage}_embed_norm")
        for block in range(1, _DEPTH + 1):
            x = _block(x, heads, reduction, f"stage{stage}_block{block}")
        x = _normalized(x, f"stage{stage}_norm")
    return keras.Model(image, x, name="mit_b0")


def _block(x: Any, heads: int, reduction: int, name: str) -> Any:
    """Adds to features [B, H, W, C] their efficient self-attention, then their Mix-FFN."""
    filters = x.shape[-1]
    normalized = _normalized(x, f"{name}_norm1")
    query, smaller = keras.layers.Conv2D(filters, 1, name=f"{name}_query")(normalized), normalized
    if reduction > 1:
        smaller = keras.layers.Conv2D(filters, reduction, strides=reduction, name=f"{name}_reduce")(smaller)
        smaller = _normalized(smaller, f"{name}_reduce_norm")
    # A bias of the keys would add the same to all scores of a query, which the softmax cancels.
    key = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_key")(smaller)
    value = keras.layers.Conv2D(filters, 1, name=f"{name}_value")(smaller)
    attended = Attention(heads, name=f"{name}_attention")((query, key, value))
    attended = keras.layers.Conv2D(filters, 1, name=f"{name}_output")(attended)
    x = keras.layers.Add(name=f"{name}_add1")([x, attended])

    mixed = keras.layers.Conv2D(_EXPANSION * filters, 1, name=f"{name}_expand")(_normalized(x, f"{name}_norm2"))
    mixed = keras.layers.DepthwiseConv2D(3, padding="same", activation="gelu", name=f"{name}_depthwise")(mixed)
    mixed = keras.layers.Conv2D(filters, 1, name=f"{name}_project")(mixed)
    return keras.layers.Add(name=f"{name}_add2")([x, mixed])


def _normalized(x: Any, name: str) -> Any:
    return keras.layers.LayerNormalization(epsilon=_EPSILON, name=name)(x)
