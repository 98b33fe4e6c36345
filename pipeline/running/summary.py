"""What a run came to, as `summary.json` for other programs.

Everything is read from the metadata store and the artifacts, never from what a process remembers,
so a run whose nodes all came from the cache has the same summary.
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
    """One finished run, read back from its executions."""

    def __init__(self, run_id: str, executions: Sequence[NodeExecution], class_map: ClassMap) -> None:
        self.run_id = run_id
        self.class_map = class_map
        self._outputs = {execution.node_id: execution.outputs for execution in executions}
        self.evaluation: Evaluation = load_evaluation(self.output("Evaluator", "evaluation").uri, class_map)
        self.blessed = bool(self.output("Evaluator", "blessing").properties.get("blessed"))
        self.report_uri = self.output("Report", "report").uri
        report = next(execution for execution in executions if execution.node_id == "Report")
        self._splits = {role: report.properties[f"{role}_split"] for role in ("gate", "selection")}

    def output(self, node_id: str, key: str) -> Artifact:
        """Returns the one artifact under an output of a node."""
        return self._outputs[node_id][key][0]

    @property
    def pushed(self) -> str | None:
        """The version's directory, or None where nothing was pushed."""
        properties = self.output("Pusher", "pushed_model").properties
        return properties["pushed_destination"] if properties.get("pushed") else None

    def to_dict(
        self, results: Sequence[NodeResult], startup_seconds: float, chosen: RelatedModel | None
    ) -> dict[str, Any]:
        """Returns the content of `summary.json`; docs/reference.md describes every field."""
        counts = read_counts(self.output("ImageMaskExampleGen", "quarantine").uri)
        candidate, baseline = self.evaluation.candidate, self.evaluation.baseline
        examples = self.output("ImageMaskExampleGen", "examples")
        return {
            "run_id": self.run_id,
            "blessed": self.blessed,
            "pushed": self.pushed,
            "metrics": candidate.scores.to_dict(),
            "splits": self._splits,
            "selection_metrics": nested(candidate.selection) or None,
            "baseline": chosen and {"run_id": chosen.run_id, "version": chosen.version, "why": chosen.why},
            "baseline_metrics": baseline.scores.to_dict() if baseline else None,
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
        return result.diagnostics.to_dict(self.class_map) if result and result.diagnostics else None


def push_text(pushed_model: Artifact) -> str:
    """Returns where a model was pushed, or why it is not served."""
    properties = pushed_model.properties
    if version := properties.get(WITHDRAWN):
        return f"not pushed: it is version {version}, which was withdrawn"
    if not properties.get("pushed"):
        return "not pushed: the gate withheld its blessing"
    directory = properties["pushed_destination"]
    withdrawal = _withdrawal(directory)
    return f"{directory}, which was withdrawn: {withdrawal.why}" if withdrawal else directory


def _withdrawal(version: str) -> Withdrawal | None:
    return read_withdrawn(os.path.dirname(version)).get(version_number(version) or 0)


def check_served(version: str, archive: str) -> None:
    """Checks that a version that the cache calls pushed is still served, unless it was withdrawn.

    Args:
        version: the version's directory.
        archive: the artifact that keeps a copy of the model.

    Raises:
        SegpipeError: it was removed since, or a newer version took its place.
    """
    if _withdrawal(version):
        return
    if files.is_remote(version):
        _check_published(version, archive)
        return
    if not os.path.isfile(os.path.join(version, "saved_model.pb")):
        raise SegpipeError(
            f"{version}: an earlier run pushed this version, found it gone, expected it to be served still. "
            f"Put it back from the copy that was kept: {_replace_by_copy(archive, version)}"
        )
    served = served_instead(version)
    if served:
        base, number = os.path.split(served)
        raise SegpipeError(
            f"{version}: an earlier run pushed this version, found the newer {served}, which is served in its place, "
            "expected it to be the newest. To serve it again, copy it as a new version: "
            f"{_replace_by_copy(version, os.path.join(base, str(int(number) + 1)))}\n"
            "Or give it a label: segpipe release canary, then segpipe release promote"
        )


def _check_published(version: str, archive: str) -> None:
    """Checks that a version on an object store, or a copy of it, is the newest published one. Raises SegpipeError."""
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
        f"{version}: an earlier run pushed this version, found {newest or 'no published version'} in its place, "
        "expected it to be the newest published one. To serve it again, push it as a new version: "
        f"segpipe models push {shlex.quote(archive)} {shlex.quote(base)}"
    )


def _replace_by_copy(source: str, version: str) -> str:
    """Returns the shell's words that make a version a copy of a folder, whatever is there of it; in one step."""
    base = os.path.dirname(version)
    source, partial, version, base = map(shlex.quote, (source, os.path.join(base, ".copy"), version, base))
    return (
        f"mkdir -p {base} && rm -rf {partial} && cp -r {source} {partial} && rm -rf {version} && mv {partial} {version}"
    )


def write_summary(directory: str, summary: dict[str, Any]) -> str:
    """Writes `summary.json` in one step and returns its path."""
    path = os.path.join(directory, SUMMARY_FILE)
    with open(path + ".tmp", "w") as file:
        json.dump(summary, file, indent=2, sort_keys=True, allow_nan=False)
    os.replace(path + ".tmp", path)
    return path
