"""Shows a run's results where Kubeflow looks for them: scores, confusion matrix and report.

They are written beside TFX's own artifacts, read back from those, so a cached or retried task shows the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from components import files
from components.class_map import ClassMap
from components.metrics.scores import CLASS_METRICS, METRICS, Scores, metric_name
from pipeline.store import NodeExecution

# Kubeflow's outputs of each node that has any.
DECLARED: Mapping[str, Mapping[str, type[dsl.Artifact]]] = {
    "Evaluator": {"scores": dsl.Metrics, "confusion_matrix": dsl.ClassificationMetrics},
    "Report": {"page": dsl.HTML},
}


def write_outputs(execution: NodeExecution, class_map: ClassMap, executor_input: Mapping[str, Any]) -> None:
    """Writes the outputs that Kubeflow expects of a node, none for most.

    Args:
        execution: the node's execution, from the metadata store.
        class_map: the classes of the confusion matrix.
        executor_input: what Kubeflow's launcher passed to the task.
    """
    writer = _WRITERS.get(execution.node_id)
    if writer is None:
        return
    expected = executor_input["outputs"]
    artifacts = {
        name: kind(name=group["artifacts"][0]["name"], uri=group["artifacts"][0]["uri"], metadata={})
        for name, kind in DECLARED[execution.node_id].items()
        if (group := expected["artifacts"].get(name))
    }
    writer(execution, class_map, artifacts)
    files.write_bytes(expected["outputFile"], json.dumps(_executor_output(artifacts)).encode())


def _write_evaluation(execution: NodeExecution, class_map: ClassMap, artifacts: Mapping[str, Any]) -> None:
    # TensorFlow Model Analysis is needed for this node alone.
    from components.metrics.results import load_evaluation

    candidate = load_evaluation(execution.outputs["evaluation"][0].uri, class_map).candidate
    log_scores(artifacts["scores"], candidate.scores)
    artifacts["confusion_matrix"].log_confusion_matrix(list(class_map.names), candidate.matrix.tolist())


def _write_report(execution: NodeExecution, class_map: ClassMap, artifacts: Mapping[str, Any]) -> None:
    from components.report.data import PAGE_FILE

    page = files.read_bytes(files.join(execution.outputs["report"][0].uri, PAGE_FILE))
    files.write_bytes(artifacts["page"].path, page)


def log_scores(metrics: dsl.Metrics, scores: Scores) -> None:
    """Adds every score to Kubeflow's metrics; one that is undefined is left out, as JSON has no NaN."""
    values = {name: getattr(scores, name) for name in METRICS}
    for family in CLASS_METRICS:
        values |= {metric_name(family, name): value for name, value in getattr(scores, family).items()}
    for name, value in values.items():
        if value is not None and not math.isnan(value):
            metrics.log_metric(name, float(value))


def _executor_output(artifacts: Mapping[str, dsl.Artifact]) -> dict[str, Any]:
    """Returns what Kubeflow's launcher reads a task's artifacts from."""
    return {
        "artifacts": {
            name: {"artifacts": [{"name": item.name, "uri": item.uri, "metadata": item.metadata}]}
            for name, item in artifacts.items()
        }
    }


_WRITERS: Mapping[str, Callable[[NodeExecution, ClassMap, Mapping[str, Any]], None]] = {
    "Evaluator": _write_evaluation,
    "Report": _write_report,
}
