"""Writes an imported data set: unchanged images, masks of class indices, instances if any, and `segpipe.yaml`."""

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

from components.annotations import coco
from components.annotations.entries import BadAnnotationError
from components.annotations.regions import Shape, Size, full_mask
from components.dataset import masks
from components.dataset.description import FILE_NAMES, DatasetDescription
from components.dataset.splitting import TRAIN, assign_sequences
from components.errors import UsageError
from components.importers.canvas import OVERLAPS, mask_size, paint
from components.importers.source import BACKGROUND, Color, Item, Source, collected, is_background, voc_color
from components.instances import Instances
from components.validation import explain

if TYPE_CHECKING:
    from components.dataset.inspection import OnProgress

VAL, TEST = "val", "test"
_ORDER = (TRAIN, VAL, TEST)
_SPLITS = {"training": TRAIN, "valid": VAL, "validation": VAL, "dev": VAL, "testing": TEST}
_MOST_CLASSES = 256
_SHOWN = 5  # problems listed in a message


@dataclasses.dataclass(frozen=True)
class Options:
    """What to keep of a source and how to split it.

    Attributes:
        classes: labels to keep, in this order; all if empty.
        val: fraction of the images held out for validation if the source has no such split.
        sequence: regular expression whose one group is the sequence in an image's name; sequences stay whole.
        link: link the images instead of copying them.
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
        held_out: whether `val` was taken from the training images, because the source had no such split.
        lost: counts of what the masks cannot hold, by kind; only counts above 0.
        problems: one message for each image or file that was left out.
    """

    classes: tuple[str, ...]
    pairs: dict[str, int]
    held_out: bool
    lost: dict[str, int]
    problems: tuple[str, ...]


def write(source: Source, destination: Path, options: Options, on_progress: OnProgress) -> Imported:
    """Writes `{split}/images`, `{split}/masks`, `{split}/instances` if the source has any, and `segpipe.yaml`.

    Args:
        source: the data set that an importer read.
        destination: a folder that does not exist or is empty.
        options: what to keep and how to split it.
        on_progress: called with the number of images done and the total.

    Raises:
        UsageError: a class is unknown, there are too many classes, or no image can be imported or split.
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
        with collected(problems):
            first = written.setdefault((split, name), item.image)
            if first is not item.image:
                raise BadAnnotationError(
                    f"{item.image}: found another pair called {name}, of {first}; expected one. Rename an image"
                )
            mask, annotations = _draw(item, f"{name}{item.image.suffix}", source, index_of, lost)
            _place(item.image, folder / "images" / f"{name}{item.image.suffix}", options.link)
            (folder / "masks").mkdir(parents=True, exist_ok=True)
            (folder / "masks" / f"{name}.png").write_bytes(masks.encode(mask))
            if annotations:
                (folder / "instances").mkdir(exist_ok=True)
                (folder / "instances" / f"{name}.json").write_bytes(annotations)
            pairs[split] += 1
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


def _kept(source: Source, classes: Sequence[str]) -> dict[str, Color | None]:
    """Returns the labels to keep, without the background, and always with the ignored class."""
    named = {name: color for name, color in source.labels.items() if not is_background(name)}
    unknown = sorted({name for name in classes if not is_background(name)} - set(named))
    if unknown:
        raise UsageError(f"--class: found {unknown[0]!r}; expected one of {', '.join(named) or 'no classes'}")
    chosen = [*classes, *([source.ignore] if source.ignore else [])] if classes else named
    kept = {name: named[name] for name in chosen if name in named}
    if not 1 <= len(kept) < _MOST_CLASSES:
        raise UsageError(
            f"found {len(kept)} classes beside the background; expected 1 to {_MOST_CLASSES - 1}, which fit an 8-bit"
            " mask." + (" Choose some with --class" if kept else " Check that --format and SOURCE are right")
        )
    return kept


def _describe(name: str, labels: dict[str, Color | None], source: Source, sequence: str | None) -> DatasetDescription:
    layout = {"images": "{split}/images/{name}", "masks": "{split}/masks/{name}.png"}
    if source.has_instances:
        layout["instances"] = "{split}/instances/{name}.json"
    colors = {BACKGROUND: voc_color(0), **labels}
    classes = [{"name": name, "color": color or voc_color(i)} for i, (name, color) in enumerate(colors.items())]
    try:
        return DatasetDescription.model_validate(
            {
                "name": name,
                "classes": classes,
                "ignore": source.ignore,
                "things": list(labels) if source.has_instances else [],
                "layout": layout,
                "splits": {TRAIN: TRAIN},
                "sequence": sequence,
            }
        )
    except ValidationError as error:
        raise UsageError(explain(error, DatasetDescription, "description of the imported data")) from None


def _pair_name(item: Item) -> str:
    """Returns the name of a pair: its image's path with `__` for slashes, without the extension."""
    # Files with a leading dot are hidden.
    return os.path.splitext(item.name)[0].replace("/", "__").lstrip(".") or "image"


