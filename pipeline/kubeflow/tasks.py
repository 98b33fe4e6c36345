"""The tasks of the compiled pipeline on Kubeflow: the nodes and the parameters of each.

Each task costs a pod and an import of TensorFlow and TFX. A node that needs no pod of its own therefore runs in the
task of the node whose result it checks or uses. Nothing here imports TFX or kfp.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pipeline.configuration.kubeflow import Node


@dataclasses.dataclass(frozen=True)
class PipelineTask:
    """A task of the compiled pipeline.

    Attributes:
        nodes: its nodes, in order; nodes that the settings leave out are skipped.
        parameters: the pipeline's parameters that it uses. `size` and `epochs` come with `model` and `preset`, because
            they are checked together. The first task takes all, so that a wrong one fails before anything runs.
    """

    nodes: tuple[Node, ...]
    parameters: tuple[str, ...]


_MODEL = ("data", "model", "preset", "size", "epochs")
_GATE = ("min_mean_iou", "min_class_iou", "max_mean_drop", "max_class_drop")

TASKS: Mapping[str, PipelineTask] = {
    "ExampleGen": PipelineTask(
        ("ImageMaskExampleGen", "QuarantineGate", "ImportSchemaGen"), (*_MODEL, *_GATE, "span", "push_destination")
    ),
    "StatisticsGen": PipelineTask(("StatisticsGen", "ExampleValidator", "AnomalyGate"), ("data",)),
    "Transform": PipelineTask(("Transform",), _MODEL),
    "Trainer": PipelineTask(("StartResolver", "Trainer"), _MODEL),
    # Not in the Trainer's task, whose pod may hold GPUs that would be idle.
    "Optimizer": PipelineTask(("Optimizer",), _MODEL),
    "Evaluator": PipelineTask(("BaselineResolver", "Evaluator"), (*_MODEL, *_GATE)),
    "Pusher and Report": PipelineTask(("Pusher", "Report"), (*_MODEL, *_GATE, "push_destination")),
}


def tasks_of(nodes: Sequence[str]) -> dict[str, list[str]]:
    """Groups the nodes of a pipeline by task, in the order of the pipeline.

    Raises:
        KeyError: a node belongs to no task.
    """
    task_of: dict[str, str] = {node: name for name, task in TASKS.items() for node in task.nodes}
    tasks: dict[str, list[str]] = {}
    for node in nodes:
        tasks.setdefault(task_of[node], []).append(node)
    return tasks
