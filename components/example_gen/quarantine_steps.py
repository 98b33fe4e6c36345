"""The steps of ExampleGen's Beam job that write the quarantine: issues, counts, and images in more than one split.

Only hashes and names are grouped, never pixels.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator

import apache_beam as beam

from components import files
from components.dataset.near_duplicates import bands, closest, nearest
from components.example_gen.quarantine import COUNTS_FILE, ISSUES_FILE, SHARED_FILE, SIMILAR_FILE


def write_issues(issues: list[beam.PCollection], counts: list[beam.PCollection], uri: str) -> None:
    """Adds the steps that write the quarantine's files of issues and of counts by split.

    Args:
        issues: `DataIssue`s in several collections.
        counts: split and number of examples of each split.
        uri: the quarantine artifact.
    """
    all_issues = issues | "Issues" >> beam.Flatten()
    _ = (
        all_issues
        | "IssueToJson" >> beam.Map(lambda issue: json.dumps(dataclasses.asdict(issue), sort_keys=True))
        | "WriteIssues" >> _write_file(uri, ISSUES_FILE)
    )
    issue_counts = (
        all_issues
        | "IssueKey" >> beam.Map(lambda issue: ((issue.split, issue.reason), 1))
        | "CountIssues" >> beam.CombinePerKey(sum)
        | "ListIssueCounts" >> beam.combiners.ToList()
    )
    _ = (
        counts
        | "Counts" >> beam.Flatten()
        | "ListCounts" >> beam.combiners.ToList()
        | "CountsToJson" >> beam.Map(_counts_json, beam.pvalue.AsSingleton(issue_counts))
        | "WriteCounts" >> _write_file(uri, COUNTS_FILE)
    )


def _counts_json(examples: Iterable[tuple[str, int]], issues: Iterable[tuple[tuple[str, str], int]]) -> str:
    quarantined: dict[str, Counter[str]] = {}
    for (split, reason), count in issues:
        quarantined.setdefault(split, Counter())[reason] += count
    return json.dumps({"examples": dict(examples), "quarantined": quarantined}, sort_keys=True)


def write_shared_images(images: list[beam.PCollection], uri: str) -> None:
    """Adds the steps that write the quarantine's files of shared images and near duplicates.

    Args:
        images: the images of each split as `HashedImage`.
        uri: the quarantine artifact.
    """
    all_images = images | "Images" >> beam.Flatten()
    _ = (
        all_images
        | "ImageKey" >> beam.Map(lambda image: (image.pixels, (image.split, image.name)))
        | "ByImage" >> beam.GroupByKey()
        | "SharedImages" >> beam.FlatMap(lambda item: _names_by_split(item[1]))
        | "WriteSharedImages" >> _write_file(uri, SHARED_FILE)
    )
    _ = (
        all_images
        | "Bands" >> beam.FlatMap(lambda image: [(band, image) for band in bands(image.perceptual)])
        | "ByBand" >> beam.GroupByKey()
        | "Nearest" >> beam.FlatMap(lambda item: nearest(item[1]))
        | "NearestKey" >> beam.Map(lambda pair: ((pair.split, pair.name, pair.other_split), pair))
        | "Closest" >> beam.CombinePerKey(closest)
        | "SimilarToJson" >> beam.Map(lambda item: json.dumps(dataclasses.asdict(item[1]), sort_keys=True))
        | "WriteSimilarImages" >> _write_file(uri, SIMILAR_FILE)
    )


def _names_by_split(places: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yields the names by split, as JSON, of an image in more than one split."""
    names: dict[str, list[str]] = {}
    for split, name in sorted(places):
        names.setdefault(split, []).append(name)
    if len(names) > 1:
        yield json.dumps(names, sort_keys=True)


def _write_file(uri: str, name: str) -> beam.io.WriteToText:
    """Writes one file instead of shards, because it is small and read by people."""
    return beam.io.WriteToText(files.join(uri, name), shard_name_template="", num_shards=1)
