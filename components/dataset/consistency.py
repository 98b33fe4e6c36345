"""Checks that the fields of a data set description agree. Each message begins with the field at issue."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.dataset.description import DatasetDescription


def check_classes(description: DatasetDescription) -> None:
    """Checks that class names are unique and include the ignored class. Raises ValueError."""
    names = [item.name for item in description.classes]
    if repeated := _repeated(names):
        raise ValueError(f"classes: {', '.join(repeated)} is listed more than once; expected unique names")
    if description.ignore is not None and description.ignore not in names:
        raise ValueError(f"ignore: found {description.ignore!r}; expected the name of a class: {', '.join(names)}")


def check_mask_values(description: DatasetDescription) -> None:
    """Checks that each class has a mask value or colour, and no two classes the same. Raises ValueError."""
    if description.unnamed == "ignore" and description.ignore is None:
        raise ValueError(
            "unnamed: found `ignore` without an ignored class; expected a class such as"
            " {name: void, color: [0, 0, 0], indices: []} and `ignore: void`"
        )
    owners: dict[Any, str] = {}
    for position, item in enumerate(description.classes):
        if item.indices == () and item.name != description.ignore:
            raise ValueError(
                f"classes.{position}.indices: no value means {item.name}; expected at least one, or leave `indices` out"
            )
        for index in description.values_of(position):
            if owners.setdefault(index, item.name) != item.name:
                raise ValueError(
                    f"classes.{position}.indices: {index} already means {owners[index]}; expected one class for a"
                    " value. The value of a class without `indices` is its position: list the values of both"
                )
    if description.mask_encoding == "color":
        for position, item in enumerate(description.classes):
            for color in item.colors_in_mask.values():
                if owners.setdefault(color, item.name) != item.name:
                    raise ValueError(f"classes.{position}.mask_colors: {color} already means {owners[color]}")


def check_image_range(description: DatasetDescription) -> None:
    """Checks that `image_range` is not empty. Raises ValueError."""
    if description.image_range is not None and description.image_range[0] >= description.image_range[1]:
        raise ValueError(
            f"image_range: found {list(description.image_range)}; expected [low, high] with low below high"
        )


def check_splits(description: DatasetDescription) -> None:
    """Checks that exactly one field assigns splits, and that its values are valid. Raises ValueError."""
    ways = ("splits", "split_by_sequence", "split_sequences", "split_lists")
    given = [way for way in ways if getattr(description, way)]
    if description.has_split_folders and given != ["splits"]:
        raise ValueError(
            f"splits: layout.images has {{split}}; expected `splits` alone, found {given or 'nothing'};"
            " set one that `like` copied to `{}`"
        )
    if not description.has_split_folders and (len(given) != 1 or given == ["splits"]):
        raise ValueError(
            "split_by_sequence: layout.images has no {split}; expected one of `split_by_sequence`, `split_sequences`"
            f" and `split_lists`, found {given or 'none'}; set one that `like` copied to `{{}}`"
        )
    names = getattr(description, given[0])
    unfit = [name for name in names if not re.fullmatch(r"[A-Za-z0-9_-]+", name)]
    if unfit:
        raise ValueError(f"{given[0]}: found the split {unfit[0]!r}; expected a name of letters, digits, _ and -")
    if len(set(description.splits.values())) != len(description.splits):
        raise ValueError("splits: two splits have the same folder; expected one folder for each")
    if any(path.startswith("/") or ".." in path.split("/") for path in description.split_lists.values()):
        raise ValueError("split_lists: expected paths relative to the data root")
    fractions = description.split_by_sequence
    if "train" in fractions or sum(fractions.values()) >= 1:
        raise ValueError("split_by_sequence: expected fractions with a sum below 1, for splits other than train")
    listed = [sequence for sequences in description.split_sequences.values() for sequence in sequences]
    if repeated := _repeated(listed):
        raise ValueError(
            f"split_sequences: {', '.join(repeated)} is listed more than once; expected one split for each"
        )


def _repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def check_things(description: DatasetDescription) -> None:
    """Checks that things are classes, and that masks drawn from instances have a background. Raises ValueError."""
    names = [item.name for item in description.classes if item.name != description.ignore]
    unknown = sorted(set(description.things) - set(names))
    if unknown or len(set(description.things)) < len(description.things):
        raise ValueError(
            f"things: found {', '.join(unknown or description.things)}; expected different names of classes that are"
            f" not ignored: {', '.join(names)}"
        )
    if description.layout.masks is None and description.background_index is None:
        raise ValueError(
            "layout.masks: missing, so masks are drawn from instances; expected a class `background` or an ignored"
            " class for the other pixels"
        )


def check_sequence(expression: str) -> None:
    """Checks that the expression for the sequence has one group. Raises ValueError."""
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        raise ValueError(f"sequence: {expression!r} is not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"sequence: {expression!r} has {groups} groups; expected exactly one, around the sequence")
