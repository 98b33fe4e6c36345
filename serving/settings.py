"""Settings of the exported model: what it accepts, and which optimised forms of it are built.

Nothing here imports TensorFlow, so a configuration is checked before anything heavy is loaded.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.dataset.encoded import MAX_PIXELS
from components.settings import Settings

Precision = Literal["float32", "bfloat16", "float16"]
VariantName = Literal["folded", "bfloat16", "int8"]


class ExportSettings(Settings):
    """What the exported model accepts, and its optimised variants."""

    max_pixels: int = Field(MAX_PIXELS, ge=1, description="height times width of the largest image a model accepts")
    precision: Precision = Field(
        "float32",
        description="arithmetic of the exported network, whatever it was trained in: float32, bfloat16 or float16; "
        "the last two are faster only on hardware that has them",
    )
    tile_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] | None = Field(
        None,
        description="height and width, in pixels of the image, of sliding windows; each is resized to the input size. "
        "null resizes the whole image",
    )
    tile_overlap: float = Field(
        0.25, ge=0, lt=1, description="least fraction of a sliding window that its neighbour covers too"
    )
    variants: tuple[VariantName, ...] = Field(
        (),
        description="optimised variants to build and compare, in order of preference: folded, bfloat16, int8",
    )
    max_mean_drop: float = Field(
        0.01, ge=0, le=1, description="most mean IoU that a variant may lose against the exported model"
    )
    calibration_images: int = Field(64, ge=1, description="training images that calibrate int8")
