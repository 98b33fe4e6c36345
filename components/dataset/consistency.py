"""Checks that the parts of a data set description agree with each other.

Each message starts with the field at issue, and says what was found and what was expected.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.dataset.description import DatasetDescription


def check_classes(description: DatasetDescription) -> None:
    """Checks that class names are unique and that the ignored one is among them. Raises ValueError."""
    names = [item.name for item in description.classes]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"classes: {', '.join(repeated)} is there more than once; expected unique names")
    if description.ignore is not None and description.ignore not in names:
        raise ValueError(f"ignore: found {description.ignore!r}; expected the name of a class: {', '.join(names)}")


def check_mask_values(description: DatasetDescription) -> None:
    """Checks that no mask value or colour means two classes, and that each class has one. Raises ValueError."""
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
    """Checks that the values of 16-bit images that become black and white differ. Raises ValueError."""
    if description.image_range is not None and description.image_range[0] >= description.image_range[1]:
        raise ValueError(
            f"image_range: found {list(description.image_range)}; expected [low, high] with low below high"
        )


def check_splits(description: DatasetDescription) -> None:
    """Checks that there is exactly one way to tell a pair's split, and that it is sound. Raises ValueError."""
    ways = ("splits", "split_by_sequence", "split_sequences", "split_lists")
    given = [way for way in ways if getattr(description, way)]
    if description.has_split_folders and given != ["splits"]:
        raise ValueError(
            f"splits: layout.images has {{split}}; expected `splits` alone, found {given or 'nothing'};"
            " `{}` takes away one that `like` brings"
        )
    if not description.has_split_folders and (len(given) != 1 or given == ["splits"]):
        raise ValueError(
            "split_by_sequence: layout.images has no {split}; expected one of `split_by_sequence`, `split_sequences`"
            f" and `split_lists`, found {given or 'none'}; `{{}}` takes away one that `like` brings"
        )
    names = getattr(description, given[0])
    unfit = [name for name in names if not re.fullmatch(r"[A-Za-z0-9_-]+", name)]
    if unfit:
        raise ValueError(f"{given[0]}: found the split {unfit[0]!r}; expected a name of letters, digits, _ and -")
    if len(set(description.splits.values())) != len(description.splits):
        raise ValueError("splits: two splits share a folder; expected one folder for each")
    if any(path.startswith("/") or ".." in path.split("/") for path in description.split_lists.values()):
        raise ValueError("split_lists: expected paths relative to the data root")
    shares = description.split_by_sequence
    if "train" in shares or sum(shares.values()) >= 1:
        raise ValueError("split_by_sequence: expected shares of less than 1 together, for splits other than train")
    listed = [sequence for sequences in description.split_sequences.values() for sequence in sequences]
    repeated = sorted({sequence for sequence in listed if listed.count(sequence) > 1})
    if repeated:
        raise ValueError(f"split_sequences: {', '.join(repeated)} is there more than once; expected one split for each")


def check_things(description: DatasetDescription) -> None:
    """Checks that things are classes, and that masks made of instances have a background. Raises ValueError."""
    names = [item.name for item in description.classes if item.name != description.ignore]
    unknown = sorted(set(description.things) - set(names))
    if unknown or len(set(description.things)) < len(description.things):
        raise ValueError(
            f"things: found {', '.join(unknown or description.things)}; expected different names of classes that are"
            f" not ignored: {', '.join(names)}"
        )
    if description.layout.masks is None and description.background_index is None:
        raise ValueError(
            "layout.masks: missing, so that masks are made of instances; expected a class `background` or an ignored"
            " class, which other pixels have"
        )


def check_sequence(expression: str) -> None:
    """Checks that an expression has one group to take the sequence from. Raises ValueError."""
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        raise ValueError(f"sequence: {expression!r} is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"sequence: {expression!r} has {groups} groups; expected exactly one, around the sequence")
