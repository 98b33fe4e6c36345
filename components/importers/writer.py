"""Write an imported data set: images as they are, masks of class indices, instances if the source has any, and a
description in `segpipe.yaml`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from pydantic import ValidationError

from components.dataset import masks
from components.dataset.description import FILE_NAMES, DatasetDescription
from components.dataset.splitting import TRAIN, assign_sequences
from components.dataset.yaml_settings import explain
from components.errors import UsageError
from components.importers import coco
from components.importers.canvas import OVERLAPS, mask_size, paint
from components.importers.palette import voc_color
from components.importers.regions import full_mask
from components.importers.source import (
    BACKGROUND,
    BadAnnotationError,
    Item,
    Label,
    Shape,
    Size,
    Source,
    is_background,
)
from components.instances import Instances

if TYPE_CHECKING:
    from components.dataset.inspection import OnProgress

VAL, TEST = "val", "test"
_ORDER = (TRAIN, VAL, TEST)
_SPLITS = {"training": TRAIN, "valid": VAL, "validation": VAL, "dev": VAL, "testing": TEST}
_MOST_CLASSES = 256
_SHOWN = 5  # problems named in a message


@dataclasses.dataclass(frozen=True)
class Options:
    """What to keep of a source and how to divide it.

    Attributes:
        classes: the labels to keep, in this order; all of them if empty.
        val: fraction of the images held out for validation if the source has no such split.
        sequence: regular expression with one group, the sequence in an image's name; sequences stay whole.
        link: link the images and do not copy them.
    """

    classes: Sequence[str] = ()
    val: float = 0.2
    sequence: str | None = None
    link: bool = False


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        classes: class names in index order, the background first.
        pairs: pairs written, by split.
        held_out: whether `val` was taken from the training images because the source had none.
        lost: counts of what the masks cannot hold, by kind; only counts above 0.
        problems: one message for each image or file that was left out.
    """

    classes: tuple[str, ...]
    pairs: dict[str, int]
    held_out: bool
    lost: dict[str, int]
    problems: tuple[str, ...]


def write(source: Source, destination: Path, options: Options, on_progress: OnProgress | None = None) -> Imported:
    """Write `{split}/images`, `{split}/masks`, `{split}/instances` if the source has any, and `segpipe.yaml`.

    Args:
        source: what an importer returned.
        destination: a folder that does not exist or is empty.
        options: what to keep and how to divide it.
        on_progress: called with the number of images done and the total.

    Raises:
        UsageError: an unknown class, too many classes, no image that can be imported, or no way to split them.
    """
    if not source.items:
        raise _nothing_imported(source.problems)
    labels = _kept(source, options.classes)
    description = _describe(destination.name or "imported", labels, source, options.sequence)
    names = [_pair_name(item) for item in source.items]
    splits, held_out = _assign_splits(source.items, names, description, options.val)
    index_of = {item.name: index for index, item in enumerate(description.classes)}
    lost, pairs = Counter(source.lost), Counter[str]()
    problems = list(source.problems)
    written: dict[tuple[str, str], Path] = {}
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{destination}: cannot be made: {error.strerror}; expected a folder to write") from None
    for done, (item, name, split) in enumerate(zip(source.items, names, splits, strict=True), start=1):
        folder = destination / split
        try:
            first = written.setdefault((split, name), item.image)
            if first is not item.image:
                raise BadAnnotationError(
                    f"{item.image}: found a pair called {name} already, of {first}; expected one. Rename an image"
                )
            mask, annotations = _draw(item, f"{name}{item.image.suffix}", source, index_of, lost)
            _place(item.image, folder / "images" / f"{name}{item.image.suffix}", options.link)
            (folder / "masks").mkdir(parents=True, exist_ok=True)
            (folder / "masks" / f"{name}.png").write_bytes(masks.encode(mask))
            if annotations:
                (folder / "instances").mkdir(exist_ok=True)
                (folder / "instances" / f"{name}.json").write_bytes(annotations)
            pairs[split] += 1
        except BadAnnotationError as error:
            problems.append(str(error))
        if on_progress:
            on_progress(done, len(names))
    if not pairs:
        raise _nothing_imported(problems)
    in_order = {split: pairs[split] for split in _ORDER if pairs[split]}
    _write_description(destination, description, in_order)
    return Imported(
        tuple(index_of), in_order, held_out, {kind: count for kind, count in lost.items() if count}, tuple(problems)
    )


def _nothing_imported(problems: Sequence[str]) -> UsageError:
    reasons = problems[:_SHOWN] or ["the source lists no images; check that --format and SOURCE are right"]
    return UsageError("no image could be imported:\n" + "\n".join(reasons))


