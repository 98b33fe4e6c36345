"""What the served model was trained on, found in the metadata: statistics, examples and the model itself."""

from __future__ import annotations

import dataclasses

from components import files
from components.errors import UsageError
from pipeline.history.served import is_served
from pipeline.storage.store import NodeExecution, Store

_STATISTICS_FILE = "FeatureStats.pb"
_COMPLETE = ("ran", "cached")


@dataclasses.dataclass(frozen=True)
class Reference:
    """One run's training data and model.

    Attributes:
        run_id: the run.
        split: name of the training split.
        statistics: StatisticsGen's file for the training split.
        examples: URI of the raw examples of all splits.
        model: the exported model.
    """

    run_id: str
    split: str
    statistics: str
    examples: str
    model: str


def find_run(store: Store, project: str = "") -> str:
    """Finds the last run whose model is served: the one labelled stable, or the newest of a model without labels.

    Args:
        store: metadata of the runs.
        project: the project that the run must be of; empty for any.

    Raises:
        UsageError: there is none.
    """
    for run_id in reversed(store.run_ids()):
        nodes = _nodes(store, run_id)
        model = _pushed_model(nodes)
        of_project = project in ("", *(node.project for node in nodes.values()))
        if model and of_project and _uri(nodes, "StatisticsGen", "statistics") and is_served(model):
            return run_id
    whose = f" of project {project}" if project else ""
    raise UsageError(
        f"the metadata holds no run{whose} that pushed the model that is served, expected one to compare with. "
        "Start one first: segpipe run --data DIR, or name the work directory with --out"
    )


def find_reference(store: Store, run_id: str, train_split: str) -> Reference:
    """Finds a run's training data and model.

    Args:
        store: metadata of the runs.
        run_id: what `find_run` returned.
        train_split: name of the training split.

    Raises:
        UsageError: the run has no such split.
    """
    nodes, split = _nodes(store, run_id), f"Split-{train_split}"
    statistics = files.join(_uri(nodes, "StatisticsGen", "statistics"), split, _STATISTICS_FILE)
    if not files.exists(statistics):
        raise UsageError(
            f"run {run_id}: found no {statistics}, expected statistics of the training split, {train_split!r}. "
            "Set data.train_split in --config to the split that the run was trained on"
        )
    examples = _uri(nodes, "ImageMaskExampleGen", "examples")
    return Reference(run_id, train_split, statistics, examples, _pushed_model(nodes))


def _nodes(store: Store, run_id: str) -> dict[str, NodeExecution]:
    return {execution.node_id: execution for execution in store.executions(run_id)}


def _pushed_model(nodes: dict[str, NodeExecution]) -> str:
    """Returns the directory of the version that a run pushed; empty where it pushed none."""
    node = nodes.get("Pusher")
    properties = node.outputs["pushed_model"][0].properties if node and node.outputs.get("pushed_model") else {}
    return str(properties["pushed_destination"]) if properties.get("pushed") else ""


def _uri(nodes: dict[str, NodeExecution], node_id: str, key: str) -> str:
    node = nodes.get(node_id)
    return node.outputs[key][0].uri if node and node.state in _COMPLETE and node.outputs.get(key) else ""