def _split(item: Item) -> str:
    """Returns segpipe's name of the split, such as `train` for `train2017` and `val` for `valid`; empty if unknown."""
    plain = re.sub(r"[^a-z0-9_-]", "_", re.sub(r"_?\d{4}$", "", (item.split or "").lower()))
    return _SPLITS.get(plain, plain)


def _assign_splits(
    items: Sequence[Item], names: Sequence[str], description: DatasetDescription, val: float
) -> tuple[list[str], bool]:
    """Returns the split of each image, and whether `val` was held out because the source lacks train or val.

    Test images stay in their split. Whole sequences are held out, chosen by a hash of their names.
    """
    splits = [_split(item) for item in items]
    if {TRAIN, VAL} <= set(splits):
        return [split if split in _ORDER else TRAIN for split in splits], False
    sequences = [description.sequence_of(name) if description.sequence else name for name in names]
    free = [sequence or name for sequence, name, split in zip(sequences, names, splits, strict=True) if split != TEST]
    if len(set(free)) < 2:
        raise UsageError(
            f"found {len(set(free))} sequences or images to split into train and val; expected at least 2. Import more"
            " images, or pass an expression that distinguishes sequences with --sequence"
        )
    assigned = assign_sequences(Counter(free), {VAL: val})
    return [
        split if split == TEST else assigned[sequence or name]
        for sequence, name, split in zip(sequences, names, splits, strict=True)
    ], True


def _draw(
    item: Item, name: str, source: Source, index_of: Mapping[str, int], lost: Counter[str]
) -> tuple[np.ndarray, bytes]:
    """Returns an image's mask, class indices as uint8 [H, W], and its instances as COCO's JSON, or b"".

    Raises BadAnnotationError.
    """
    size = mask_size(item)
    # An image that fails below is left out, and then its losses do not count.
    found: Counter[str] = Counter()
    shapes = list(item.read(size, found))
    mask = paint(shapes, size, index_of, source.smaller_above, found)
    annotations = b""
    if source.has_instances:
        # The instances keep overlaps.
        del found[OVERLAPS]
        annotations = coco.encode(name, size, _instances(shapes, size, index_of), list(index_of))
    lost.update(found)
    return mask, annotations


def _instances(shapes: Sequence[Shape], size: Size, index_of: Mapping[str, int]) -> Instances:
    """Returns the shapes of kept classes that cover at least one pixel."""
    kept = [shape for shape in shapes if shape.label in index_of and not is_background(shape.label)]
    found = [(full_mask(size, shape.region), index_of[shape.label], shape.crowd) for shape in kept]
    return Instances.stack([each for each in found if each[0].any()], size)


def _place(image: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(image.resolve())
    else:
        shutil.copyfile(image, target)


def _write_description(destination: Path, description: DatasetDescription, pairs: Mapping[str, int]) -> None:
    """Writes the description with the splits that have pairs."""
    plain = description.model_dump(mode="json", exclude_defaults=True)
    plain["splits"] = {split: split for split in pairs}
    text = yaml.safe_dump(plain, default_flow_style=None, sort_keys=False, allow_unicode=True, width=120)
    (destination / FILE_NAMES[0]).write_text(text, encoding="utf-8")