def _kept(source: Source, classes: Sequence[str]) -> list[Label]:
    """Returns the labels to keep; the ignored class is always one of them."""
    named = {label.name: label for label in source.labels if not is_background(label.name)}
    unknown = sorted({name for name in classes if not is_background(name)} - set(named))
    if unknown:
        raise UsageError(f"--class: found {unknown[0]!r}; expected one of {', '.join(named) or 'no classes'}")
    chosen = [*classes, *([source.ignore] if source.ignore else [])] if classes else named
    kept = [named[name] for name in dict.fromkeys(chosen) if name in named]
    if not 1 <= len(kept) < _MOST_CLASSES:
        raise UsageError(
            f"found {len(kept)} classes beside the background; expected 1 to {_MOST_CLASSES - 1}, which fit an 8-bit"
            " mask." + (" Choose some with --class" if kept else " Check that --format and SOURCE are right")
        )
    return kept


def _describe(name: str, labels: list[Label], source: Source, sequence: str | None) -> DatasetDescription:
    layout = {"images": "{split}/images/{name}", "masks": "{split}/masks/{name}.png"}
    if source.has_instances:
        layout["instances"] = "{split}/instances/{name}.json"
    classes = [{"name": BACKGROUND, "color": voc_color(0)}]
    classes += [
        {"name": label.name, "color": label.color or voc_color(index)} for index, label in enumerate(labels, start=1)
    ]
    try:
        return DatasetDescription.model_validate(
            {
                "name": name,
                "classes": classes,
                "ignore": source.ignore,
                "things": [label.name for label in labels] if source.has_instances else [],
                "layout": layout,
                "splits": {TRAIN: TRAIN},
                "sequence": sequence,
            }
        )
    except ValidationError as error:
        raise UsageError(explain(error, DatasetDescription, "description of the imported data")) from None


def _pair_name(item: Item) -> str:
    """Returns the name of a pair: its image's path with `__` for slashes, without the extension."""
    # A leading dot would hide the files.
    return os.path.splitext(item.name)[0].replace("/", "__").lstrip(".") or "image"


def _split(item: Item) -> str:
    """Returns the split as segpipe calls it, empty if unknown: `train2017` is `train`, `valid` is `val`."""
    plain = re.sub(r"[^a-z0-9_-]", "_", re.sub(r"_?\d{4}$", "", (item.split or "").lower()))
    return _SPLITS.get(plain, plain)


def _assign_splits(
    items: Sequence[Item], names: Sequence[str], description: DatasetDescription, val: float
) -> tuple[list[str], bool]:
    """Returns the split of each image, and whether `val` is held out because the source lacks train or val.

    Images of a test split stay there. Whole sequences are held out, chosen by a hash of their names.
    """
    splits = [_split(item) for item in items]
    if {TRAIN, VAL} <= set(splits):
        return [split if split in _ORDER else TRAIN for split in splits], False
    sequences = [description.sequence_of(name) if description.sequence else name for name in names]
    free = [sequence or name for sequence, name, split in zip(sequences, names, splits, strict=True) if split != TEST]
    if len(set(free)) < 2:
        raise UsageError(
            f"found {len(set(free))} sequences or images to divide into train and val; expected at least 2. Import more"
            " images, or give --sequence an expression that tells sequences apart"
        )
    assigned = assign_sequences(Counter(free), {VAL: val})
    return [
        split if split == TEST else assigned[sequence or name]
        for sequence, name, split in zip(sequences, names, splits, strict=True)
    ], True


def _draw(
    item: Item, name: str, source: Source, index_of: Mapping[str, int], lost: Counter[str]
) -> tuple[np.ndarray, bytes]:
    """Returns an image's mask, class indices as uint8 [H, W], and its instances as COCO's JSON, empty if the source has
    none. Raises BadAnnotationError.
    """
    size = mask_size(item)
    # Counted apart, because an image that fails here is left out and loses nothing.
    found: Counter[str] = Counter()
    shapes = item.read(size, found)
    mask = paint(shapes, size, index_of, source.smaller_above, found)
    annotations = b""
    if source.has_instances:
        # Overlaps are not lost: the instances hold them.
        del found[OVERLAPS]
        annotations = coco.encode(name, size, _instances(shapes, size, index_of), list(index_of))
    lost.update(found)
    return mask, annotations


def _instances(shapes: Sequence[Shape], size: Size, index_of: Mapping[str, int]) -> Instances:
    """Returns the shapes of the classes that are kept, without those that cover no pixel."""
    kept = [shape for shape in shapes if shape.label in index_of and not is_background(shape.label)]
    found = [(full_mask(shape.region, size), index_of[shape.label], shape.crowd) for shape in kept]
    return Instances.stack([each for each in found if each[0].any()], size)


def _place(image: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(image.resolve())
    else:
        shutil.copyfile(image, target)


def _write_description(destination: Path, description: DatasetDescription, pairs: Mapping[str, int]) -> None:
    """Write the description with the splits that have pairs."""
    plain = description.model_dump(mode="json", exclude_defaults=True)
    plain["splits"] = {split: split for split in pairs}
    text = yaml.safe_dump(plain, default_flow_style=None, sort_keys=False, allow_unicode=True, width=120)
    (destination / FILE_NAMES[0]).write_text(text, encoding="utf-8")
