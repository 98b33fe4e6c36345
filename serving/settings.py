"""Settings of the exported model: its inputs, and its optimised variants.

Nothing here imports TensorFlow, so configurations are checked fast.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.dataset.encoded import MAX_PIXELS
from components.settings import Settings

Precision = Literal["float32", "bfloat16", "float16"]
VariantName = Literal["folded", "bfloat16", "int8"]


class ExportSettings(Settings):
    """Inputs of the exported model, and its optimised variants."""

    max_pixels: int = Field(
        MAX_PIXELS, ge=1, description="height times width of the largest image that the model accepts"
    )
    precision: Precision = Field(
        "float32",
        description="arithmetic of the exported network, whatever it was trained in: float32, bfloat16 or float16; "
        "half precision is faster only if the hardware supports it",
    )
    tile_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] | None = Field(
        None,
        description="height and width of sliding windows, in pixels of the image; each is resized to the input size. "
        "null resizes the whole image instead",
    )
    tile_overlap: float = Field(
        0.25, ge=0, lt=1, description="smallest overlap of neighbouring sliding windows, as a fraction of a window"
    )
    variants: tuple[VariantName, ...] = Field(
        (),
        description="optimised variants to build and compare, in order of preference: folded, bfloat16, int8",
    )
    max_mean_drop: float = Field(
        0.01, ge=0, le=1, description="largest drop in mean IoU of a variant against the exported model"
    )
    calibration_images: int = Field(64, ge=1, description="number of training images that calibrate int8")
