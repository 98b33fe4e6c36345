"""Groups the files of a data set by the pair that they belong to, by their paths alone."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from components.dataset import patterns
from components.dataset.description import DatasetDescription, compile_layout
from components.dataset.layout import IMAGE_EXTENSIONS, STORED_EXTENSIONS

# Formats that Pillow converts to PNG: an issue names such a file if it is in the place of a missing image or mask.
OTHER_FORMATS = (*IMAGE_EXTENSIONS, "gif")


@dataclasses.dataclass
class Group:
    """The files of one pair, by kind; a sound pair has one of each kind that the layout names."""

    images: list[str] = dataclasses.field(default_factory=list)
    masks: list[str] = dataclasses.field(default_factory=list)
    instances: list[str] = dataclasses.field(default_factory=list)
    depth: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Groups:
    """What a data root holds.

    Attributes:
        pairs: files by split (empty without split folders) and name.
        other_images: files in the place of an image whose extension the layout does not accept, by split and name.
        other_masks: the same for masks.
    """

    pairs: dict[tuple[str, str], Group]
    other_images: dict[tuple[str, str], str]
    other_masks: dict[tuple[str, str], str]


def group_files(paths: list[str], description: DatasetDescription) -> Groups:
    """Groups the paths of each kind of files by split and name; files that no pattern matches are passed over.

    A TIFF, BMP or WebP image beside a PNG or JPEG of the same name is passed over: it is taken to be its original.
    If masks of all splits share one folder, a mask that no split has an image for is passed over as well.
    """
    layout = compile_layout(description)
    split_of_folder = {patterns.normalize(folder): split for split, folder in description.splits.items()}
    groups: dict[tuple[str, str], Group] = defaultdict(Group)
    shared_masks: dict[str, list[str]] = defaultdict(list)
    kinds = {"instances": layout.instances, "depth": layout.depth}
    # By kind, split, None if all splits share the folder, and name, None if a file holds the instances of all images.
    beside: dict[tuple[str, str | None, str | None], list[str]] = defaultdict(list)
    rest: list[str] = []
    for path in paths:
        # Images last: if all lie in one folder, X_mask.png would also pass for an image.
        found = [(kind, match) for kind, pattern in kinds.items() if pattern and (match := pattern.fullmatch(path))]
        if found:
            kind, match = found[0]
            parts = match.groupdict()
            split = split_of_folder[parts["split"]] if "split" in parts else None
            beside[kind, split, patterns.name_of(match) if "name" in parts else None].append(path)
        elif layout.masks and (match := layout.masks.fullmatch(path)):
            folder = match.groupdict().get("split")
            if folder is None and description.has_split_folders:
                shared_masks[patterns.name_of(match)].append(path)
            else:
                groups[split_of_folder.get(folder or "", ""), patterns.name_of(match)].masks.append(path)
        elif match := layout.images.fullmatch(path):
            split = split_of_folder.get(match.groupdict().get("split", ""), "")
            groups[split, patterns.name_of(match)].images.append(path)
        else:
            rest.append(path)
    for (split, name), group in groups.items():
        group.masks += shared_masks.get(name, [])
        keys = [(a, b) for a in (split, None) for b in (name, None)]
        group.instances, group.depth = (
            [path for key in keys for path in beside.get((kind, *key), [])] for kind in kinds
        )
        stored = [path for path in group.images if path.lower().endswith(STORED_EXTENSIONS)]
        group.images = stored or group.images

    def others(pattern: str | None) -> dict[tuple[str, str], str]:
        if pattern is None:
            return {}
        stem = patterns.without_extension(pattern)
        compiled = patterns.compile_pattern(stem, description.splits.values(), OTHER_FORMATS)
        found: dict[tuple[str, str], str] = {}
        for path in rest:
            if match := compiled.fullmatch(path):
                folder = match.groupdict().get("split")
                name = patterns.name_of(match)
                # A mask in a folder that all splits share may belong to any of them.
                splits = list(description.splits) if folder is None else [split_of_folder[folder]]
                found.update({(split, name): path for split in splits or [""]})
        return found

    return Groups(dict(groups), others(description.layout.images), others(description.layout.masks))
