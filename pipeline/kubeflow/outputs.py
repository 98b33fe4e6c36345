"""Writes a task's outputs for Kubeflow's pages: scores, confusion matrix, report, and the folders of TFX's artifacts.

They are made from TFX's artifacts, so a cached or retried task shows the same. An artifact of TFX becomes a small JSON
file with its folder, because Kubeflow's launcher copies the files of each output to its own store, and back into every
pod that takes it as input (kubeflow/pipelines 7b70c7b, backend/src/v2/component/launcher_v2.go,
`uploadOutputArtifacts` and `downloadArtifacts`).
"""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kfp import dsl

from components import files
from components.class_map import ClassMap
from components.stored_folder import fetch
from pipeline.storage.store import Artifact, NodeExecution

# A task cannot have an input and a parameter of the same name, such as `model`.
_RENAMED = {"model": "trained_model"}

# Kubeflow's artifacts of each node, by name: TFX's outputs, and those of the writers below.
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
    """Returns the name on Kubeflow of an output of TFX."""
    return _RENAMED.get(output, output)


def write_outputs(executions: Sequence[NodeExecution], class_map: ClassMap, executor_input: Mapping[str, Any]) -> None:
    """Writes the outputs that Kubeflow's `ExecutorInput` expects of a task, from the executions of its nodes."""
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
        # Kubeflow's `ExecutorOutput`.
        executor_output = {
            "artifacts": {
                name: {"artifacts": [{"name": item.name, "uri": item.uri, "metadata": item.metadata}]}
                for name, item in written.items()
            }
        }
        files.write_bytes(expected["outputFile"], json.dumps(executor_output).encode())


def _write_reference(source: Artifact, artifact: dsl.Artifact) -> None:
    """Writes the folder, type and properties of an artifact of TFX."""
    # ML Metadata also has structures and messages as values, which JSON cannot hold.
    plain = {key: value for key, value in source.properties.items() if isinstance(value, str | int | float)}
    artifact.metadata.update({**plain, "type": source.type, "folder": source.uri})
    files.write_bytes(artifact.path, json.dumps(artifact.metadata, indent=2, sort_keys=True).encode())


def _write_evaluation(execution: NodeExecution, class_map: ClassMap, artifacts: Mapping[str, Any]) -> None:
    # Only this node needs TensorFlow Model Analysis.
    from components.metrics.results import load_evaluation

    candidate = load_evaluation(fetch(execution.outputs["evaluation"][0].uri), class_map).candidate
    log_scores(artifacts["scores"], candidate.scores)
    if candidate.matrix.size:
        artifacts["confusion_matrix"].log_confusion_matrix(list(class_map.names), candidate.matrix.tolist())


def log_scores(metrics: dsl.Metrics, scores: Mapping[str, float]) -> None:
    """Adds all defined scores to Kubeflow's metrics."""
    for name, value in scores.items():
        if not math.isnan(value):
            metrics.log_metric(name, value)


def _write_report(execution: NodeExecution, class_map: ClassMap, artifacts: Mapping[str, Any]) -> None:
    from components.report.data import PAGE_FILE

    page = files.read_bytes(files.join(execution.outputs["report"][0].uri, PAGE_FILE))
    files.write_bytes(artifacts["page"].path, page)


_WRITERS: Mapping[str, Callable[[NodeExecution, ClassMap, Mapping[str, Any]], None]] = {
    "Evaluator": _write_evaluation,
    "Report": _write_report,
}
