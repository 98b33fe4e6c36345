"""The two gates before training: on bad pairs and images in two splits, and on anomalies of the statistics.

ExampleValidator only reports anomalies; a gate stops the run, so that no model is trained on rejected data.
"""

import logging
from collections import Counter
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import artifact_utils  # decodes split names; no public alias
from tfx.v1.dsl.components import InputArtifact, Parameter, component
from tfx.v1.types.standard_artifacts import ExampleAnomalies

from components import files
from components.dataset.near_duplicates import BITS, NearDuplicate
from components.errors import DataRejectedError
from components.example_gen.artifacts import Quarantine
from components.example_gen.quarantine import (
    SHARED_FILE,
    SIMILAR_FILE,
    read_counts,
    read_issues,
    read_shared_images,
    read_similar_images,
)

# No `from __future__ import annotations`, because TFX reads the annotations of a component's function as objects.

_ANOMALIES_FILE = "SchemaDiff.pb"
_SHOWN = 10

PROGRESS = logging.getLogger("segpipe.progress")


@component
def QuarantineGate(  # TFX names components with nouns
    quarantine: InputArtifact[Quarantine],
    max_fraction: Parameter[float],
    max_shared_images: Parameter[int],
    train_split: Parameter[str],
    eval_split: Parameter[str],
    gate_split: Parameter[str],
    code: Parameter[str],
    max_similar_images: Parameter[int] = None,
) -> None:
    """Stops the run on too many bad pairs, an empty training or evaluation split, or images in both.

    Without `max_similar_images`, near duplicates are only logged. `code` is part of the cache key.
    """
    counts, issues = read_counts(quarantine.uri), read_issues(quarantine.uri)
    evaluated = tuple(dict.fromkeys((eval_split, gate_split)))
    check_quarantine(counts, issues, max_fraction, (train_split, *evaluated), quarantine.uri)
    shared, similar = read_shared_images(quarantine.uri), read_similar_images(quarantine.uri)
    for split in evaluated:
        check_shared_images(shared, max_shared_images, train_split, split, quarantine.uri)
        check_similar_images(similar, max_similar_images, train_split, split, quarantine.uri)


@component
def AnomalyGate(anomalies: InputArtifact[ExampleAnomalies], code: Parameter[str]) -> None:
    """Stops the run if a split's statistics do not match the schema; `code` is part of the cache key."""
    check_anomalies(read_anomalies(anomalies), anomalies.uri)


def check_quarantine(
    counts: dict[str, Any], issues: list[Any], max_fraction: float, needed_splits: tuple[str, ...], uri: str
) -> None:
    """Raises DataRejectedError if a split has more than `max_fraction` bad pairs, or a needed split has no example.

    `counts` and `issues` are the results of `read_counts` and `read_issues`; the message names the quarantine's `uri`.
    """
    good: Counter[str] = Counter(counts["examples"])
    # A duplicate pair has several issues, but is one bad pair.
    bad = Counter(split for split, _ in {(issue.split, issue.name) for issue in issues})
    empty = [split for split in needed_splits if not good[split]]
    if empty:
        raise DataRejectedError(
            f"split {empty[0]!r} has no usable example; found examples in {counts['examples']}, expected at least "
            f"one in each of {', '.join(needed_splits)}. Add pairs, or name another split with data.train_split, "
            f"data.eval_split or data.gate_split. All quarantined pairs, with reasons: {uri}\n"
            + _listing([_issue_line(issue) for issue in issues])
        )
    fractions = {split: count / (good[split] + count) for split, count in sorted(bad.items())}
    rejected = {split: fraction for split, fraction in fractions.items() if fraction > max_fraction}
    if rejected:
        numbers = ", ".join(
            f"{bad[split]} of {good[split] + bad[split]} pairs of split {split!r} ({fraction:.1%})"
            for split, fraction in rejected.items()
        )
        raise DataRejectedError(
            f"bad pairs: found {numbers}, expected at most {max_fraction:.1%} of each split. "
            f"Repair or remove them, or raise data.max_quarantined_fraction. All of them: {uri}\n"
            + _listing([_issue_line(issue) for issue in issues if issue.split in rejected])
        )
    progress = {"progress": {"component": "QuarantineGate"}}
    PROGRESS.info("%d examples, %d bad pairs", good.total(), bad.total(), extra=progress)


