"""Which nodes share a task on Kubeflow, and which parameters and artifacts each task has.

A task costs Kubeflow a pod and the process an import of TensorFlow and TFX, so nodes that need no pod of their own join
the ones whose results they check or use. Nothing here imports TFX or kfp.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pipeline.configuration.kubeflow import Node


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of the compiled pipeline.

    Attributes:
        nodes: the nodes it runs, in order; those that the settings leave out are skipped.
        parameters: the pipeline's parameters that the task uses. `size` and `epochs` accompany `model` and `preset`,
            because they are checked together. The first task takes all, so that a wrong one fails before anything runs.
    """

    nodes: tuple[Node, ...]
    parameters: tuple[str, ...]


_MODEL = ("data", "model", "preset", "size", "epochs")
_GATE = ("min_mean_iou", "min_class_iou", "max_mean_drop", "max_class_drop")

TASKS: Mapping[str, Task] = {
    "ExampleGen": Task(
        ("ImageMaskExampleGen", "QuarantineGate", "ImportSchemaGen"), (*_MODEL, *_GATE, "span", "push_destination")
    ),
    "StatisticsGen": Task(("StatisticsGen", "ExampleValidator", "AnomalyGate"), ("data",)),
    "Transform": Task(("Transform",), _MODEL),
    "Trainer": Task(("StartResolver", "Trainer"), _MODEL),
    # Apart from the Trainer, whose pod may hold GPUs that would idle meanwhile.
    "Optimizer": Task(("Optimizer",), _MODEL),
    "Evaluator": Task(("BaselineResolver", "Evaluator"), (*_MODEL, *_GATE)),
    "Pusher and Report": Task(("Pusher", "Report"), (*_MODEL, *_GATE, "push_destination")),
}


def tasks_of(nodes: Sequence[str]) -> dict[str, list[str]]:
    """Returns the tasks that a pipeline with these nodes has, each with its nodes, in the order of the pipeline.

    Raises:
        KeyError: a node belongs to no task.
    """
    task_of: dict[str, str] = {node: name for name, task in TASKS.items() for node in task.nodes}
    tasks: dict[str, list[str]] = {}
    for node in nodes:
        tasks.setdefault(task_of[node], []).append(node)
    return tasks
