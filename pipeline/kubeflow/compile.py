"""Compiles the TFX pipeline to a Kubeflow Pipelines v2 pipeline: a container task for each node, in the DAG's order.

A task carries no more than its node's name and the compiled configuration; `pipeline.kubeflow.node`
does the rest inside the container.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from kfp import compiler, dsl

from components.dataset.description import built_in
from pipeline.config import RunConfig
from pipeline.create_pipeline import PIPELINE_NAME, create_pipeline
from pipeline.kubeflow import kubernetes_options
from pipeline.kubeflow.outputs import DECLARED
from pipeline.kubeflow.parameters import PARAMETERS, RUN_ID, Layers, Parameter
from pipeline.nodes import PipelineRun
from pipeline.workdir import Workdir

_DESCRIPTION = "Trains, evaluates, gates and pushes a segmentation model from a folder of images and masks."
_ENTRY_POINT = ["python", "-m", "pipeline.kubeflow.node"]


def compile_pipeline(config: RunConfig, layers: Layers, defaults: Mapping[str, Any], path: str) -> None:
    """Writes the pipeline as YAML; the same arguments give the same bytes.

    Args:
        config: the configuration with the parameters' defaults, for everything that is not a parameter.
        layers: the settings that each run lays over its preset.
        defaults: the parameters' default values; None makes one required.
        path: the file to write, in a folder that is there.

    Raises:
        UsageError: a setting for Kubeflow is missing, or a run could not work with it.
    """
    config.kubeflow.check_shared(config.serving_dir)
    graph = upstream_nodes(config)

    def wire(*values: Any) -> None:
        arguments = {parameter.name: value for parameter, value in zip(PARAMETERS, values, strict=True)}
        tasks: dict[str, dsl.PipelineTask] = {}
        for name, upstream in graph.items():
            task = _component(name, config.kubeflow.image, layers)(
                **arguments, **{RUN_ID: dsl.PIPELINE_JOB_ID_PLACEHOLDER}
            )
            task.set_display_name(name).after(*(tasks[other] for other in upstream))
            kubernetes_options.apply(task, name, config.kubeflow)
            tasks[name] = task

    function = _with_interface(wire, PIPELINE_NAME, [_input(item, defaults[item.name]) for item in PARAMETERS])
    pipeline = dsl.pipeline(name=PIPELINE_NAME, description=_DESCRIPTION)(function)
    compiler.Compiler().compile(pipeline, path)


def upstream_nodes(config: RunConfig) -> dict[str, list[str]]:
    """Returns each node of the TFX pipeline with the nodes before it, in an order in which they can run."""
    # Which nodes there are does not depend on root and data set, which need not be reachable from here.
    with tempfile.TemporaryDirectory() as folder:
        run = PipelineRun(create_pipeline(config, Workdir(folder), built_in("prepped")), "graph")
    return {name: sorted(run.upstream(name)) for name in run.node_ids}


def _component(name: str, image: str, layers: Layers) -> Any:
    """Returns the kfp component of one node."""

    def container(*_: Any) -> dsl.ContainerSpec:
        arguments = ["--node", name, "--configuration", json.dumps(layers, sort_keys=True)]
        # Parameters and places for outputs come with it.
        arguments += ["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        return dsl.ContainerSpec(image=image, command=_ENTRY_POINT, args=arguments)

    outputs = [_parameter(output, dsl.Output[kind]) for output, kind in DECLARED.get(name, {}).items()]
    inputs = [_input(item, None) for item in PARAMETERS]
    return dsl.container_component(_with_interface(container, name, [_parameter(RUN_ID, str), *inputs, *outputs]))


def _with_interface(function: Callable[..., Any], name: str, parameters: list[inspect.Parameter]) -> Any:
    """Gives a function the name, signature and docstring that kfp makes an interface of."""
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
