"""The path patterns of a data set's images, masks, instances and depth maps."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from components.dataset import patterns
from components.settings import Settings

ImageExtension = Literal["png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp"]
IMAGE_EXTENSIONS: tuple[ImageExtension, ...] = get_args(ImageExtension)
# Formats that are stored as they are; others become PNG.
STORED_EXTENSIONS = ("png", "jpg", "jpeg")


class Layout(Settings):
    """Paths of images, masks, instances and depth maps, relative to the data root."""

    images: str = Field(description="path pattern of an image, e.g. {split}/{name} or {split}/{sequence}/rgb/{name}")
    masks: str | None = Field(
        None,
        description="path pattern of a mask, e.g. {split}annot/{name}.png; without it, COCO's instances are drawn as"
        " masks",
    )
    instances: str | None = Field(
        None,
        description="path pattern of masks of instance ids, e.g. {split}inst/{name}.png, or of COCO's annotations, e.g."
        " annotations/instances_{split}.json; without it, each connected component of a thing's pixels in the mask"
        " is an instance",
    )
    depth: str | None = Field(
        None, description="path pattern of a depth map, a 16-bit grey PNG, e.g. {split}depth/{name}.png"
    )
    extensions: tuple[ImageExtension, ...] = Field(
        IMAGE_EXTENSIONS,
        min_length=1,
        description=f"image files to take if `images` names no extension; default: {', '.join(IMAGE_EXTENSIONS)}",
    )

    @field_validator("images", "masks", "instances", "depth")
    @classmethod
    def _check_placeholders(cls, value: str | None) -> str | None:
        if value is None:
            return None
        found = patterns.placeholders(value)
        known = (patterns.NAME, patterns.SPLIT, patterns.SEQUENCE)
        nameless = patterns.NAME not in found and patterns.extension_of(value).lower() != "json"
        if set(found) - set(known) or len(found) > len(set(found)) or nameless:
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

    @field_validator("masks", "depth")
    @classmethod
    def _masks_are_png(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and patterns.extension_of(value).lower() not in ("", "png"):
            kind = "masks" if info.field_name == "masks" else "depth maps"
            raise ValueError(f"expected {kind} to be .png files; convert other formats, and never store {kind} as JPEG")
        return value

    @field_validator("instances")
    @classmethod
    def _instances_are_png_or_json(cls, value: str | None) -> str | None:
        if value is not None and patterns.extension_of(value).lower() not in ("png", "json"):
            raise ValueError("expected .png files of instance ids, or .json files of COCO's annotations")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Layout:
        if self.masks is None and not self.has_coco:
            raise ValueError("masks: missing; expected a path pattern, or COCO's annotations (.json) as `instances`")
        for kind, pattern in (("masks", self.masks), ("instances", self.instances), ("depth", self.depth)):
            if pattern is None:
                continue
            if patterns.SPLIT in pattern and patterns.SPLIT not in self.images:
                raise ValueError(f"{kind}: found {{split}}, which images lacks; expected {{split}} in images too")
            if patterns.NAME in pattern and (patterns.SEQUENCE in pattern) != self.has_sequence:
                raise ValueError(f"images and {kind}: expected {{sequence}} in both or in neither")
            if self.images.removesuffix(".png") == pattern.removesuffix(".png") and "png" in self.extensions:
                raise ValueError(
                    f"images and {kind} name the same files; expected different folders, suffixes or extensions"
                )
        return self

    @property
    def has_coco(self) -> bool:
        """Whether the instances are COCO's annotations."""
        return self.instances is not None and patterns.extension_of(self.instances).lower() == "json"

    @property
    def has_sequence(self) -> bool:
        """Whether a pair's folder is its sequence."""
        return patterns.SEQUENCE in self.images
