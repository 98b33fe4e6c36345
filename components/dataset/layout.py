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
# The extensions that each pattern may have, and what a message says about them.
_EXPECTED = {
    "images": (
        ("", *IMAGE_EXTENSIONS),
        f"images to be files of {', '.join(f'.{each}' for each in IMAGE_EXTENSIONS)}, or no extension for all of them",
    ),
    "masks": (("", "png"), "masks to be .png files; convert other formats, and never store masks as JPEG"),
    "depth": (("", "png"), "depth maps to be .png files; convert other formats, and never store depth maps as JPEG"),
    "instances": (("png", "json"), ".png files of instance ids, or .json files of COCO's annotations"),
}


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

    @field_validator("images", "masks", "instances", "depth")
    @classmethod
    def _check_extension(cls, value: str | None, info: ValidationInfo) -> str | None:
        allowed, expected = _EXPECTED[str(info.field_name)]
        if value is not None and patterns.extension_of(value).lower() not in allowed:
            raise ValueError(f"expected {expected}")
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
