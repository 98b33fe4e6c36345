"""Finds the pairs of image and mask, with instances and depth, below a data root, and the files that make no pair.

Of the images and masks only the paths are used; `components.dataset.checks` reads the files.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from components.dataset import advice, label_colors, patterns, split_lists
from components.dataset.data_files import data_files
from components.dataset.description import DatasetDescription, compile_layout
from components.dataset.grouping import Group, group_files
from components.dataset.splitting import HELD_OUT, held_out_sequences, split_of_sequences
from components.errors import UsageError

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
UNSUPPORTED = "unsupported"
INSTANCES_MISSING = "instances_missing"
EMPTY_INSTANCE = "empty_instance"
BAD_ANNOTATION = "bad_annotation"
DEPTH_MISSING = "depth_missing"
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
    UNSUPPORTED,
    INSTANCES_MISSING,
    EMPTY_INSTANCE,
    BAD_ANNOTATION,
    DEPTH_MISSING,
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: unique within the split, in Unicode's form NFC; if the layout has {sequence}, SEQUENCE/NAME.
        split: the split it belongs to.
        sequence: the video sequence or group it comes from.
        image: path of the image, relative to the data root.
        mask: path of the mask, relative to the data root; "" if it is made of the instances.
        instances: path of the file of its instances, relative to the data root; "" if they are made of the mask.
        depth: path of the depth map, relative to the data root; "" if none is read.
    """

    name: str
    split: str
    sequence: str
    image: str
    mask: str
    instances: str = ""
    depth: str = ""


@dataclasses.dataclass(frozen=True)
class DataIssue:
    """Why a file or a pair is left out.

    Attributes:
        split: the split it would have been in.
        name: the pair's name.
        file: path of the file with the issue, relative to the data root.
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
        """Returns the issue as plain JSON types."""
        return dataclasses.asdict(self)


def find_pairs(root: str, description: DatasetDescription) -> tuple[list[Pair], list[DataIssue]]:
    """Finds all pairs below a data root; files no pattern of the layout matches are passed over.

    If two files claim one name (`X.png` and `X.jpg`, or two masks) none of them is used: which one
    the mask was drawn on is unknown, and keeping the first would depend on the order of extensions.
    Each of the files then has an issue of its own. So has a file whose name is not UTF-8, which no
    example could carry. A TIFF, BMP or WebP image beside a PNG or JPEG of the same name is passed
    over: it is taken to be its original.

    Args:
        root: the data root, local or remote.
        description: its layout and splits.

    Returns:
        The pairs and the issues, each sorted by split and name.

    Raises:
        UsageError: the data cannot be split as described, or its own list of mask colours contradicts the
            description.
    """
    paths = list(data_files(root))
    label_colors.check(root, paths, description)
    groups = group_files(paths, description)
    pairs: list[Pair] = []
    issues: list[DataIssue] = []
    for (split, name), (key, group) in sorted(_by_split(root, groups.pairs, description).items()):
        found = _issues(description, split, name, group, groups.other_images.get(key), groups.other_masks.get(key))
        issues += found
        if not found:
            sequence = description.sequence_of(name) or name
            mask, instances, depth = ("".join(paths) for paths in (group.masks, group.instances, group.depth))
            pairs.append(Pair(name, split, sequence, group.images[0], mask, instances, depth))
    return _hold_out(description, pairs, issues)


def _hold_out(
    description: DatasetDescription, pairs: list[Pair], issues: list[DataIssue]
) -> tuple[list[Pair], list[DataIssue]]:
    """Moves the sequences that a description holds out to a split of their own."""
    held_out = description.held_out
    names = [pair.name for pair in pairs if held_out and pair.split == held_out.split]
    if not held_out or not names:
        return pairs, issues
    if any(pair.split == HELD_OUT for pair in pairs):
        raise UsageError(
            f"data.held_out_fraction or data.held_out_sequences: found a split {HELD_OUT!r} in the data set, expected "
            "none of that name; leave the setting out, or rename the split"
        )
    sequences = held_out_sequences(description, held_out, names)

    def split_of(entry: Pair | DataIssue) -> str:
        moves = entry.split == held_out.split and description.sequence_of(entry.name) in sequences
        return HELD_OUT if moves else entry.split

    moved_pairs = [dataclasses.replace(pair, split=split_of(pair)) for pair in pairs]
    moved_issues = [dataclasses.replace(issue, split=split_of(issue)) for issue in issues]
    return sorted(moved_pairs, key=_order), sorted(moved_issues, key=_order)


def _order(entry: Pair | DataIssue) -> tuple[str, str]:
    return entry.split, entry.name


_Key = tuple[str, str]  # split, or nothing without split folders, and name


def _by_split(root: str, groups: dict[_Key, Group], description: DatasetDescription) -> dict[_Key, tuple[_Key, Group]]:
    """Returns the groups to be used, with the key that each was found under, by split and name."""
    if description.unpaired == "ignore":
        masks = description.layout.masks
        groups = {key: group for key, group in groups.items() if group.images and (group.masks or not masks)}
    if description.has_split_folders:
        return {key: (key, group) for key, group in groups.items()}
    names = [name for _, name in groups]
    if description.split_lists:
        splits = split_lists.read(root, description, set(names))
        if description.unpaired == "error":
            groups = {**{("", name): Group() for name in splits}, **groups}
        listed = {key: group for key, group in groups.items() if key[1] in splits}
        return {(splits[name], name): (("", name), group) for (_, name), group in listed.items()}
    by_sequence = split_of_sequences(description, names)
    return {
        (by_sequence[description.sequence_of(name) or name], name): (("", name), group)
        for (_, name), group in groups.items()
    }


def member_files(paths: list[str], description: DatasetDescription) -> list[str]:
    """Returns those of the paths that belong to the data set: pairs' files, split lists and mask colours."""
    expressions = [pattern for pattern in compile_layout(description) if pattern]
    if description.label_colors:
        expressions.append(label_colors.compile_path(description))
    lists = set(description.split_lists.values())
    return [path for path in paths if path in lists or any(pattern.fullmatch(path) for pattern in expressions)]