def check_shared_images(
    shared: list[dict[str, list[str]]], max_shared_images: int, train_split: str, eval_split: str, uri: str
) -> None:
    """Raises DataRejectedError if too many images are in both the training and an evaluation split.

    `shared` is the result of `read_shared_images`; the message names the quarantine's `uri`.
    """
    both = [names for names in shared if train_split in names and eval_split in names]
    if len(both) > max_shared_images:
        lines = [f"  {train_split}/{names[train_split][0]} = {eval_split}/{names[eval_split][0]}" for names in both]
        raise DataRejectedError(
            f"{len(both)} images of split {eval_split!r} are in split {train_split!r} too, with the same pixels; "
            f"expected at most {max_shared_images}, because scores on training images are too good. Remove them "
            f"from one of the splits, or raise data.max_shared_images. All of them: "
            f"{files.join(uri, SHARED_FILE)}\n" + _listing(lines)
        )


def check_similar_images(
    similar: list[NearDuplicate], max_similar_images: int | None, train_split: str, eval_split: str, uri: str
) -> None:
    """Raises DataRejectedError if too many evaluation images are near duplicates of training images.

    `similar` is the result of `read_similar_images`. With None for `max_similar_images`, only logs the number.
    """
    found = [pair for pair in similar if pair.split == eval_split and pair.other_split == train_split]
    what = f"{len(found)} images of split {eval_split!r} are nearly the same as one of split {train_split!r}"
    if max_similar_images is not None and len(found) > max_similar_images:
        lines = [
            f"  {train_split}/{pair.other_name} ~ {eval_split}/{pair.name}, {pair.distance} of {BITS} bits differ"
            for pair in sorted(found, key=lambda pair: pair.distance)
        ]
        raise DataRejectedError(
            f"{what}; expected at most {max_similar_images}, because scores on copies of training images are too "
            "good. Compare them with `segpipe data check --report FILE.html`, remove the copies from one of the "
            f"splits, or raise data.max_similar_images. All of them: {files.join(uri, SIMILAR_FILE)}\n"
            + _listing(lines)
        )
    if found:
        PROGRESS.warning("%s: see `segpipe data check`", what, extra={"progress": {"component": "QuarantineGate"}})


def _issue_line(issue: Any) -> str:
    return f"  {issue.file}: {issue.reason}; found {issue.found}, expected {issue.expected}"


def _listing(lines: list[str]) -> str:
    """Returns the first lines, and the number of further ones."""
    more = [f"  ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def read_anomalies(artifact: Any) -> dict[str, Any]:
    """Returns TFDV's anomalies of each split."""
    return {
        split: anomalies_pb2.Anomalies.FromString(
            files.read_bytes(files.join(artifact.uri, f"Split-{split}", _ANOMALIES_FILE))
        )
        for split in artifact_utils.decode_split_names(artifact.split_names)
    }


def check_anomalies(anomalies: dict[str, Any], uri: str) -> None:
    """Raises DataRejectedError with split and feature of every anomaly, if there are any."""
    lines = []
    for split, proto in sorted(anomalies.items()):
        for feature, info in sorted(proto.anomaly_info.items()):
            lines.append(f"  split {split!r}, feature {feature!r}: {info.description}")
        if proto.HasField("dataset_anomaly_info"):
            lines.append(f"  split {split!r}: {proto.dataset_anomaly_info.description}")
    if lines:
        raise DataRejectedError(
            f"{len(lines)} anomalies between the data and its schema, expected none. "
            f"Inspect the data with `segpipe data check`. Full report: {uri}\n" + "\n".join(lines)
        )
