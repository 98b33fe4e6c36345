"""The path patterns of a data set's images and masks, validated."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from components.dataset import patterns
from components.settings import Settings

ImageExtension = Literal["png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp"]
IMAGE_EXTENSIONS: tuple[ImageExtension, ...] = get_args(ImageExtension)
# Formats that are stored as they are; the others become PNG.
STORED_EXTENSIONS = ("png", "jpg", "jpeg")


class Layout(Settings):
    """Where images and masks lie, relative to the data root."""

    images: str = Field(description="path pattern of an image, e.g. {split}/{name} or {split}/{sequence}/rgb/{name}")
    masks: str = Field(description="path pattern of a mask, e.g. {split}annot/{name}.png")
    extensions: tuple[ImageExtension, ...] = Field(
        IMAGE_EXTENSIONS,
        min_length=1,
        description=f"image files to take if `images` names no extension; default: {', '.join(IMAGE_EXTENSIONS)}",
    )

    @field_validator("images", "masks")
    @classmethod
    def _check_placeholders(cls, value: str) -> str:
        found = patterns.placeholders(value)
        known = (patterns.NAME, patterns.SPLIT, patterns.SEQUENCE)
        if set(found) - set(known) or len(found) > len(set(found)) or patterns.NAME not in found:
            raise ValueError(
                "expected {name} exactly once, {split} and {sequence} at most once and nothing else in braces"
            )
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("expected a path relative to the data root")
        return value

    @field_validator("images")
    @classmethod
    def _images_are_readable(cls, value: str) -> str:
        if patterns.extension_of(value).lower() not in ("", *IMAGE_EXTENSIONS):
            known = ", ".join(f".{extension}" for extension in IMAGE_EXTENSIONS)
            raise ValueError(f"expected images to be files of {known}, or no extension for all of them")
        return value

    @field_validator("masks")
    @classmethod
    def _masks_are_png(cls, value: str) -> str:
        if patterns.extension_of(value).lower() not in ("", "png"):
            raise ValueError("expected masks to be .png files; convert other formats, and never store masks as JPEG")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Layout:
        if patterns.SPLIT in self.masks and patterns.SPLIT not in self.images:
            raise ValueError("masks: has {split} and images has not; expected {split} in images too")
        if (patterns.SEQUENCE in self.masks) != self.has_sequence:
            raise ValueError("images and masks: expected {sequence} in both or in neither")
        if self.images.removesuffix(".png") == self.masks.removesuffix(".png") and "png" in self.extensions:
            raise ValueError("images and masks name the same files; expected different folders, suffixes or extensions")
        return self

    @property
    def has_sequence(self) -> bool:
        """Whether the folders say which sequence a pair belongs to."""
        return patterns.SEQUENCE in self.images
