"""Finds the pairs of image and mask, with instances and depth, below a data root, by their paths.

`components.dataset.checks` reads the files.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, TypeVar

from components.dataset import advice, label_colors, patterns, split_lists
from components.dataset.data_files import data_files
from components.dataset.description import DatasetDescription, compile_layout
from components.dataset.grouping import Group, Key, group_files
from components.dataset.splitting import HELD_OUT, held_out_sequences, split_of_sequences
from components.errors import UsageError

REASONS = (
    EMPTY := "empty",
    UNREADABLE := "unreadable",
    UNDECODABLE := "undecodable",
    TRUNCATED := "truncated",
    ABSURD_SIZE := "absurd_size",
    MASK_MISSING := "mask_missing",
    IMAGE_MISSING := "image_missing",
    SIZE_MISMATCH := "size_mismatch",
    DUPLICATE_NAME := "duplicate_name",
    COLOUR_MASK := "colour_mask",
    UNKNOWN_COLOUR := "unknown_colour",
    LABEL_OUTSIDE_MAP := "label_outside_map",
    UNSUITABLE_RANGE := "unsuitable_range",
    UNSUPPORTED := "unsupported",
    INSTANCES_MISSING := "instances_missing",
    EMPTY_INSTANCE := "empty_instance",
    BAD_ANNOTATION := "bad_annotation",
    DEPTH_MISSING := "depth_missing",
)
# What to do about an issue of an existing file, by reason; some issues have an action of their own.
ACTIONS = {
    EMPTY: "copy the file again from its source",
    UNREADABLE: "check that the file exists and that you may read it",
    TRUNCATED: "copy the file again from its source",
    UNDECODABLE: "save the file again as PNG (images also as JPEG); export a mask that was stored as JPEG again: "
    "JPEG changes its values",
    ABSURD_SIZE: "resize or cut image and mask, or raise data.max_side or export.max_pixels",
    SIZE_MISMATCH: "give image and mask the same size, resizing the mask without interpolation",
    COLOUR_MASK: "convert the mask to class indices, or set mask_encoding: color in segpipe.yaml",
    UNKNOWN_COLOUR: "list the colour in a class's mask_colors in segpipe.yaml, or set `unnamed: ignore` there to "
    "ignore such pixels",
    LABEL_OUTSIDE_MAP: "list the value in segpipe.yaml: give its class `indices` with all values of that class "
    "(without it, the value is the class's position in the list), or set `unnamed: ignore` to ignore such pixels",
    EMPTY_INSTANCE: "delete the annotation, or move it into the image",
    UNSUITABLE_RANGE: "add image_range: [low, high] to segpipe.yaml, the values that are black and white in every "
    "image; of a 12-bit camera [0, 4095]; [0, 65535] accepts all images",
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    name: str  # unique within the split, in Unicode's form NFC; SEQUENCE/NAME if the layout has {sequence}
    split: str
    sequence: str  # the video sequence or group it comes from
    image: str  # path of the image, relative to the data root
    mask: str  # path of the mask, relative to the data root; "" if it is drawn from the instances
    # path of the file of its instances, relative to the data root; "" if they are derived from the mask
    instances: str = ""
    depth: str = ""  # path of the depth map, relative to the data root; "" if depth is not read


@dataclasses.dataclass(frozen=True)
class DataIssue:
    """The reason why a file or a pair is left out."""

    split: str
    name: str
    file: str  # path of the file with the issue, relative to the data root
    reason: str  # one of `REASONS`
    found: str
    expected: str
    action: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the issue as plain JSON types."""
        return dataclasses.asdict(self)


def find_pairs(root: str, description: DatasetDescription) -> tuple[list[Pair], list[DataIssue]]:
    """Finds all pairs below a data root; skips files that no pattern of the layout matches.

    If several files have one name (`X.png` and `X.jpg`, or two masks), none of them is used, because the right one is
    unknown: each gets an issue of its own. A file whose name is not UTF-8 gets an issue too, because an example cannot
    store the name. A TIFF, BMP or WebP image beside a PNG or JPEG of the same name is skipped as its original.

    Returns:
        The pairs and the issues, each sorted by split and name.

    Raises:
        UsageError: the data cannot be split as described, or its own list of mask colours contradicts the
            description.
    """
    paths = list(data_files(root))
    label_colors.check(root, paths, description)
    pairs: list[Pair] = []
    issues: list[DataIssue] = []
    for (split, name), group in sorted(_by_split(root, group_files(paths, description), description).items()):
        found = _issues(description, split, name, group)
        issues += found
        if not found:
            sequence = description.sequence_of(name) or name
            mask, instances, depth = ("".join(paths) for paths in (group.masks, group.instances, group.depth))
            pairs.append(Pair(name, split, sequence, group.images[0], mask, instances, depth))
    return _hold_out(description, pairs, issues)


_Entry = TypeVar("_Entry", Pair, DataIssue)


