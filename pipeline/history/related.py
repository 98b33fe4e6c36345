"""Finds the models that a run's model stands beside: the baseline it was compared with, and the version before it."""

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
from pipeline.storage.store import NodeExecution, Store
from pipeline.storage.workdir import REPORT_FILE, Workdir

if TYPE_CHECKING:
    from components.report.data import Lineage, RelatedRun


BASELINE = "BaselineResolver"  # the node that finds the baseline


@dataclasses.dataclass(frozen=True)
class RelatedModel:
    """Another model.

    Attributes:
        run_id: the run that made it; None if the metadata does not know it, as of a model pushed by hand.
        pushed: directory of its version; None if it was not pushed.
        model_id: of the Model artifact in the metadata; None if it is not known.
        why: of a baseline, why it is the baseline.
    """

    run_id: str | None
    pushed: str | None
    model_id: int | None = None
    why: Reason = ""

    @property
    def version(self) -> int | None:
        """Its version's number; None if it was not pushed."""
        return version_number(self.pushed) if self.pushed else None


def find_baseline(store: Store, executions: Sequence[NodeExecution]) -> RelatedModel | None:
    """Returns the model that a run's candidate was compared with; None without one."""
    nodes = {execution.node_id: execution for execution in executions}
    evaluator, resolver = nodes.get("Evaluator"), nodes.get(BASELINE)
    for model in evaluator.inputs.get("baseline_model", []) if evaluator else []:
        why: Reason = "best_of" if resolver and resolver.outputs.get("served") else "served"
        return RelatedModel(store.run_that_made(model.id), store.pushed_to(model.id), model.id, why)
    return None


def find_predecessor(store: Store, pushed: str) -> RelatedModel | None:
    """Returns the version before a pushed one: the largest smaller number that was pushed or lies beside it.

    Args:
        store: the metadata.
        pushed: the version's directory, local or on an object store.
    """
    base, number = os.path.dirname(pushed.rstrip("/")), version_number(pushed)
    runs = {
        artifact.properties["pushed_destination"]: artifact.id
        for artifact in reversed(store.artifacts("PushedModel"))
        if artifact.properties.get("pushed")
    }
    try:
        beside = list(find_versions(base).values())
    except SegpipeError:  # the store of the versions is out of reach; the metadata is not
        beside = []
    recorded = [directory for directory in runs if os.path.dirname(directory.rstrip("/")) == base]
    earlier = {
        found: directory
        for directory in [*beside, *recorded]
        if (found := version_number(directory)) is not None and number is not None and found < number
    }
    if not earlier:
        return None
    directory = earlier[max(earlier)]
    return RelatedModel(store.run_that_made(runs[directory]) if directory in runs else None, directory)


def find_report(workdir: Workdir, run_id: str, executions: Sequence[NodeExecution]) -> str | None:
    """Returns a run's page: its own, or, if the run was on a cluster, its Report component's; None without one."""
    own = os.path.join(workdir.run(run_id), REPORT_FILE)
    if not files.is_remote(own) and os.path.exists(own):
        return own
    for execution in executions:
        for report in execution.outputs.get("report", []):
            page = files.join(report.uri, REPORT_FILE)
            return page if files.is_remote(page) or os.path.exists(page) else None
    return None


def add_related(
    lineage: Lineage, workdir: Workdir, store: Store, run_id: str, executions: Sequence[NodeExecution]
) -> Lineage:
    """Names a run and the runs of its baseline and predecessor in a report's lineage.

    Reports are linked from page to page of one work directory.

    Args:
        lineage: what the Report component knew.
        workdir: the work directory.
        store: the metadata.
        run_id: the run that the report is of.
        executions: its executions.
    """
    pushed = [
        artifact.properties["pushed_destination"]
        for execution in executions
        for artifact in execution.outputs.get("pushed_model", [])
        if artifact.properties.get("pushed")
    ]
    predecessor = find_predecessor(store, pushed[0]) if pushed else None
    return dataclasses.replace(
        lineage,
        run_id=run_id,
        baseline_run=_as_link(workdir, find_baseline(store, executions)),
        predecessor=_as_link(workdir, predecessor),
    )


def complete_report(report_dir: str, workdir: Workdir, store: Store, run_id: str) -> None:
    """Writes a Report component's files again, with what `add_related` knows.

    Args:
        report_dir: the report's folder, local or on an object store.
        workdir: the work directory.
        store: the metadata.
        run_id: the run that made the report.
    """
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
    is_there = page and not files.is_remote(page) and os.path.exists(page)
    address = f"../{quote(str(model.run_id))}/{REPORT_FILE}" if is_there else None
    return RelatedRun(model.run_id, model.version, address, model.why)
