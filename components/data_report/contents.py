"""Chooses what the page of a data check shows and draws it, one pair at a time.

The number of pictures and of rows is bounded, so neither memory nor the page grows with the data set.
"""

from __future__ import annotations

import dataclasses
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from components import files
from components.class_map import ClassMap
from components.data_report import thumbnails
from components.dataset.checks import Limits, Sample, read_pair
from components.dataset.description import DatasetDescription
from components.dataset.inspection import Inspection, OnProgress, Record, crosses_splits, repeated_images
from components.dataset.near_duplicates import NearDuplicate
from components.dataset.pairs import DataIssue
from components.errors import SegpipeError

SAMPLES = 36  # in all splits together
SAMPLES_PER_SPLIT = 12
RARE_CLASSES = 6
DUPLICATES = 8
ISSUES_PER_REASON = 20
PICTURES_PER_REASON = 4

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class Example:
    """A pair in two pictures, each a `data:` address; `name` is SPLIT/NAME."""

    name: str
    image: str
    mask: str


@dataclasses.dataclass(frozen=True)
class RareClass:
    """A scored class with few pixels.

    Attributes:
        index: in the class map.
        fraction: of all mask pixels, 0 to 1.
        pairs: number of pairs that show it.
        example: the pair with most of it, the class marked in the second picture; None if no pair shows it.
    """

    index: int
    fraction: float
    pairs: int
    example: Example | None


@dataclasses.dataclass(frozen=True)
class IssueRow:
    """An issue and a picture of its file, None if the file cannot be shown."""

    issue: DataIssue
    picture: str | None


