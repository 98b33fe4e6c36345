"""Shows a run's results where Kubeflow looks for them: scores, confusion matrix, report, and where artifacts lie.

They are written beside TFX's own artifacts, read back from those, so a cached or retried task shows the same.
An artifact of TFX is shown as a small JSON file that names its folder: Kubeflow's launcher copies what an output's
URI names to its own store, and back into every pod that takes it as input (kubeflow/pipelines 7b70c7b,
backend/src/v2/component/launcher_v2.go, `uploadOutputArtifacts` and `downloadArtifacts`).
"""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kfp import dsl

from components import files
from components.class_map import ClassMap
from components.stored_folder import fetch
from pipeline.storage.store import Artifact, NodeExecution

# A component's inputs have one name each, and `model` is a parameter.
_RENAMED = {"model": "trained_model"}

# Kubeflow's artifacts of each node, by name: TFX's outputs, and what a writer below makes.
ARTIFACTS: Mapping[str, Mapping[str, type[dsl.Artifact]]] = collections.defaultdict(
    dict,
    {
        "ImageMaskExampleGen": {"examples": dsl.Dataset},
        "StatisticsGen": {"statistics": dsl.Artifact},
        "Transform": {"transformed_examples": dsl.Dataset},
        "Trainer": {"trained_model": dsl.Model},
        "Optimizer": {"optimized_model": dsl.Model},
        "Evaluator": {
            "evaluation": dsl.Artifact,
            "blessing": dsl.Artifact,
            "scores": dsl.Metrics,
            "confusion_matrix": dsl.ClassificationMetrics,
        },
        "Pusher": {"pushed_model": dsl.Model},
        "Report": {"page": dsl.HTML},
    },
)


def name_of(output: str) -> str:
    """Returns Kubeflow's name of an output of TFX."""
    return _RENAMED.get(output, output)


def write_outputs(executions: Sequence[NodeExecution], class_map: ClassMap, executor_input: Mapping[str, Any]) -> None:
    """Writes the outputs that Kubeflow expects of a task.

    Args:
        executions: the executions of the task's nodes, from the metadata store.
        class_map: the classes of the confusion matrix.
        executor_input: what Kubeflow's launcher passed to the task.
    """
    expected = executor_input.get("outputs", {})
    written: dict[str, dsl.Artifact] = {}
    for execution in executions:
        artifacts = {
            name: kind(name=group["artifacts"][0]["name"], uri=group["artifacts"][0]["uri"], metadata={})
            for name, kind in ARTIFACTS[execution.node_id].items()
            if (group := expected.get("artifacts", {}).get(name))
        }
        for output, sources in execution.outputs.items():
            if name_of(output) in artifacts:
                _write_reference(sources[0], artifacts[name_of(output)])
        writer = _WRITERS.get(execution.node_id)
        if writer and artifacts:
            writer(execution, class_map, artifacts)
        written |= artifacts
    if written:
        files.write_bytes(expected["outputFile"], json.dumps(_executor_output(written)).encode())


def _write_reference(source: Artifact, artifact: dsl.Artifact) -> None:
    """Writes where an artifact of TFX lies and what TFX knows of it."""
    # ML Metadata also has structures and messages as values, which JSON has no word for.
    plain = {key: value for key, value in source.properties.items() if isinstance(value, str | int | float)}
    artifact.metadata.update({**plain, "type": source.type, "folder": source.uri})
    files.write_bytes(artifact.path, json.dumps(artifact.metadata, indent=2, sort_keys=True).encode())


def _write_evaluation(execution: NodeExecution, class_map: ClassMap, artifacts: Mapping[str, Any]) -> None:
    # TensorFlow Model Analysis is needed for this node alone.
    from components.metrics.results import load_evaluation

    candidate = load_evaluation(fetch(execution.outputs["evaluation"][0].uri), class_map).candidate
    log_scores(artifacts["scores"], candidate.scores.flat())
    if candidate.matrix.size:
        artifacts["confusion_matrix"].log_confusion_matrix(list(class_map.names), candidate.matrix.tolist())


def _write_report(execution: NodeExecution, class_map: ClassMap, artifacts: Mapping[str, Any]) -> None:
    from components.report.data import PAGE_FILE

    page = files.read_bytes(files.join(execution.outputs["report"][0].uri, PAGE_FILE))
    files.write_bytes(artifacts["page"].path, page)


def log_scores(metrics: dsl.Metrics, scores: Mapping[str, float | None]) -> None:
    """Adds every score to Kubeflow's metrics; one that is undefined is left out."""
    for name, value in scores.items():
        if value is not None:
            metrics.log_metric(name, value)


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