def _hold_out(
    description: DatasetDescription, pairs: list[Pair], issues: list[DataIssue]
) -> tuple[list[Pair], list[DataIssue]]:
    """Moves the held-out sequences to a split of their own."""
    held_out = description.held_out
    names = [pair.name for pair in pairs if held_out and pair.split == held_out.split]
    if not held_out or not names:
        return pairs, issues
    if any(pair.split == HELD_OUT for pair in pairs):
        raise UsageError(
            f"data.held_out_fraction or data.held_out_sequences: the data set has a split {HELD_OUT!r} already; "
            "leave the setting out, or rename the split"
        )
    source, sequences = held_out.split, held_out_sequences(description, held_out, names)

    def moved(entries: list[_Entry]) -> list[_Entry]:
        result = [
            dataclasses.replace(entry, split=HELD_OUT)
            if entry.split == source and description.sequence_of(entry.name) in sequences
            else entry
            for entry in entries
        ]
        return sorted(result, key=lambda entry: (entry.split, entry.name))

    return moved(pairs), moved(issues)


def _by_split(root: str, groups: dict[Key, Group], description: DatasetDescription) -> dict[Key, Group]:
    """Returns the groups to be used by split and name; without split folders, assigns a split to each name."""
    if description.unpaired == "ignore":
        masks = description.layout.masks
        groups = {key: group for key, group in groups.items() if group.images and (group.masks or not masks)}
    if description.has_split_folders:
        return groups
    by_name = {name: group for (_, name), group in groups.items()}
    if description.split_lists:
        splits = split_lists.read(root, description, by_name)
        if description.unpaired == "error":
            by_name = {**{name: Group() for name in splits}, **by_name}
        return {(splits[name], name): group for name, group in by_name.items() if name in splits}
    by_sequence = split_of_sequences(description, list(by_name))
    return {(by_sequence[description.sequence_of(name) or name], name): group for name, group in by_name.items()}


def member_files(paths: list[str], description: DatasetDescription) -> list[str]:
    """Returns the paths that belong to the data set: files of pairs, split lists and mask colours."""
    expressions = list(compile_layout(description).values())
    if description.label_colors:
        expressions.append(label_colors.compile_path(description))
    lists = set(description.split_lists.values())
    return [path for path in paths if path in lists or any(pattern.fullmatch(path) for pattern in expressions)]


def _issues(description: DatasetDescription, split: str, name: str, group: Group) -> list[DataIssue]:
    """Returns why a group of files is not a pair; empty if it is one."""
    paths = [*group.images, *group.masks, *([*group.instances, *group.depth] if group.images else [])]
    if any(advice.printable(path) != path for path in paths):
        issue = functools.partial(DataIssue, split, advice.printable(name))
        found, expected, action = "a file name that is not UTF-8", "a name in UTF-8", "rename the file"
        return [issue(advice.printable(path), UNREADABLE, found, expected, action) for path in paths]
    kinds = {"images": group.images}
    if group.images:
        kinds |= {"masks": group.masks, "instances": group.instances, "depth maps": group.depth}
    for kind, same in kinds.items():
        if len(same) > 1:
            found = f"{len(same)} {kind} of one name: {', '.join(same)}"
            expected, action = "one file of each kind for each name", advice.separate(kind, same)
            return [DataIssue(split, name, path, DUPLICATE_NAME, found, expected, action) for path in same]
    return _missing_files(description, split, name, group)


def _missing_files(description: DatasetDescription, split: str, name: str, group: Group) -> list[DataIssue]:
    """Returns the issues of the first kind of file that a group lacks."""
    issue = functools.partial(DataIssue, split, name)
    layout, folder = description.layout, description.splits.get(split, "")
    image, mask, instances, depth = (
        patterns.fill(pattern or "", name, folder)
        for pattern in (layout.images, layout.masks, layout.instances, layout.depth)
    )
    if not patterns.extension_of(layout.images):
        image += f".{'|'.join(layout.extensions)}"
    leave_out = "or set `unpaired: ignore` in segpipe.yaml to leave out all"
    if not group.images and not group.masks:
        found = f"the listed name {name!r} without an image and a mask"
        expected = f"an image at {image}" + (f" and a mask at {mask}" if mask else "")
        action = f"add both, or take the name out of the list, {leave_out} such names"
        return [issue(description.split_lists[split], IMAGE_MISSING, found, expected, action)]
    if not group.images:
        found, other = "a mask without an image", group.other_image
        action = f"add {image}, {leave_out} masks without an image"
        if other:
            found += f", but {advice.printable(other)} is there"
            action = advice.accept(other) or advice.convert(other)
        return [issue(path, IMAGE_MISSING, found, f"an image at {image}", action) for path in group.masks]
    if not group.masks and layout.masks:
        found, other = "an image without a mask", group.other_mask
        action = f"add {mask}, {leave_out} images without a mask"
        if other:
            found, action = f"{found}, but {advice.printable(other)} is there", advice.convert(other)
        return [issue(group.images[0], MASK_MISSING, found, f"a mask at {mask}", action)]
    if not group.instances and layout.instances:
        found = "an image without a file of instances"
        action = f"add {instances}; if no image has one, leave `instances` out of the layout"
        return [issue(group.images[0], INSTANCES_MISSING, found, f"instances at {instances}", action)]
    if not group.depth and layout.depth:
        found, action = "an image without a depth map", f"add {depth}, or set model.depth: false"
        return [issue(group.images[0], DEPTH_MISSING, found, f"a depth map at {depth}", action)]
    return []
