"""Reads the files that list the pairs of a split, such as Pascal VOC's `ImageSets/Segmentation/train.txt`."""

from __future__ import annotations

from collections.abc import Collection

from components import files
from components.dataset.description import DatasetDescription
from components.dataset.patterns import normalize
from components.errors import UsageError


def read(root: str, description: DatasetDescription, known: Collection[str]) -> dict[str, str]:
    """Returns the split of every listed name, including names without files.

    A line holds a name, or a path that ends in one. Text after a blank is ignored: Oxford-IIIT Pets has class numbers
    there, other lists the mask's path. Empty lines and lines that start with `#` are skipped.

    `known` are the names that have an image or a mask.

    Raises:
        UsageError: a list cannot be read, has no known name, or has a name that is in another list.
    """
    splits: dict[str, str] = {}
    for split, path in description.split_lists.items():
        place = files.join(root, path)
        try:
            lines = files.read_bytes(place).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{place}: cannot be read: {error}; expected the names of the pairs of {split}, one a line, as"
                f" split_lists of {description.name} says. Copy the file there, or correct split_lists in segpipe.yaml"
            ) from None
        names = [_name(normalize(line.strip()), known) for line in lines if line.strip() and line[0] != "#"]
        if known and not names:
            raise UsageError(
                f"{place}: found no name; expected the names of the pairs of {split}, one a line, such as"
                f" {min(known)!r}. Correct the list, or take {split} out of split_lists in segpipe.yaml"
            )
        if known and not set(names) & set(known):
            raise UsageError(
                f"{place}: no name in it has an image or a mask; found names such as {names[0]!r}, expected names such"
                f" as {min(known)!r}. Correct the list, or layout.images in segpipe.yaml"
            )
        for name in names:
            if splits.setdefault(name, split) != split:
                raise UsageError(
                    f"{place}: {name!r} is also in the list of {splits[name]}, {description.split_lists[splits[name]]};"
                    f" expected each name in one list. Take it out of one, or choose other files in split_lists"
                )
    return splits


def _name(line: str, known: Collection[str]) -> str:
    """Returns the known name in a line, or its first word."""
    first = line.split()[0]
    stem = first.rpartition("/")[2].rpartition(".")[0]
    return next((name for name in (line, first, stem, first.rpartition("/")[2]) if name in known), first)