@dataclasses.dataclass(frozen=True)
class IssueGroup:
    """All issues of one reason: their number and the first of them."""

    reason: str
    count: int
    rows: tuple[IssueRow, ...]


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything the page shows.

    Attributes:
        inspection: counts, issues and warnings.
        class_map: the data set's classes.
        samples: pairs from all over each split, by split.
        rare: the scored classes with the fewest pixels, the rarest first.
        duplicates: the first images that are in more than one split, one pair from each split.
        duplicate_count: number of images that are in more than one split.
        similar: the first near duplicates across splits, one pair from each split, and the bits that differ.
        issues: issues by reason, the most frequent first.
    """

    inspection: Inspection
    class_map: ClassMap
    samples: dict[str, tuple[Example, ...]]
    rare: tuple[RareClass, ...]
    duplicates: tuple[tuple[Example, ...], ...]
    duplicate_count: int
    similar: tuple[tuple[int, tuple[Example, ...]], ...]
    issues: tuple[IssueGroup, ...]


def collect(
    root: str,
    description: DatasetDescription,
    inspection: Inspection,
    limits: Limits | None = None,
    on_progress: OnProgress | None = None,
) -> Contents:
    """Chooses pairs and files, reads them again and draws them.

    Args:
        root: the data root, local or remote.
        description: what the inspection was made with.
        inspection: what was found there.
        limits: those that the inspection was made with.
        on_progress: called with the pairs and files drawn so far and their number.

    Raises:
        SegpipeError: a file cannot be read.
    """
    samples = {name: choose_samples(inspection, name) for name in spread(list(inspection.splits), SAMPLES)}
    rare = rarest_classes(inspection, description.class_map)
    across = [group for group in repeated_images(inspection.records) if crosses_splits(group)]
    duplicates = [_one_of_each_split(group) for group in across[:DUPLICATES]]
    similar = _records_of(inspection.similar[:DUPLICATES], inspection.records)
    by_reason: dict[str, list[DataIssue]] = defaultdict(list)
    for issue in inspection.issues:
        by_reason[issue.reason].append(issue)
    total = (
        sum(map(len, samples.values()))
        + sum(record is not None for _, _, _, record in rare)
        + sum(map(len, duplicates))
        + 2 * len(similar)
        + sum(min(len(issues), PICTURES_PER_REASON) for issues in by_reason.values())
    )
    artist = _Artist(root, description, limits, _count_up(on_progress, total))
    return Contents(
        inspection=inspection,
        class_map=description.class_map,
        samples={name: artist.pairs(records) for name, records in samples.items() if records},
        rare=tuple(
            RareClass(index, fraction, pairs, artist.pair(record, index) if record else None)
            for index, fraction, pairs, record in rare
        ),
        duplicates=tuple(artist.pairs(group) for group in duplicates),
        duplicate_count=len(across),
        similar=tuple((distance, artist.pairs(records)) for distance, records in similar),
        issues=tuple(
            IssueGroup(reason, len(issues), artist.issues(issues[:ISSUES_PER_REASON]))
            for reason, issues in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
        ),
    )


def choose_samples(inspection: Inspection, split: str) -> list[Record]:
    """Returns pairs of a split, spread evenly over its sequences and within each of them."""
    by_sequence: dict[str, list[Record]] = defaultdict(list)
    for record in inspection.records:
        if record.pair.split == split:
            by_sequence[record.pair.sequence].append(record)
    limit = min(SAMPLES_PER_SPLIT, max(1, SAMPLES // len(inspection.splits)))
    sequences = spread(sorted(by_sequence.items()), limit)
    return [record for _, records in sequences for record in spread(records, limit // len(sequences))]


def spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """Returns at most `count` items at even distances, each from the middle of its stretch."""
    count = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def rarest_classes(inspection: Inspection, class_map: ClassMap) -> list[tuple[int, float, int, Record | None]]:
    """Returns index, fraction of pixels, number of pairs and fullest pair of the rarest scored classes."""
    if not inspection.records:
        return []
    pixels = np.array([split.class_pixels for split in inspection.splits.values()]).sum(axis=0)
    fractions = pixels / pixels.sum()
    found = []
    for index in sorted(class_map.scored_indices, key=lambda index: fractions[index])[:RARE_CLASSES]:
        shown = [record for record in inspection.records if record.class_pixels[index]]
        # Of the fraction, not the pixels: a small image may show the class better than a large one.
        fullest = max(shown, key=lambda record: record.class_pixels[index] / record.class_pixels.sum(), default=None)
        found.append((index, float(fractions[index]), len(shown), fullest))
    return found


def _records_of(similar: Sequence[NearDuplicate], records: Sequence[Record]) -> list[tuple[int, list[Record]]]:
    """Returns the distance and both records of each near duplicate."""
    by_place = {(record.pair.split, record.pair.name): record for record in records} if similar else {}
    return [
        (found.distance, [by_place[found.other_split, found.other_name], by_place[found.split, found.name]])
        for found in similar
    ]


def _one_of_each_split(group: list[Record]) -> list[Record]:
    return list({record.pair.split: record for record in reversed(group)}.values())[::-1][:2]


def _count_up(on_progress: OnProgress | None, total: int) -> Callable[[], None]:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, total)

    return advance


@dataclasses.dataclass(frozen=True)
class _Artist:
    """Reads pairs and files, draws them and calls `advance` after each."""

    root: str
    description: DatasetDescription
    limits: Limits | None
    advance: Callable[[], None]

    def pairs(self, records: list[Record]) -> tuple[Example, ...]:
        """Draws pairs; one whose files have changed since they were checked may be left out."""
        return tuple(example for example in map(self.pair, records) if example)

    def pair(self, record: Record, marked: int | None = None) -> Example | None:
        """Draws a pair; the second picture is its mask, or its image with the class `marked`."""
        sample = read_pair(self.root, record.pair, self.description, self.limits)
        self.advance()
        if not isinstance(sample, Sample):
            return None
        image = thumbnails.photo(sample.image)
        indices = np.asarray(Image.open(io.BytesIO(sample.mask)))
        if marked is None:
            second = thumbnails.mask(indices, self.description.class_map)
        else:
            second = thumbnails.highlight(image, indices, marked)
        name = f"{record.pair.split}/{record.pair.name}"
        return Example(name, thumbnails.jpeg_address(image), thumbnails.jpeg_address(second))

    def issues(self, issues: list[DataIssue]) -> tuple[IssueRow, ...]:
        """Draws the files of the first issues."""
        drawn = [IssueRow(issue, self._file(issue)) for issue in issues[:PICTURES_PER_REASON]]
        return (*drawn, *(IssueRow(issue, None) for issue in issues[PICTURES_PER_REASON:]))

    def _file(self, issue: DataIssue) -> str | None:
        self.advance()
        try:
            data = files.read_data_file(files.join(self.root, issue.file))
        except (OSError, SegpipeError):
            return None
        picture = thumbnails.faulty_file(data, issue.reason, self.description)
        return thumbnails.jpeg_address(picture) if picture else None
