"""Finds the served model in the metadata, with the statistics and examples that it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from components import files
from components.errors import UsageError
from components.stored_folder import fetch
from pipeline.history.served import is_served
from pipeline.storage.store import NodeExecution, Store, find_output

_STATISTICS_FILE = "FeatureStats.pb"


@dataclasses.dataclass(frozen=True)
class Reference:
    """One run's training data and model.

    Attributes:
        run_id: the run.
        split: name of the training split.
        statistics: StatisticsGen's file for the training split, on the local disk.
        examples: URI of the raw examples of all splits.
        model: the exported model.
    """

    run_id: str
    split: str
    statistics: str
    examples: str
    model: str


def find_run(store: Store, project: str = "") -> str:
    """Returns the last run whose model is served: the stable version, or the newest version if none has a label.

    Raises:
        UsageError: there is no such run, or none of the project, if one is given.
    """
    for run_id in reversed(store.run_ids()):
        executions = store.executions(run_id)
        model = _pushed_version(executions)
        of_project = project in ("", *(execution.project for execution in executions))
        if model and of_project and _uri(executions, "StatisticsGen", "statistics") and is_served(model):
            return run_id
    whose = f" of project {project}" if project else ""
    raise UsageError(
        f"the metadata has no run{whose} that pushed the served model, expected one to compare with. "
        "Start one first: segpipe run --data DIR, or name the work directory with --out"
    )


def find_reference(store: Store, run_id: str, train_split: str) -> Reference:
    """Returns a run's training data and model. Statistics on an object store are copied to the local disk.

    Raises:
        UsageError: the run has no statistics of the training split.
        SegpipeError: the statistics cannot be copied.
    """
    executions = store.executions(run_id)
    folder, name = _uri(executions, "StatisticsGen", "statistics"), f"Split-{train_split}/{_STATISTICS_FILE}"
    statistics = files.join(fetch(folder), name)
    if not files.exists(statistics):
        raise UsageError(
            f"run {run_id}: {files.join(folder, name)} was not found, expected statistics of the training split, "
            f"{train_split!r}. Set data.train_split in --config to the split that the run was trained on"
        )
    examples = _uri(executions, "ImageMaskExampleGen", "examples")
    return Reference(run_id, train_split, statistics, examples, _pushed_version(executions))


def _pushed_version(executions: Sequence[NodeExecution]) -> str:
    model = find_output(executions, "Pusher", "pushed_model")
    return model.pushed or "" if model else ""


def _uri(executions: Sequence[NodeExecution], node_id: str, key: str) -> str:
    """Returns the URI of an output of a finished node; empty if the node did not finish or lacks the output."""
    artifact = find_output((each for each in executions if each.finished), node_id, key)
    return artifact.uri if artifact else ""
