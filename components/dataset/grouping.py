"""Groups the files of a data set into pairs by their paths."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict

from components.dataset import patterns
from components.dataset.description import DatasetDescription, compile_layout
from components.dataset.layout import IMAGE_EXTENSIONS, STORED_EXTENSIONS

# Formats that Pillow converts to PNG. An issue names such a file if it has the name of a missing image or mask.
OTHER_FORMATS = (*IMAGE_EXTENSIONS, "gif")

Key = tuple[str, str]  # split ("" without split folders) and name


@dataclasses.dataclass(frozen=True)
class Group:
    """The files of one pair by kind; a complete pair has one of each kind that the layout names."""

    images: list[str] = dataclasses.field(default_factory=list)
    masks: list[str] = dataclasses.field(default_factory=list)
    instances: list[str] = dataclasses.field(default_factory=list)  # masks of instance ids, or COCO's annotations
    depth: list[str] = dataclasses.field(default_factory=list)
    # a file named like the image, with an extension that the layout does not accept; "" if not found
    other_image: str = ""
    other_mask: str = ""  # the same for the mask


def group_files(paths: list[str], description: DatasetDescription) -> dict[Key, Group]:
    """Returns the files of each pair; skips files that no pattern matches.

    A TIFF, BMP or WebP image beside a PNG or JPEG of the same name is skipped as the original of that image. If all
    splits have their masks in one folder, a mask without an image in any split is skipped too.
    """
    layout = compile_layout(description)
    split_of_folder = {patterns.normalize(folder): split for split, folder in description.splits.items()}
    # By kind, split (None for a folder that all splits share) and name (None for a file with all instances).
    found: dict[tuple[str, str | None, str | None], list[str]] = defaultdict(list)

    def add(kind: str, path: str, match: re.Match[str]) -> None:
        parts = match.groupdict()
        split: str | None = None if description.has_split_folders else ""
        if "split" in parts:
            split = split_of_folder[parts["split"]]
        found[kind, split, patterns.name_of(match) if "name" in parts else None].append(path)

    others = {
        f"other_{kind}": patterns.compile_pattern(
            patterns.without_extension(pattern), description.splits.values(), OTHER_FORMATS
        )
        for kind, pattern in (("image", description.layout.images), ("mask", description.layout.masks))
        if pattern
    }
    for path in paths:
        # Images come last: if all files lie in one folder, X_mask.png also matches the pattern of images.
        for kind, pattern in layout.items():
            if match := pattern.fullmatch(path):
                add(kind, path, match)
                break
        else:
            for kind, pattern in others.items():
                if match := pattern.fullmatch(path):
                    add(kind, path, match)

    def lookup(kind: str, split: str, name: str) -> list[str]:
        places = ((kind, a, b) for a in (split, None) for b in (name, None))
        return [path for place in places for path in found.get(place, [])]

    groups = {}
    for kind, split, name in list(found):
        if kind in ("images", "masks") and split is not None and name is not None:
            files = {kind: lookup(kind, split, name) for kind in layout}
            stored = [path for path in files["images"] if path.lower().endswith(STORED_EXTENSIONS)]
            files["images"] = stored or files["images"]
            image, mask = ((lookup(other, split, name) or [""])[-1] for other in ("other_image", "other_mask"))
            groups[split, name] = Group(**files, other_image=image, other_mask=mask)
    return groups
