"""What the served model was trained on, found in the metadata: statistics, examples and the model itself."""

from __future__ import annotations

import dataclasses

from components import files
from components.errors import UsageError
from pipeline.store import NodeExecution, Store

_STATISTICS_FILE = "FeatureStats.pb"
_COMPLETE = ("ran", "cached")


@dataclasses.dataclass(frozen=True)
class Reference:
    """One run's training data and model.

    Attributes:
        run_id: the run.
        statistics: StatisticsGen's file for the training split.
        examples: pattern of the gzip TFRecords of raw training examples.
        model: the exported model.
    """

    run_id: str
    statistics: str
    examples: str
    model: str


def find_reference(store: Store, train_split: str) -> Reference:
    """Finds the run whose model is served: the last that pushed one.

    Raises:
        UsageError: no run has pushed a model, or it has no such split.
    """
    for run_id in reversed(store.run_ids()):
        nodes = {execution.node_id: execution for execution in store.executions(run_id)}
        pushed = _property(nodes, "Pusher", "pushed_model", "pushed")
        if pushed and _uri(nodes, "StatisticsGen", "statistics"):
            split = f"Split-{train_split}"
            return Reference(
                run_id,
                statistics=files.join(_uri(nodes, "StatisticsGen", "statistics"), split, _STATISTICS_FILE),
                examples=files.join(_uri(nodes, "ImageMaskExampleGen", "examples"), split, "*.gz"),
                model=str(_property(nodes, "Pusher", "pushed_model", "pushed_destination")),
            )
    raise UsageError(
        "the metadata holds no run that pushed a model, expected one to compare with. "
        "Start one first: segpipe run --data DIR, or name the work directory with --out"
    )


def _uri(nodes: dict[str, NodeExecution], node_id: str, key: str) -> str:
    node = nodes.get(node_id)
    return node.outputs[key][0].uri if node and node.state in _COMPLETE and node.outputs.get(key) else ""


def _property(nodes: dict[str, NodeExecution], node_id: str, key: str, name: str) -> object:
    node = nodes.get(node_id)
    return node.outputs[key][0].properties.get(name) if node and node.outputs.get(key) else None
