"""Inspects a data set: counts its pairs and collects its issues, for `segpipe data check`."""

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
    """The content of one split."""

    pairs: int  # number of valid pairs
    sequences: dict[str, int]  # valid pairs by sequence
    sizes: dict[tuple[int, int], int]  # valid pairs by size in pixels, (height, width)
    class_pixels: tuple[int, ...]  # mask pixels of each class, in index order
    # instances of each class without crowds, in index order; empty for data without instances
    class_instances: tuple[int, ...]
    quarantined: dict[str, int]  # issues by reason

    @property
    def class_fractions(self) -> tuple[float, ...]:
        """Fraction of each class in all mask pixels of the split, 0 to 1."""
        total = sum(self.class_pixels)
        return tuple(pixels / total if total else 0.0 for pixels in self.class_pixels)

    def to_dict(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Returns the split as plain JSON types."""
        return {
            "pairs": self.pairs,
            "sequences": self.sequences,
            "sizes": {f"{height}x{width}": count for (height, width), count in self.sizes.items()},
            "class_fractions": dict(zip(class_names, self.class_fractions, strict=True)),
            "class_instances": dict(zip(class_names, self.class_instances, strict=False)),
            "quarantined": self.quarantined,
        }


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The content of a data set."""

    root: str
    description: str  # name of its description
    class_names: tuple[str, ...]  # in index order
    splits: dict[str, SplitInspection]  # by name, train first
    issues: tuple[DataIssue, ...]  # the reason for each pair or file that is left out
    warnings: tuple[str, ...]  # sentences on leaks and missing classes; they do not exclude a pair
    similar: tuple[NearDuplicate, ...]  # the images with near duplicates in other splits; see `similar_images`
    records: tuple[PairSummary, ...] = dataclasses.field(repr=False)  # all valid pairs, without their pixels

    @property
    def pairs(self) -> int:
        """Number of valid pairs in all splits."""
        return sum(split.pairs for split in self.splits.values())

    @property
    def quarantined_fraction(self) -> float:
        """Fraction of all pairs that is left out, 0 to 1."""
        bad = len({(issue.split, issue.name) for issue in self.issues})
        return bad / (self.pairs + bad) if bad else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the inspection as plain JSON types."""
        return {
            "root": self.root,
            "description": self.description,
            "pairs": self.pairs,
            "quarantined_fraction": self.quarantined_fraction,
            "splits": {name: split.to_dict(self.class_names) for name, split in self.splits.items()},
            "issues": [issue.to_dict() for issue in self.issues],
            "warnings": list(self.warnings),
            "similar_images": [dataclasses.asdict(pair) for pair in self.similar],
        }


@dataclasses.dataclass(frozen=True)
class PairSummary:
    """A valid pair without its pixels."""

    pair: Pair
    size: tuple[int, int]  # (height, width) in pixels
    hashed: HashedImage  # hashes of the image's pixels
    class_pixels: np.ndarray  # pixels of each class in the mask, int64 [num_classes]
    # class of each instance that is not a crowd, int64 [N]; None for data without instances
    instances: np.ndarray | None


def inspect(
    root: str,
    description: DatasetDescription,
    on_progress: OnProgress = lambda done, total: None,
    limits: Limits | None = None,
) -> Inspection:
    """Reads every pair of a data set and summarises the result.

    Calls `on_progress` in this thread with the number of pairs read and of all pairs.

    Raises:
        UsageError: as `find_pairs` does.
        SegpipeError: a file cannot be read.
    """
    pairs, issues = find_pairs(root, description)
    records: list[PairSummary] = []

    def read(pair: Pair) -> PairSummary | DataIssue:
        result = read_pair(root, pair, description, limits)
        if isinstance(result, DataIssue):
            return result
        size = (result.height, result.width)
        found = result.instances
        instances = None if found is None else found.classes[~found.crowd]
        return PairSummary(pair, size, result.hashed, result.class_pixels, instances)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, result in enumerate(pool.map(read, pairs), start=1):
            if isinstance(result, DataIssue):
                issues.append(result)
            else:
                records.append(result)
            on_progress(done, len(pairs))
    class_names = description.class_map.names
    splits = _by_split(records, issues, len(class_names))
    classes = _class_warnings(splits, description.class_map)
    similar = similar_images(records)
    warnings = (*_duplicates(records), *_near_duplicates(similar), *_shared_sequences(records), *classes)
    return Inspection(
        str(root), description.name, class_names, splits, tuple(issues), warnings, tuple(similar), tuple(records)
    )


def _by_split(records: list[PairSummary], issues: list[DataIssue], num_classes: int) -> dict[str, SplitInspection]:
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


def repeated_images(records: Iterable[PairSummary]) -> list[list[PairSummary]]:
    """Returns groups of two or more pairs whose images have the same pixels."""
    by_hash: dict[str, list[PairSummary]] = defaultdict(list)
    for record in records:
        by_hash[record.hashed.pixels].append(record)
    return [group for group in by_hash.values() if len(group) > 1]


def crosses_splits(group: Iterable[PairSummary]) -> bool:
    """Tells whether the pairs are in more than one split."""
    return len({record.pair.split for record in group}) > 1


def _duplicates(records: list[PairSummary]) -> list[str]:
    """Warns of images that occur more than once."""
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


def similar_images(records: Iterable[PairSummary]) -> list[NearDuplicate]:
    """Returns the nearest duplicate of each image in an earlier split; train is the first split."""
    found = near_duplicates(record.hashed for record in records)
    return [pair for pair in found if _rank(pair.other_split) < _rank(pair.split)]


def _rank(split: str) -> tuple[bool, str]:
    """Returns a sort key that puts train first."""
    return split != TRAIN, split


def _near_duplicates(similar: list[NearDuplicate]) -> list[str]:
    """Warns of near duplicates in other splits."""
    if not similar:
        return []
    names = [f"{pair.split}/{pair.name} ~ {pair.other_split}/{pair.other_name}" for pair in similar]
    return [
        f"{len(names)} images are nearly the same as one of another split, such as a copy that was saved again or a "
        f"neighbouring frame; scores on copies are too good: {_some(names)}"
    ]


def _shared_sequences(records: list[PairSummary]) -> list[str]:
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
    """Warns of splits without a scored class, and of scored classes that are missing in train."""
    warnings = []
    for name, split in splits.items():
        absent = [class_map.names[index] for index in class_map.scored_indices if not split.class_pixels[index]]
        if split.pairs and len(absent) == len(class_map.scored_indices):
            warnings.append(
                f"no pixel of {name} shows {', '.join(absent)}: all its pixels are ignored, so it cannot be used to "
                "train or to score; correct its masks, or the description's `classes` and `ignore`"
            )
        elif split.pairs and name == TRAIN and absent:
            warnings.append(f"no pixel of train shows {', '.join(absent)}: a model cannot learn it")
    return warnings


def _some(items: list[str]) -> str:
    return "; ".join(items[:_SHOWN]) + (f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