def _issues(
    description: DatasetDescription,
    split: str,
    name: str,
    group: Group,
    other_image: str | None,
    other_mask: str | None,
) -> list[DataIssue]:
    """Returns why a group of files is not a pair.

    `other_image` and `other_mask` are files in the place of its image and mask whose extension is not accepted.
    """
    paths = [*group.images, *group.masks, *([*group.instances, *group.depth] if group.images else [])]
    if any(advice.printable(path) != path for path in paths):
        return [
            DataIssue(
                split,
                advice.printable(name),
                advice.printable(path),
                UNREADABLE,
                found="a file name that is not UTF-8",
                expected="a name in UTF-8",
                action="rename the file",
            )
            for path in paths
        ]
    kinds = {"images": group.images}
    if group.images:
        kinds |= {"masks": group.masks, "instances": group.instances, "depth maps": group.depth}
    kind, clashing = next(((kind, found) for kind, found in kinds.items() if len(found) > 1), ("", []))
    if clashing:
        return [
            DataIssue(
                split,
                name,
                path,
                DUPLICATE_NAME,
                found=f"{len(clashing)} {kind} of one name: {', '.join(clashing)}",
                expected="one file of each kind for each name",
                action=advice.separate(kind, clashing),
            )
            for path in clashing
        ]
    layout, folder = description.layout, description.splits.get(split, "")
    mask, instances, depth = (
        patterns.fill(pattern or "", name, folder) for pattern in (layout.masks, layout.instances, layout.depth)
    )
    image = patterns.fill(layout.images, name, folder)
    if not patterns.extension_of(layout.images):
        image += f".{'|'.join(layout.extensions)}"
    leave_out = "or set `unpaired: ignore` in segpipe.yaml to leave out all"
    if not paths:
        listed = description.split_lists[split]
        found = f"the listed name {name!r} without an image and a mask"
        action = f"add both, or take the name out of the list, {leave_out} such names"
        return [
            DataIssue(split, name, listed, IMAGE_MISSING, found, f"an image at {image} and a mask at {mask}", action)
        ]
    if not group.masks and layout.masks:
        found = f"an image without a mask{advice.instead(other_mask)}"
        action = advice.convert(other_mask) if other_mask else f"add {mask}, {leave_out} images without a mask"
        return [DataIssue(split, name, group.images[0], MASK_MISSING, found, f"a mask at {mask}", action)]
    if not group.images:
        found = f"a mask without an image{advice.instead(other_image)}"
        action = f"add {image}, {leave_out} masks without an image"
        if other_image:
            action = advice.accept(other_image) or advice.convert(other_image)
        return [
            DataIssue(split, name, path, IMAGE_MISSING, found, f"an image at {image}", action) for path in group.masks
        ]
    if not group.instances and layout.instances:
        found = "an image without a file of instances"
        action = f"add {instances}; if no image has one, leave `instances` out of the layout"
        return [DataIssue(split, name, group.images[0], INSTANCES_MISSING, found, f"instances at {instances}", action)]
    if not group.depth and layout.depth:
        found, action = "an image without a depth map", f"add {depth}, or set model.depth: false"
        return [DataIssue(split, name, group.images[0], DEPTH_MISSING, found, f"a depth map at {depth}", action)]
    return []
