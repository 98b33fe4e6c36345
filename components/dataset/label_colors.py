"""Compares a data set's own list of mask colours, such as CamVid's `label_colors.txt`, with its description.

If they differ, the description would read the masks wrongly, so the data set is refused.
"""

from __future__ import annotations

import re

from components import files
from components.dataset import patterns
from components.dataset.description import Color, DatasetDescription
from components.errors import UsageError

_LINE = re.compile(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S+)")


def compile_path(description: DatasetDescription) -> patterns.PathPattern:
    """Returns the path pattern of the list."""
    return patterns.compile_pattern(description.label_colors or "", [], ["txt"])


def check(root: str, paths: list[str], description: DatasetDescription) -> None:
    """Compares the list, if it is among the paths below a data root, with the description's colours.

    Raises:
        UsageError: names all labels whose colours differ, and all colours that the description lacks.
    """
    if not description.label_colors:
        return
    expression = compile_path(description)
    for path in filter(expression.fullmatch, paths):
        differences = _differences(_parse(root, path), description)
        if differences:
            raise UsageError(
                f"{files.join(root, path)}: differs from the colours of the description {description.name!r}: "
                + "; ".join(differences)
                + ". Copy the description to segpipe.yaml at the data root and correct its mask_colors"
            )


def _parse(root: str, path: str) -> dict[str, Color]:
    text = files.read_bytes(files.join(root, path)).decode("utf-8", errors="replace")
    colors: dict[str, Color] = {}
    for line in filter(str.strip, text.splitlines()):
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise UsageError(
                f"{files.join(root, path)}: found {line.strip()!r}; expected lines such as '128 64 128 Road'"
            )
        colors[match[4]] = (int(match[1]), int(match[2]), int(match[3]))
    return colors


def _differences(listed: dict[str, Color], description: DatasetDescription) -> list[str]:
    described = {label: color for item in description.classes for label, color in item.colors_in_mask.items()}
    known = set(described.values())
    found = [
        f"{label} is {color} in the file and {described[label]} in the description"
        for label, color in sorted(listed.items())
        if label in described and described[label] != color
    ]
    found += [
        f"{label} {color} is in the file only"
        for label, color in sorted(listed.items())
        if label not in described and color not in known
    ]
    return found
