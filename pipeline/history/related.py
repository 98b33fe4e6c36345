"""Finds the models related to a run's model: its baseline and the version before it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from components import files
from components.baseline.reasons import Reason
from components.errors import SegpipeError
from components.pusher.versions import find_versions, version_number
from pipeline.storage.store import NodeExecution, Store, find_output
from pipeline.storage.workdir import REPORT_FILE, Workdir

if TYPE_CHECKING:
    from components.report.data import Lineage, RelatedRun


BASELINE = "BaselineResolver"  # the node that finds the baseline


@dataclasses.dataclass(frozen=True)
class RelatedModel:
    """A baseline or a predecessor.

    Attributes:
        run_id: the run that trained it; None if unknown, such as for a model that was pushed by hand.
        pushed: directory of its version; None if it was not pushed.
        model_id: id of the Model artifact in the metadata; None if unknown.
        why: why it is the baseline; empty for a predecessor.
    """

    run_id: str | None
    pushed: str | None
    model_id: int | None = None
    why: Reason = ""

    @property
    def version(self) -> int | None:
        """The version number; None if the model was not pushed."""
        return version_number(self.pushed) if self.pushed else None


def find_baseline(store: Store, executions: Sequence[NodeExecution]) -> RelatedModel | None:
    """Returns the model that a run's candidate was compared with; None if there was no baseline."""
    nodes = {execution.node_id: execution for execution in executions}
    evaluator, resolver = nodes.get("Evaluator"), nodes.get(BASELINE)
    for model in evaluator.inputs.get("baseline_model", []) if evaluator else []:
        why: Reason = "best_of" if resolver and resolver.outputs.get("served") else "served"
        return RelatedModel(store.run_that_made(model.id), store.pushed_to(model.id), model.id, why)
    return None


def find_predecessor(store: Store, pushed: str) -> RelatedModel | None:
    """Returns the version before a pushed one, in the same folder or in the metadata; None if it is the first."""
    base, number = os.path.dirname(pushed.rstrip("/")), version_number(pushed)
    # The first artifact of a directory, which the run that pushed it wrote.
    runs = {model.pushed: model.id for model in reversed(store.artifacts("PushedModel")) if model.pushed}
    try:
        existing = list(find_versions(base).values())
    except SegpipeError:  # the object store cannot be reached, but the metadata can
        existing = []
    recorded = [directory for directory in runs if os.path.dirname(directory.rstrip("/")) == base]
    earlier = {
        found: directory
        for directory in [*existing, *recorded]
        if (found := version_number(directory)) is not None and number is not None and found < number
    }
    if not earlier:
        return None
    directory = earlier[max(earlier)]
    return RelatedModel(store.run_that_made(runs[directory]) if directory in runs else None, directory)


def find_report(workdir: Workdir, run_id: str, executions: Sequence[NodeExecution]) -> str | None:
    """Returns the HTML file of a run's report: the run's own or, on a cluster, its Report component's; else None."""
    own = os.path.join(workdir.run(run_id), REPORT_FILE)
    if not files.is_remote(own) and os.path.exists(own):
        return own
    report = find_output(executions, "Report", "report")
    page = files.join(report.uri, REPORT_FILE) if report else ""
    return page if page and (files.is_remote(page) or os.path.exists(page)) else None


def add_related(
    lineage: Lineage, workdir: Workdir, store: Store, run_id: str, executions: Sequence[NodeExecution]
) -> Lineage:
    """Adds a run, its baseline and its predecessor to a report's lineage, with links to their reports."""
    model = find_output(executions, "Pusher", "pushed_model")
    predecessor = find_predecessor(store, model.pushed) if model and model.pushed else None
    return dataclasses.replace(
        lineage,
        run_id=run_id,
        baseline_run=_as_link(workdir, find_baseline(store, executions)),
        predecessor=_as_link(workdir, predecessor),
    )


def complete_report(report_dir: str, workdir: Workdir, store: Store, run_id: str) -> None:
    """Writes the Report component's files again, with the lineage of `add_related`."""
    from components.report.component import write
    from components.report.data import load

    data = load(report_dir)
    lineage = add_related(data.lineage, workdir, store, run_id, store.executions(run_id))
    write(dataclasses.replace(data, lineage=lineage), report_dir)


def _as_link(workdir: Workdir, model: RelatedModel | None) -> RelatedRun | None:
    from components.report.data import RelatedRun  # here, because it imports SciPy

    if model is None:
        return None
    page = os.path.join(workdir.run(model.run_id), REPORT_FILE) if model.run_id else ""
    exists = page and not files.is_remote(page) and os.path.exists(page)
    address = f"../{quote(str(model.run_id))}/{REPORT_FILE}" if exists else None
    return RelatedRun(model.run_id, model.version, address, model.why)
