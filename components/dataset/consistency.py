"""Checks that the fields of a data set description agree. Each message begins with the field at issue."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence


def check_classes(names: Sequence[str], ignore: str | None) -> None:
    """Checks that class names are unique and include the ignored class. Raises ValueError."""
    if repeated := _repeated(names):
        raise ValueError(f"classes: {', '.join(repeated)} is listed more than once; expected unique names")
    if ignore is not None and ignore not in names:
        raise ValueError(f"ignore: found {ignore!r}; expected the name of a class: {', '.join(names)}")


def check_mask_values(values: Mapping[str, Sequence[int]], ignore: str | None, unnamed: str) -> None:
    """Checks that each class has a value of index masks, and no two classes the same. Raises ValueError.

    `values` are those of each class by name, in the order of `classes`.
    """
    if unnamed == "ignore" and ignore is None:
        raise ValueError(
            "unnamed: found `ignore` without an ignored class; expected a class such as"
            " {name: void, color: [0, 0, 0], indices: []} and `ignore: void`"
        )
    owners: dict[int, str] = {}
    for position, (name, indices) in enumerate(values.items()):
        if not indices and name != ignore:
            raise ValueError(
                f"classes.{position}.indices: no value means {name}; expected at least one, or leave `indices` out"
            )
        for index in indices:
            if owners.setdefault(index, name) != name:
                raise ValueError(
                    f"classes.{position}.indices: {index} already means {owners[index]}; expected one class for a"
                    " value. The value of a class without `indices` is its position: list the values of both"
                )


def check_mask_colors(colors: Mapping[str, Collection[tuple[int, int, int]]]) -> None:
    """Checks that no two classes have the same colour in colour masks. Raises ValueError.

    `colors` are those of each class by name, in the order of `classes`.
    """
    owners: dict[tuple[int, int, int], str] = {}
    for position, (name, own) in enumerate(colors.items()):
        for color in own:
            if owners.setdefault(color, name) != name:
                raise ValueError(f"classes.{position}.mask_colors: {color} already means {owners[color]}")


def check_image_range(image_range: tuple[int, int] | None) -> None:
    """Checks that `image_range` is not empty. Raises ValueError."""
    if image_range is not None and image_range[0] >= image_range[1]:
        raise ValueError(f"image_range: found {list(image_range)}; expected [low, high] with low below high")


def check_splits(
    has_split_folders: bool,
    splits: Mapping[str, str],
    split_by_sequence: Mapping[str, float],
    split_sequences: Mapping[str, Sequence[str]],
    split_lists: Mapping[str, str],
) -> None:
    """Checks that exactly one field assigns splits, and that its values are valid. Raises ValueError."""
    ways: dict[str, Mapping[str, object]] = {
        "splits": splits,
        "split_by_sequence": split_by_sequence,
        "split_sequences": split_sequences,
        "split_lists": split_lists,
    }
    given = [way for way, by_split in ways.items() if by_split]
    if has_split_folders and given != ["splits"]:
        raise ValueError(
            f"splits: layout.images has {{split}}; expected `splits` alone, found {given or 'nothing'};"
            " set one that `like` copied to `{}`"
        )
    if not has_split_folders and (len(given) != 1 or given == ["splits"]):
        raise ValueError(
            "split_by_sequence: layout.images has no {split}; expected one of `split_by_sequence`, `split_sequences`"
            f" and `split_lists`, found {given or 'none'}; set one that `like` copied to `{{}}`"
        )
    unfit = [name for name in ways[given[0]] if not re.fullmatch(r"[A-Za-z0-9_-]+", name)]
    if unfit:
        raise ValueError(f"{given[0]}: found the split {unfit[0]!r}; expected a name of letters, digits, _ and -")
    if len(set(splits.values())) != len(splits):
        raise ValueError("splits: two splits have the same folder; expected one folder for each")
    if any(path.startswith("/") or ".." in path.split("/") for path in split_lists.values()):
        raise ValueError("split_lists: expected paths relative to the data root")
    if "train" in split_by_sequence or sum(split_by_sequence.values()) >= 1:
        raise ValueError("split_by_sequence: expected fractions with a sum below 1, for splits other than train")
    listed = [sequence for sequences in split_sequences.values() for sequence in sequences]
    if repeated := _repeated(listed):
        raise ValueError(
            f"split_sequences: {', '.join(repeated)} is listed more than once; expected one split for each"
        )


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def check_things(things: Sequence[str], names: Sequence[str]) -> None:
    """Checks that things are unique, and among the names of classes that are not ignored. Raises ValueError."""
    unknown = sorted(set(things) - set(names))
    if unknown or len(set(things)) < len(things):
        raise ValueError(
            f"things: found {', '.join(unknown or things)}; expected different names of classes that are"
            f" not ignored: {', '.join(names)}"
        )


def check_background(has_masks: bool, background_index: int | None) -> None:
    """Checks that masks drawn from instances have a class for the other pixels. Raises ValueError."""
    if not has_masks and background_index is None:
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
