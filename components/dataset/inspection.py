"""Counts what a data set holds, pair by pair, and what is wrong with it: what `segpipe data check` shows."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from components.class_map import ClassMap
from components.dataset.checks import Limits, read_pair
from components.dataset.description import DatasetDescription
from components.dataset.near_duplicates import HashedImage, NearDuplicate, near_duplicates
from components.dataset.pairs import DataIssue, Pair, find_pairs
from components.dataset.splitting import TRAIN

_SHOWN = 3  # names in a warning
OnProgress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class SplitInspection:
    """What one split holds.

    Attributes:
        pairs: sound pairs.
        sequences: sound pairs by sequence.
        sizes: sound pairs by size in pixels, (height, width).
        class_pixels: mask pixels of each class, in index order.
        class_instances: instances of each class, in index order, crowds left out; empty for data without instances.
        quarantined: issues by reason.
    """

    pairs: int
    sequences: dict[str, int]
    sizes: dict[tuple[int, int], int]
    class_pixels: tuple[int, ...]
    class_instances: tuple[int, ...]
    quarantined: dict[str, int]

    @property
    def class_fractions(self) -> tuple[float, ...]:
        """Share of each class in all mask pixels of the split, 0 to 1."""
        total = sum(self.class_pixels)
        return tuple(pixels / total if total else 0.0 for pixels in self.class_pixels)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What a data set holds.

    Attributes:
        root: the data root.
        description: name of the description it was read with.
        class_names: in index order.
        splits: by name, train first.
        issues: every pair or file left out, and why.
        warnings: sentences on leaks and missing classes; none of them excludes a pair.
        similar: the images that have near duplicates in other splits; see `similar_images`.
        records: every sound pair, without its pixels.
    """

    root: str
    description: str
    class_names: tuple[str, ...]
    splits: dict[str, SplitInspection]
    issues: tuple[DataIssue, ...]
    warnings: tuple[str, ...]
    similar: tuple[NearDuplicate, ...]
    records: tuple[Record, ...] = dataclasses.field(repr=False)

    @property
    def pairs(self) -> int:
        """Number of sound pairs in all splits."""
        return sum(split.pairs for split in self.splits.values())

    @property
    def quarantined_fraction(self) -> float:
        """Share of what was found that is left out, 0 to 1."""
        bad = len({(issue.split, issue.name) for issue in self.issues})
        return bad / (self.pairs + bad) if bad else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the inspection as plain JSON types."""
        return {
            "root": self.root,
            "description": self.description,
            "pairs": self.pairs,
            "quarantined_fraction": self.quarantined_fraction,
            "splits": {name: _split_dict(split, self.class_names) for name, split in self.splits.items()},
            "issues": [issue.to_dict() for issue in self.issues],
            "warnings": list(self.warnings),
            "similar_images": [dataclasses.asdict(pair) for pair in self.similar],
        }


def _split_dict(split: SplitInspection, class_names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "pairs": split.pairs,
        "sequences": split.sequences,
        "sizes": {f"{height}x{width}": count for (height, width), count in split.sizes.items()},
        "class_fractions": dict(zip(class_names, split.class_fractions, strict=True)),
        "class_instances": dict(zip(class_names, split.class_instances, strict=False)),
        "quarantined": split.quarantined,
    }


@dataclasses.dataclass(frozen=True)
class Record:
    """What is kept of a sound pair; its image and mask are not.

    Attributes:
        pair: its files.
        size: (height, width) in pixels.
        image_hash: SHA-256 of the image's pixels, hexadecimal.
        perceptual_hash: of the image, hexadecimal; see `near_duplicates.perceptual_hash`.
        class_pixels: pixels of each class in the mask, int64 [num_classes].
        instances: class of each instance but crowds, int64 [N]; None for data without instances.
    """

    pair: Pair
    size: tuple[int, int]
    image_hash: str
    perceptual_hash: str
    class_pixels: np.ndarray
    instances: np.ndarray | None


def inspect(
    root: str,
    description: DatasetDescription,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    limits: Limits | None = None,
) -> Inspection:
    """Reads every pair of a data set and sums up what was found.

    Args:
        root: the data root, local or remote.
        description: what `detect` returned.
        workers: threads that read; by default one for each processor.
        on_progress: called in the caller's thread with the pairs read so far and their number.
        limits: sides allowed, in pixels.

    Raises:
        UsageError: as `find_pairs` does.
        SegpipeError: a file cannot be read.
    """
    pairs, issues = find_pairs(root, description)
    records: list[Record] = []

    def read(pair: Pair) -> Record | DataIssue:
        result = read_pair(root, pair, description, limits)
        if isinstance(result, DataIssue):
            return result
        size = (result.height, result.width)
        found = result.instances
        instances = None if found is None else found.classes[~found.crowd]
        return Record(pair, size, result.image_hash, result.perceptual_hash, result.class_pixels, instances)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for done, result in enumerate(pool.map(read, pairs), start=1):
            if isinstance(result, DataIssue):
                issues.append(result)
            else:
                records.append(result)
            if on_progress:
                on_progress(done, len(pairs))
    class_names = description.class_map.names
    splits = _by_split(records, issues, len(class_names))
    classes = _class_warnings(splits, description.class_map)
    similar = similar_images(records)
    warnings = (*_duplicates(records), *_near_duplicates(similar), *_shared_sequences(records), *classes)
    return Inspection(
        str(root), description.name, class_names, splits, tuple(issues), warnings, tuple(similar), tuple(records)
    )


def _by_split(records: list[Record], issues: list[DataIssue], num_classes: int) -> dict[str, SplitInspection]:
    names = {record.pair.split for record in records} | {issue.split for issue in issues}
    splits = {}
    for name in sorted(names, key=_rank):
        own = [record for record in records if record.pair.split == name]
        instances = [record.instances for record in own if record.instances is not None]
        pixels = sum((record.class_pixels for record in own), np.zeros(num_classes, dtype=np.int64))
        splits[name] = SplitInspection(
            pairs=len(own),
            sequences=_counts(record.pair.sequence for record in own),
            sizes=_counts(record.size for record in own),
            class_pixels=tuple(pixels.tolist()),
            class_instances=tuple(np.bincount(np.concatenate(instances), minlength=num_classes).tolist())
            if instances
            else (),
            quarantined=_counts(issue.reason for issue in issues if issue.split == name),
        )
    return splits


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    return dict(sorted(Counter(values).items()))


def repeated_images(records: Iterable[Record]) -> list[list[Record]]:
    """Returns the groups of pairs, two or more each, whose images have the same pixels."""
    by_hash: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_hash[record.image_hash].append(record)
    return [group for group in by_hash.values() if len(group) > 1]


def crosses_splits(group: Iterable[Record]) -> bool:
    """Tells whether a group of pairs lies in more than one split."""
    return len({record.pair.split for record in group}) > 1


def _duplicates(records: list[Record]) -> list[str]:
    """Warns of the same image under two names, above all across splits."""
    across: list[str] = []
    within: list[str] = []
    for group in repeated_images(records):
        names = " = ".join(f"{record.pair.split}/{record.pair.name}" for record in group)
        (across if crosses_splits(group) else within).append(names)
    warnings = []
    if across:
        warnings.append(
            f"leak: {len(across)} images are in more than one split, so scores are too good: {_some(across)}"
        )
    if within:
        warnings.append(f"{len(within)} images are in one split more than once: {_some(within)}")
    return warnings


def similar_images(records: Iterable[Record]) -> list[NearDuplicate]:
    """Returns each image that has a near duplicate in a split before its own, with the nearest; train is the first."""
    images = [
        HashedImage(record.pair.split, record.pair.name, record.image_hash, record.perceptual_hash)
        for record in records
    ]
    return [pair for pair in near_duplicates(images) if _rank(pair.other_split) < _rank(pair.split)]


def _rank(split: str) -> tuple[bool, str]:
    """Orders splits, train first."""
    return split != TRAIN, split


def _near_duplicates(similar: list[NearDuplicate]) -> list[str]:
    """Warns of images that are nearly those of another split."""
    if not similar:
        return []
    names = [f"{pair.split}/{pair.name} ~ {pair.other_split}/{pair.other_name}" for pair in similar]
    return [
        f"{len(names)} images are nearly the same as one of another split, such as a copy that was saved again or a "
        f"neighbouring frame; scores on copies are too good: {_some(names)}"
    ]


def _shared_sequences(records: list[Record]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        splits[record.pair.sequence].add(record.pair.split)
    return [
        f"sequence {sequence} is in the splits {', '.join(sorted(names))}: if its frames are neighbours,"
        " scores say little about new sequences"
        for sequence, names in sorted(splits.items())
        if len(names) > 1
    ]


def _class_warnings(splits: dict[str, SplitInspection], class_map: ClassMap) -> list[str]:
    """Warns of splits that show no class at all, and of classes that the training split lacks."""
    warnings = []
    for name, split in splits.items():
        absent = [class_map.names[index] for index in class_map.scored_indices if not split.class_pixels[index]]
        if split.pairs and len(absent) == len(class_map.scored_indices):
            warnings.append(
                f"no pixel of {name} shows {', '.join(absent)}: all its pixels are ignored, so nothing can be learned "
                "or scored there; correct its masks, or the description's `classes` and `ignore`"
            )
        elif split.pairs and name == TRAIN and absent:
            warnings.append(f"no pixel of train shows {', '.join(absent)}: a model cannot learn it")
    return warnings


def _some(items: list[str]) -> str:
    return "; ".join(items[:_SHOWN]) + (f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
