"""The outcome of a run, written as `summary.json` for other programs.

It is read from the metadata store and the artifacts, so a run that came from the cache has the same summary.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from typing import Any

from components import files
from components.class_map import ClassMap
from components.errors import SegpipeError
from components.example_gen.quarantine import read_counts
from components.metrics.results import Evaluation, ModelResult, load_evaluation
from components.metrics.scores import nested
from components.pusher.versions import find_versions, version_number
from components.pusher.withdrawn import WITHDRAWN, Withdrawal, read_withdrawn
from components.stored_folder import hash_files, read_manifest
from pipeline.history.related import RelatedModel
from pipeline.history.served import is_stable, served_instead
from pipeline.running.nodes import NodeResult
from pipeline.storage.store import Artifact, NodeExecution
from pipeline.storage.workdir import SUMMARY_FILE


class RunOutcome:
    """The outcome of a finished run, read from its executions."""

    def __init__(self, run_id: str, executions: Sequence[NodeExecution], class_map: ClassMap) -> None:
        self.run_id = run_id
        nodes = {execution.node_id: execution for execution in executions}
        evaluated, report = nodes["Evaluator"].outputs, nodes["Report"]
        self.evaluation: Evaluation = load_evaluation(evaluated["evaluation"][0].uri, class_map)
        self.blessed = bool(evaluated["blessing"][0].properties.get("blessed"))
        self.pushed_model = nodes["Pusher"].outputs["pushed_model"][0]
        self.report_uri = report.outputs["report"][0].uri
        self._class_map = class_map
        self._ingested = nodes["ImageMaskExampleGen"].outputs
        self._splits = {role: report.properties[f"{role}_split"] for role in ("gate", "selection")}

    def to_dict(
        self, results: Sequence[NodeResult], startup_seconds: float, chosen: RelatedModel | None
    ) -> dict[str, Any]:
        """Returns the content of `summary.json`; docs/reference.md describes every field."""
        counts = read_counts(self._ingested["quarantine"][0].uri)
        candidate, baseline = self.evaluation.candidate, self.evaluation.baseline
        examples = self._ingested["examples"][0]
        return {
            "run_id": self.run_id,
            "blessed": self.blessed,
            "pushed": self.pushed_model.pushed,
            "metrics": nested(candidate.scores),
            "splits": self._splits,
            "selection_metrics": nested(candidate.selection) or None,
            "baseline": chosen and {"run_id": chosen.run_id, "version": chosen.version, "why": chosen.why},
            "baseline_metrics": nested(baseline.scores) if baseline else None,
            "diagnostics": self._diagnostics(candidate),
            "baseline_diagnostics": self._diagnostics(baseline),
            "depth": nested(candidate.depth) or None,
            "baseline_depth": (nested(baseline.depth) or None) if baseline else None,
            "intervals": candidate.intervals,
            "change_intervals": self.evaluation.change_intervals,
            "failures": [failure.reason for failure in self.evaluation.failures],
            "timings": {result.node_id: round(result.seconds, 3) for result in results},
            "states": {result.node_id: result.state for result in results},
            "startup_seconds": round(startup_seconds, 3),
            "data": {**counts, "content_hash": examples.properties.get("input_fingerprint")},
        }

    def _diagnostics(self, result: ModelResult | None) -> dict[str, Any] | None:
        return result.diagnostics.to_dict(self._class_map) if result and result.diagnostics else None


def push_text(pushed_model: Artifact) -> str:
    """Returns where a model was pushed, or why it is not served."""
    if version := pushed_model.properties.get(WITHDRAWN):
        return f"not pushed: the model is version {version}, which was withdrawn"
    if not pushed_model.pushed:
        return "not pushed: the gate did not bless the model"
    withdrawal = _withdrawal(pushed_model.pushed)
    return f"{pushed_model.pushed}, which was withdrawn: {withdrawal.why}" if withdrawal else pushed_model.pushed


def _withdrawal(version: str) -> Withdrawal | None:
    return read_withdrawn(os.path.dirname(version)).get(version_number(version) or 0)


def check_served(version: str, archive: str) -> None:
    """Checks that a version that an earlier run pushed is still served, unless it was withdrawn.

    Raises:
        SegpipeError: the version was removed, or a newer one is served. The message tells how to restore it from
            `archive`, the artifact with a copy of the model.
    """
    if _withdrawal(version):
        return
    if files.is_remote(version):
        _check_published(version, archive)
        return
    if not os.path.isfile(os.path.join(version, "saved_model.pb")):
        raise SegpipeError(
            f"{version}: an earlier run pushed this version, but it was not found, expected it to be still served. "
            f"Restore it from its copy: {_copy_command(archive, version)}"
        )
    served = served_instead(version)
    if served:
        base, number = os.path.split(served)
        raise SegpipeError(
            f"{version}: an earlier run pushed this version, found the newer {served}, which is served instead, "
            "expected it to be the newest. To serve it again, copy it as a new version: "
            f"{_copy_command(version, os.path.join(base, str(int(number) + 1)))}\n"
            "Or label it: segpipe release canary, then segpipe release promote"
        )


def _check_published(version: str, archive: str) -> None:
    """Checks that a version on an object store, or a copy of it, is the newest one or stable. Raises SegpipeError."""
    base = os.path.dirname(version)
    versions = find_versions(base)
    newest = versions[max(versions)] if versions else None
    if (
        newest == version
        or (version in versions.values() and is_stable(version))
        or (newest and read_manifest(newest).files == hash_files(archive))
    ):
        return
    raise SegpipeError(
        f"{version}: an earlier run pushed this version, found {newest or 'no published version'} instead, "
        "expected it to be the newest published one. To serve it again, push it as a new version: "
        f"segpipe models push {shlex.quote(archive)} {shlex.quote(base)}"
    )


def _copy_command(source: str, version: str) -> str:
    """Returns a shell command that atomically replaces a version with a copy of a folder."""
    base = os.path.dirname(version)
    source, partial, version, base = map(shlex.quote, (source, os.path.join(base, ".copy"), version, base))
    return (
        f"mkdir -p {base} && rm -rf {partial} && cp -r {source} {partial} && rm -rf {version} && mv {partial} {version}"
    )


def write_summary(directory: str, summary: dict[str, Any]) -> str:
    """Writes `summary.json` atomically and returns its path."""
    path = os.path.join(directory, SUMMARY_FILE)
    files.write_bytes(path, json.dumps(summary, indent=2, sort_keys=True, allow_nan=False).encode())
    return path
