"""Compiles the TFX pipeline to a Kubeflow Pipelines v2 pipeline: container tasks that run one or more nodes each.

A task's command has its name, the compiled configuration and its parameters; it runs `pipeline.kubeflow.node`.
`pipeline.kubeflow.tasks` groups the nodes.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kfp import compiler, dsl

from components.dataset.description import built_in
from components.metrics.settings import GateSettings
from pipeline.configuration.config import RunConfig
from pipeline.kubeflow import kubernetes_options
from pipeline.kubeflow.outputs import ARTIFACTS, name_of
from pipeline.kubeflow.parameters import PARAMETERS, RUN_ID, Layers, Parameter
from pipeline.kubeflow.tasks import TASKS, tasks_of
from pipeline.running.nodes import PipelineRun
from pipeline.storage.workdir import Workdir
from pipeline.wiring.beam_workers import refuse_remote_workers
from pipeline.wiring.create_pipeline import create_pipeline

_DESCRIPTION = "Trains, evaluates, gates and pushes a segmentation model from a folder of images and masks."
_ENTRY_POINT = ["python", "-m", "pipeline.kubeflow.node"]


def compile_pipeline(config: RunConfig, layers: Layers, defaults: Mapping[str, Any], path: str) -> None:
    """Writes the pipeline as YAML; the same arguments give the same bytes.

    Args:
        config: the configuration that the parameters' defaults give.
        layers: the settings that each run applies over its preset.
        defaults: the parameters' default values; None makes one required.
        path: the file to write, in an existing folder.

    Raises:
        UsageError: a setting for Kubeflow is missing or cannot work.
    """
    config.kubeflow.check_shared(config.serving_dir)
    refuse_remote_workers(config.beam, config.kubeflow.root)
    run = graph(config)
    nodes_of = tasks_of(run.node_ids)
    task_of = {node: task for task, nodes in nodes_of.items() for node in nodes}

    def wire(*values: Any) -> None:
        arguments = {parameter.name: value for parameter, value in zip(PARAMETERS, values, strict=True)}
        tasks: dict[str, dsl.PipelineTask] = {}
        for name, nodes in nodes_of.items():
            upstream = {task_of[other] for node in nodes for other in run.upstream(node)} - {name}
            read = {(node, name_of(output)) for each in nodes for node, output in run.inputs(each)}
            inputs = {key: task_of[node] for node, key in sorted(read) if key in ARTIFACTS[node] and node not in nodes}
            task = _component(name, config.kubeflow.image, layers, defaults, nodes, sorted(inputs))(
                **{parameter: arguments[parameter] for parameter in TASKS[name].parameters},
                **{key: tasks[source].outputs[key] for key, source in inputs.items()},
                **{RUN_ID: dsl.PIPELINE_JOB_ID_PLACEHOLDER},
            )
            task.set_display_name(name).after(*(tasks[other] for other in sorted(upstream)))
            kubernetes_options.apply(task, config.kubeflow.of_task(nodes), config.kubeflow)
            tasks[name] = task

    name = config.project.name
    function = _with_interface(wire, name, [_input(item, defaults[item.name]) for item in PARAMETERS])
    pipeline = dsl.pipeline(name=name, description=_DESCRIPTION)(function)
    compiler.Compiler().compile(pipeline, path)


def graph(config: RunConfig) -> PipelineRun:
    """Returns the nodes of the TFX pipeline of a configuration."""
    # The nodes do not depend on root and data set, which may not be reachable from here. The gate's bounds may name
    # classes of that data set.
    config = config.model_copy(update={"gate": GateSettings()})
    with tempfile.TemporaryDirectory() as folder:
        return PipelineRun(create_pipeline(config, Workdir(folder), built_in("prepped")), "graph")


def _component(
    name: str, image: str, layers: Layers, defaults: Mapping[str, Any], nodes: Sequence[str], inputs: Sequence[str]
) -> Any:
    """Returns the kfp component of one task."""
    used = [item for item in PARAMETERS if item.name in TASKS[name].parameters]
    others = {key: value for key, value in defaults.items() if key not in TASKS[name].parameters}

    def container(*_: Any) -> dsl.ContainerSpec:
        arguments = ["--task", name, "--configuration", json.dumps(layers, sort_keys=True)]
        arguments += ["--defaults", json.dumps(others, sort_keys=True)]
        # The executor input holds the parameters and the paths of the outputs.
        arguments += ["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        return dsl.ContainerSpec(image=image, command=_ENTRY_POINT, args=arguments)

    kinds = {key: kind for declared in ARTIFACTS.values() for key, kind in declared.items()}
    parameters = [_parameter(RUN_ID, str), *(_input(item, None) for item in used)]
    parameters += [_parameter(key, dsl.Input[kinds[key]]) for key in inputs]
    parameters += [_parameter(key, dsl.Output[kind]) for node in nodes for key, kind in ARTIFACTS[node].items()]
    return dsl.container_component(_with_interface(container, name, parameters))


def _with_interface(function: Callable[..., Any], name: str, parameters: list[inspect.Parameter]) -> Any:
    """Gives a function the name, signature and docstring that kfp derives an interface from."""
    lines = [f"    {parameter.name}: {parameter.description}" for parameter in PARAMETERS]
    function.__name__ = name
    function.__doc__ = "\n".join([_DESCRIPTION, "", "Args:", *lines])
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _input(item: Parameter, default: Any) -> inspect.Parameter:
    return _parameter(item.name, item.type, inspect.Parameter.empty if default is None else default)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    # kfp passes values by position, in this order; only keyword parameters may mix those with and without default.
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
