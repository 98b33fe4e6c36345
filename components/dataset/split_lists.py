"""Reads the files that list which pairs belong to a split, such as Pascal VOC's `ImageSets/Segmentation/train.txt`."""

from __future__ import annotations

from collections.abc import Collection

from components import files
from components.dataset.description import DatasetDescription
from components.dataset.patterns import normalize
from components.errors import UsageError


def read(root: str, description: DatasetDescription, known: Collection[str]) -> dict[str, str]:
    """Returns the split of every listed name; a listed name need not be among the known ones.

    A line holds a name, or a path whose last part is one; what stands behind the first blank is passed over, as the
    class numbers of Oxford-IIIT Pets and the mask paths of other lists, and so are empty lines and lines with `#`.

    Args:
        root: the data root.
        description: names the list of each split.
        known: the names of the pairs that are there.

    Raises:
        UsageError: a list cannot be read, two splits list one name, or a list names nothing that is there.
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
        if known and not set(names) & set(known):
            raise UsageError(
                f"{place}: names no pair that is there; found {names[0]!r} in it"
                f", expected names such as {min(known)!r}. Correct the list, or layout.images in segpipe.yaml"
                if names
                else f"{place}: found no name; expected the names of the pairs of {split}, one a line, such as"
                f" {min(known)!r}. Correct the list, or take {split} out of split_lists in segpipe.yaml"
            )
        for name in names:
            if splits.setdefault(name, split) != split:
                raise UsageError(
                    f"{place}: {name!r} is also in the list of {splits[name]}, {description.split_lists[splits[name]]};"
                    f" expected each name in one list. Take it out of one, or choose other files in split_lists"
                )
    return splits


def _name(line: str, known: Collection[str]) -> str:
    """Returns the known name that a line stands for, or its first word."""
    first = line.split()[0]
    stem = first.rpartition("/")[2].rpartition(".")[0]
    return next((name for name in (line, first, stem, first.rpartition("/")[2]) if name in known), first)
