"""Chooses and draws the contents of a data check's page, one pair at a time.

The number of pictures and rows is limited, so memory and page do not grow with the data set.
"""

from __future__ import annotations

import dataclasses
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from components import files
from components.class_map import ClassMap
from components.data_report import thumbnails
from components.dataset.checks import Limits, Sample, read_pair
from components.dataset.description import DatasetDescription
from components.dataset.inspection import Inspection, OnProgress, PairSummary, crosses_splits, repeated_images
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
    """Two pictures of a pair, each a `data:` address; `name` is SPLIT/NAME."""

    name: str
    image: str
    mask: str


@dataclasses.dataclass(frozen=True)
class RareClass:
    """A scored class with few pixels."""

    index: int  # in the class map
    fraction: float  # of all mask pixels, 0 to 1
    pairs: int  # number of pairs with the class
    # the pair with the largest fraction of it, marked in the second picture; None if no pair has the class
    example: Example | None


@dataclasses.dataclass(frozen=True)
class IssueRow:
    """An issue and the picture of its file; None if the file cannot be shown."""

    issue: DataIssue
    picture: str | None


@dataclasses.dataclass(frozen=True)
class IssueGroup:
    """The issues of one reason: their number and the first ones."""

    reason: str
    count: int
    rows: tuple[IssueRow, ...]


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything the page shows."""

    inspection: Inspection  # counts, issues and warnings
    class_map: ClassMap  # the data set's classes
    samples: dict[str, tuple[Example, ...]]  # pairs spread evenly over each split, by split
    rare: tuple[RareClass, ...]  # the scored classes with the fewest pixels, the rarest first
    # the first images that are in more than one split, one pair from each split
    duplicates: tuple[tuple[Example, ...], ...]
    duplicate_count: int  # number of images that are in more than one split
    # the first near duplicates across splits: the number of different bits, and one pair from each split
    similar: tuple[tuple[int, tuple[Example, ...]], ...]
    issues: tuple[IssueGroup, ...]  # issues by reason, the most frequent first


def collect(
    root: str,
    description: DatasetDescription,
    inspection: Inspection,
    limits: Limits | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Contents:
    """Chooses pairs and files of an inspection, reads them again and draws them.

    `description` and `limits` are those of the inspection. Calls `on_progress` with the number of pairs and files drawn
    and of all that will be drawn. Raises SegpipeError if a file cannot be read.
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
    artist = _Artist(root, description, limits, total, on_progress)
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


def choose_samples(inspection: Inspection, split: str) -> list[PairSummary]:
    """Returns pairs spread evenly over the sequences of a split, and within each sequence."""
    by_sequence: dict[str, list[PairSummary]] = defaultdict(list)
    for record in inspection.records:
        if record.pair.split == split:
            by_sequence[record.pair.sequence].append(record)
    limit = min(SAMPLES_PER_SPLIT, max(1, SAMPLES // len(inspection.splits)))
    sequences = spread(sorted(by_sequence.items()), limit)
    return [record for _, records in sequences for record in spread(records, limit // len(sequences))]


def spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """Returns at most `count` items at even distances, each from the middle of its interval."""
    count = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def rarest_classes(inspection: Inspection, class_map: ClassMap) -> list[tuple[int, float, int, PairSummary | None]]:
    """Returns index, fraction of pixels, number of pairs and best example of the rarest scored classes."""
    if not inspection.records:
        return []
    pixels = np.array([split.class_pixels for split in inspection.splits.values()]).sum(axis=0)
    fractions = pixels / pixels.sum()
    found = []
    for index in sorted(class_map.scored_indices, key=lambda index: fractions[index])[:RARE_CLASSES]:
        shown = [record for record in inspection.records if record.class_pixels[index]]
        # By fraction and not by pixels: a small image may show the class better than a large one.
        best = max(shown, key=lambda record: record.class_pixels[index] / record.class_pixels.sum(), default=None)
        found.append((index, float(fractions[index]), len(shown), best))
    return found


def _records_of(
    similar: Sequence[NearDuplicate], records: Sequence[PairSummary]
) -> list[tuple[int, list[PairSummary]]]:
    """Returns the distance and both records of each near duplicate."""
    by_place = {(record.pair.split, record.pair.name): record for record in records} if similar else {}
    return [
        (found.distance, [by_place[found.other_split, found.other_name], by_place[found.split, found.name]])
        for found in similar
    ]


def _one_of_each_split(group: list[PairSummary]) -> list[PairSummary]:
    """Returns the first pair of each split, for two splits at most."""
    first: dict[str, PairSummary] = {}
    for record in group:
        first.setdefault(record.pair.split, record)
    return list(first.values())[:2]


@dataclasses.dataclass
class _Artist:
    """Reads and draws pairs and files, and reports the progress."""

    root: str
    description: DatasetDescription
    limits: Limits | None
    total: int
    on_progress: OnProgress
    done: int = 0

    def _advance(self) -> None:
        self.done += 1
        self.on_progress(self.done, self.total)

    def pairs(self, records: list[PairSummary]) -> tuple[Example, ...]:
        """Draws pairs; leaves out those whose files were damaged after the inspection."""
        return tuple(example for example in map(self.pair, records) if example)

    def pair(self, record: PairSummary, marked: int | None = None) -> Example | None:
        """Draws a pair; the second picture is its mask, or its image with the class `marked` highlighted."""
        sample = read_pair(self.root, record.pair, self.description, self.limits)
        self._advance()
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
        """Draws the files of the first issues; the others get no picture."""
        drawn = [IssueRow(issue, self._file(issue)) for issue in issues[:PICTURES_PER_REASON]]
        return (*drawn, *(IssueRow(issue, None) for issue in issues[PICTURES_PER_REASON:]))

    def _file(self, issue: DataIssue) -> str | None:
        self._advance()
        try:
            data = files.read_data_file(files.join(self.root, issue.file))
        except (OSError, SegpipeError):
            return None
        picture = thumbnails.bad_file(data, issue.reason, self.description)
        return thumbnails.jpeg_address(picture) if picture else None
