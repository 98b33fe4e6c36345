"""Chooses and draws the contents of a data check's page, one pair at a time.

The number of pictures and rows is limited, so memory and page do not grow with the data set.
"""

from __future__ import annotations

import dataclasses
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from components import files
from components.class_map import ClassMap
from components.data_report import thumbnails
from components.dataset.checks import Limits, Sample, read_pair
from components.dataset.description import DatasetDescription
from components.dataset.inspection import Inspection, OnProgress, PairSummary, crosses_splits, repeated_images
from components.dataset.near_duplicates import NearDuplicate
from components.dataset.pairs import DataIssue, Pair
from components.errors import SegpipeError

SAMPLES = 36  # in all splits together
SAMPLES_PER_SPLIT = 12
RARE_CLASSES = 6
DUPLICATES = 8
ISSUES_PER_REASON = 20
PICTURES_PER_REASON = 4

_Item = TypeVar("_Item")


class Example(NamedTuple):
    """Two pictures of a pair, each a `data:` address; `name` is SPLIT/NAME."""

    name: str
    image: str
    mask: str


class RareClass(NamedTuple):
    """A scored class with few pixels."""

    class_index: int  # in the class map
    fraction: float  # of all mask pixels, 0 to 1
    pairs: int  # number of pairs with the class
    record: PairSummary | None  # the pair with the largest fraction of it; None if no pair has the class


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything the page shows."""

    inspection: Inspection  # counts, issues and warnings
    class_map: ClassMap  # the data set's classes
    samples: dict[str, list[PairSummary]]  # pairs spread evenly over each split, by split
    rare: list[RareClass]  # the scored classes with the fewest pixels, the rarest first
    # the first images that are in more than one split, one pair from each split
    duplicates: list[list[PairSummary]]
    duplicate_count: int  # number of images that are in more than one split
    # the first near duplicates across splits: the number of different bits, and one pair from each split
    similar: list[tuple[int, list[PairSummary]]]
    issues: dict[str, list[DataIssue]]  # all issues by reason, the most frequent first
    # Pictures of the pairs above, without pairs whose files were damaged after the inspection. The second picture is
    # the mask, or the image with a class highlighted if the key has a class index.
    examples: dict[tuple[Pair, int | None], Example]
    pictures: dict[DataIssue, str]  # pictures of the files of the first issues, without those that cannot be shown


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

    groups = [*samples.values(), *duplicates, *(records for _, records in similar)]
    pairs: list[tuple[Pair, int | None]] = [(record.pair, None) for group in groups for record in group]
    pairs += [(row.record.pair, row.class_index) for row in rare if row.record]
    bad_files = [issue for issues in by_reason.values() for issue in issues[:PICTURES_PER_REASON]]
    examples: dict[tuple[Pair, int | None], Example] = {}
    pictures: dict[DataIssue, str] = {}
    for done, (pair, marked) in enumerate(pairs, start=1):
        if example := _draw_pair(root, pair, description, limits, marked):
            examples[pair, marked] = example
        on_progress(done, len(pairs) + len(bad_files))
    for done, issue in enumerate(bad_files, start=len(pairs) + 1):
        if picture := _draw_file(root, issue, description):
            pictures[issue] = picture
        on_progress(done, len(pairs) + len(bad_files))
    return Contents(
        inspection=inspection,
        class_map=description.class_map,
        samples={name: records for name, records in samples.items() if records},
        rare=rare,
        duplicates=duplicates,
        duplicate_count=len(across),
        similar=similar,
        issues=dict(sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))),
        examples=examples,
        pictures=pictures,
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


def rarest_classes(inspection: Inspection, class_map: ClassMap) -> list[RareClass]:
    """Returns the scored classes with the fewest pixels, the rarest first."""
    if not inspection.records:
        return []
    pixels = np.array([split.class_pixels for split in inspection.splits.values()]).sum(axis=0)
    fractions = pixels / pixels.sum()
    found = []
    for index in sorted(class_map.scored_indices, key=lambda index: fractions[index])[:RARE_CLASSES]:
        shown = [record for record in inspection.records if record.class_pixels[index]]
        # By fraction and not by pixels: a small image may show the class better than a large one.
        best = max(shown, key=lambda record: record.class_pixels[index] / record.class_pixels.sum(), default=None)
        found.append(RareClass(index, float(fractions[index]), len(shown), best))
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


def _draw_pair(
    root: str, pair: Pair, description: DatasetDescription, limits: Limits | None, marked: int | None
) -> Example | None:
    """Draws a pair; None if its files were damaged after the inspection."""
    sample = read_pair(root, pair, description, limits)
    if not isinstance(sample, Sample):
        return None
    image = thumbnails.photo(sample.image)
    indices = np.asarray(Image.open(io.BytesIO(sample.mask)))
    if marked is None:
        second = thumbnails.mask(indices, description.class_map)
    else:
        second = thumbnails.highlight(image, indices, marked)
    return Example(f"{pair.split}/{pair.name}", thumbnails.jpeg_address(image), thumbnails.jpeg_address(second))


def _draw_file(root: str, issue: DataIssue, description: DatasetDescription) -> str | None:
    """Draws the file of an issue; None if it cannot be shown."""
    try:
        data = files.read_data_file(files.join(root, issue.file))
    except (OSError, SegpipeError):
        return None
    picture = thumbnails.bad_file(data, issue.reason, description)
    return thumbnails.jpeg_address(picture) if picture else None
