"""Finds the pairs of image and mask below a data root, and the files that make no pair.

Only paths are looked at here; `components.dataset.checks` reads what they hold.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

from components import files
from components.dataset import label_colors, patterns
from components.dataset.description import DatasetDescription, compile_layout
from components.dataset.splitting import split_of_sequences

EMPTY = "empty"
UNREADABLE = "unreadable"
UNDECODABLE = "undecodable"
TRUNCATED = "truncated"
ABSURD_SIZE = "absurd_size"
MASK_MISSING = "mask_missing"
IMAGE_MISSING = "image_missing"
SIZE_MISMATCH = "size_mismatch"
DUPLICATE_NAME = "duplicate_name"
COLOUR_MASK = "colour_mask"
UNKNOWN_COLOUR = "unknown_colour"
LABEL_OUTSIDE_MAP = "label_outside_map"
UNSUITABLE_RANGE = "unsuitable_range"
REASONS = (
    EMPTY,
    UNREADABLE,
    UNDECODABLE,
    TRUNCATED,
    ABSURD_SIZE,
    MASK_MISSING,
    IMAGE_MISSING,
    SIZE_MISMATCH,
    DUPLICATE_NAME,
    COLOUR_MASK,
    UNKNOWN_COLOUR,
    LABEL_OUTSIDE_MAP,
    UNSUITABLE_RANGE,
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: unique within the split.
        split: the split it belongs to.
        sequence: the video sequence or group it comes from.
        image: path of the image, relative to the data root.
        mask: path of the mask, relative to the data root.
    """

    name: str
    split: str
    sequence: str
    image: str
    mask: str


@dataclasses.dataclass(frozen=True)
class Fault:
    """Why a file or a pair is left out.

    Attributes:
        split: the split it would have been in.
        name: the pair's name.
        file: path of the file at fault, relative to the data root.
        reason: one of `REASONS`.
        found: what is there.
        expected: what should be there.
        action: what to do about it.
    """

    split: str
    name: str
    file: str
    reason: str
    found: str
    expected: str
    action: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the fault as plain JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class _Files:
    """The files of one pair, by kind; a sound pair has one of each."""

    images: list[str] = dataclasses.field(default_factory=list)
    masks: list[str] = dataclasses.field(default_factory=list)


def find_pairs(root: str, description: DatasetDescription) -> tuple[list[Pair], list[Fault]]:
    """Finds all pairs below a data root; files no pattern of the layout matches are passed over.

    Where two files claim one name (`X.png` and `X.jpg`, or two masks) none of them is used: which one
    the mask was drawn on is unknown, and keeping the first would depend on the order of extensions.
    Each of the files then has a fault of its own. So has a file whose name is not UTF-8, which no
    example could carry. Where masks of all splits share one folder, a mask no split has an image for is
    passed over as well.

    Args:
        root: the data root, local or remote.
        description: its layout and splits.

    Returns:
        The pairs and the faults, each sorted by split and name.

    Raises:
        UsageError: the data cannot be split by sequence as described, or its own list of mask colours
            contradicts the description.
    """
    paths = list(files.list_files(root))
    label_colors.check(root, paths, description)
    groups = _group(paths, description)
    if not description.has_split_folders:
        splits = split_of_sequences(description, [name for _, name in groups])
        groups = {(splits[description.sequence_of(name) or name], name): group for (_, name), group in groups.items()}
    pairs: list[Pair] = []
    faults: list[Fault] = []
    for (split, name), group in sorted(groups.items()):
        found = _faults(description, split, name, group)
        faults += found
        if not found:
            sequence = description.sequence_of(name) or name
            pairs.append(Pair(name, split, sequence, group.images[0], group.masks[0]))
    return pairs, faults


def member_files(paths: list[str], description: DatasetDescription) -> list[str]:
    """Returns those of the paths that belong to the data set: images, masks and the list of mask colours."""
    expressions = [*compile_layout(description)]
    if description.label_colors:
        expressions.append(label_colors.compile_path(description))
    return [path for path in paths if any(expression.fullmatch(path) for expression in expressions)]


def _group(paths: list[str], description: DatasetDescription) -> dict[tuple[str, str], _Files]:
    """Gathers image and mask paths by split (empty without split folders) and name."""
    image_pattern, mask_pattern = compile_layout(description)
    split_of_folder = {folder: split for split, folder in description.splits.items()}
    groups: dict[tuple[str, str], _Files] = defaultdict(_Files)
    shared_masks: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        # Masks first: where both lie in one folder, X_mask.png would also pass for an image.
        match = mask_pattern.fullmatch(path)
        if match:
            folder = match.groupdict().get("split")
            if folder is None and description.has_split_folders:
                shared_masks[match["name"]].append(path)
            else:
                groups[split_of_folder.get(folder or "", ""), match["name"]].masks.append(path)
            continue
        match = image_pattern.fullmatch(path)
        if match:
            groups[split_of_folder.get(match.groupdict().get("split", ""), ""), match["name"]].images.append(path)
    for (_, name), group in groups.items():
        group.masks += shared_masks.get(name, [])
    return dict(groups)


def _faults(description: DatasetDescription, split: str, name: str, group: _Files) -> list[Fault]:
    """Returns what keeps a group of files from being a pair."""
    paths = [*group.images, *group.masks]
    if any(_printable(path) != path for path in paths):
        return [
            Fault(
                split,
                _printable(name),
                _printable(path),
                UNREADABLE,
                found="a file name that is not UTF-8",
                expected="a name in UTF-8",
                action="rename the file",
            )
            for path in paths
        ]
    if len(group.images) > 1 or (len(group.masks) > 1 and group.images):
        kind, clashing = ("images", group.images) if len(group.images) > 1 else ("masks", group.masks)
        return [
            Fault(
                split,
                name,
                path,
                DUPLICATE_NAME,
                found=f"{len(clashing)} {kind} of one name: {', '.join(clashing)}",
                expected="one image and one mask for each name",
                action="delete or rename all but one of them",
            )
            for path in clashing
        ]
    folder = description.splits.get(split, "")
    if not group.masks:
        mask = patterns.fill(description.layout.masks, name, folder)
        action = f"add {mask}, or delete the image"
        return [
            Fault(split, name, group.images[0], MASK_MISSING, "an image without a mask", f"a mask at {mask}", action)
        ]
    if not group.images:
        image = patterns.fill(description.layout.images, name, folder)
        if not patterns.extension_of(description.layout.images):
            image += f".{'|'.join(description.layout.extensions)}"
        action = f"add {image}, or delete the mask"
        return [
            Fault(split, name, path, IMAGE_MISSING, "a mask without an image", f"an image at {image}", action)
            for path in group.masks
        ]
    return []


def _printable(path: str) -> str:
    """Returns a path with the bytes that are not UTF-8, which Python reads as lone surrogates, written out."""
    return path.encode(errors="backslashreplace").decode()
