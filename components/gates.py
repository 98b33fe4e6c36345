"""The two gates in front of training: one on what was quarantined, one on what the statistics show.

ExampleValidator only reports; a gate stops the run, so that nothing is trained on rejected data.
"""

import logging
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import artifact_utils  # decodes split names; no public alias
from tfx.v1.dsl.components import InputArtifact, Parameter, component
from tfx.v1.types.standard_artifacts import ExampleAnomalies

from components import files
from components.errors import DataRejectedError
from components.example_gen.artifacts import Quarantine
from components.example_gen.quarantine import read_counts, read_faults

# TFX reads the annotations of a component's function as objects, so this file has no
# `from __future__ import annotations`.

_ANOMALIES_FILE = "SchemaDiff.pb"
_SHOWN = 10

PROGRESS = logging.getLogger("segpipe.progress")


@component
def QuarantineGate(  # TFX's naming: a component is a noun
    quarantine: InputArtifact[Quarantine],
    max_share: Parameter[float],
    train_split: Parameter[str],
    eval_split: Parameter[str],
    code: Parameter[str],
) -> None:
    """Stops the run where too many pairs are bad, or a split that is needed is empty; `code` is for the cache's key."""
    counts, faults = read_counts(quarantine.uri), read_faults(quarantine.uri)
    check_quarantine(counts, faults, max_share, (train_split, eval_split), quarantine.uri)


@component
def AnomalyGate(anomalies: InputArtifact[ExampleAnomalies], code: Parameter[str]) -> None:
    """Stops the run where a split's statistics do not fit the schema; `code` is for the cache's key."""
    check_anomalies(read_anomalies(anomalies), anomalies.uri)


def check_quarantine(
    counts: dict[str, Any], faults: list[Any], max_share: float, needed_splits: tuple[str, ...], uri: str
) -> None:
    """Raises DataRejectedError above the allowed share of bad pairs, or without examples in a needed split.

    Args:
        counts: {"examples": {split: count}, "quarantined": {split: {reason: count}}}.
        faults: the bad pairs, as `components.dataset.pairs.Fault`.
        max_share: largest share of bad pairs allowed, 0 to 1.
        needed_splits: the splits that must not be empty.
        uri: where the quarantine lies, for the message.
    """
    good = sum(counts["examples"].values())
    # A pair that is there twice is one bad pair of several files.
    bad = len({(fault.split, fault.name) for fault in faults})
    share = bad / max(1, good + bad)
    listing = "\n".join(
        f"  {fault.file}: {fault.reason}; found {fault.found}, expected {fault.expected}" for fault in faults[:_SHOWN]
    )
    if len(faults) > _SHOWN:
        listing += f"\n  ... and {len(faults) - _SHOWN} more"
    empty = [split for split in needed_splits if not counts["examples"].get(split)]
    if empty:
        raise DataRejectedError(
            f"split {empty[0]!r} has no usable example; found examples in {counts['examples']}, expected at least "
            f"one in each of {', '.join(needed_splits)}. Add pairs, or name another split with data.train_split or "
            f"data.eval_split. All that was quarantined, with reasons: {uri}\n{listing}"
        )
    if share > max_share:
        raise DataRejectedError(
            f"{bad} of {good + bad} pairs are bad ({share:.1%}), expected at most {max_share:.1%}. "
            f"Repair or remove them, or raise data.max_quarantined_share. All of them: {uri}\n{listing}"
        )
    PROGRESS.info("%d examples, %d bad pairs", good, bad, extra={"progress": {"component": "QuarantineGate"}})


def read_anomalies(artifact: Any) -> dict[str, Any]:
    """Returns the anomalies of each split as TFDV's protos."""
    return {
        split: anomalies_pb2.Anomalies.FromString(
            files.read_bytes(files.join(artifact.uri, f"Split-{split}", _ANOMALIES_FILE))
        )
        for split in artifact_utils.decode_split_names(artifact.split_names)
    }


def check_anomalies(anomalies: dict[str, Any], uri: str) -> None:
    """Raises DataRejectedError that names the split and feature of every anomaly."""
    lines = []
    for split, proto in sorted(anomalies.items()):
        for feature, info in sorted(proto.anomaly_info.items()):
            lines.append(f"  split {split!r}, feature {feature!r}: {info.description}")
        if proto.HasField("dataset_anomaly_info"):
            lines.append(f"  split {split!r}: {proto.dataset_anomaly_info.description}")
    if lines:
        raise DataRejectedError(
            f"{len(lines)} anomalies between the data and its schema, expected none. "
            f"Look at the data with `segpipe data check`; the full report: {uri}\n" + "\n".join(lines)
        )
