"""Compiles the pipeline for Vertex AI with TFX's own compiler, and mends what that leaves out.

It drops the defaults of runtime parameters, and runs TFX's driver in front of any file-based
ExampleGen, which does not know how this project finds its splits.
"""

from __future__ import annotations

import json
from typing import Any

import yaml
from tfx import v1 as tfx

# Not by tfx.v1.orchestration.experimental, which lacks it after import_tfx (pipeline/running/tfx_start.py).
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as compiler

from components import files
from components.errors import UsageError
from pipeline.configuration.config import RunConfig, describe, field_names, with_gate_split
from pipeline.configuration.kubeflow import ComponentResources, KubeflowSettings, amount
from pipeline.storage.workdir import Workdir
from pipeline.wiring.create_pipeline import Platform, create_pipeline

_EXAMPLE_GEN = "ImageMaskExampleGen"
_DRIVER = ["python", "-m", "pipeline.kubeflow.vertex_driver"]
_DESCRIPTIONS = {
    "trainer": "what the training is told, JSON: settings of model and training, input size, classes, seed",
    **{name.rpartition(".")[2]: text for name, text, _ in field_names() if name == "data.max_quarantined_fraction"},
    "data": "folder of images and masks, gs://, of the layout that was compiled in",
}


def compile_vertex(config: RunConfig, path: str) -> None:
    """Writes the pipeline for Vertex AI; the same arguments give the same bytes.

    The data set is read for its layout and the schema is written below the root, so both must be reachable.

    Args:
        config: every setting.
        path: the file to write: a template in YAML, or a pipeline job where the name ends in `.json`.

    Raises:
        UsageError: a setting is missing, or Vertex AI has nothing like it.
    """
    _check(config)
    parameters = _Parameters()
    workdir = Workdir(config.kubeflow.root, shared=True)
    description = describe(config.data, config.task, config.model.depth)
    config = with_gate_split(config, description)
    pipeline = create_pipeline(config, workdir, description, Platform(parameters.take, own_resolver=False))
    settings = compiler.KubeflowV2DagRunnerConfig(default_image=config.kubeflow.image, use_pipeline_spec_2_1=True)
    runner = compiler.KubeflowV2DagRunner(config=settings)
    job = runner.run(pipeline, write_out=False)
    _mend(job["pipelineSpec"], parameters.taken, config)
    as_text = (
        json.dumps(job, indent=2, sort_keys=True) if path.endswith(".json") else yaml.safe_dump(job["pipelineSpec"])
    )
    files.write_bytes(path, as_text.encode())


class _Parameters:
    """Makes runtime parameters and remembers them, with their defaults."""

    def __init__(self) -> None:
        self.taken: dict[str, Any] = {}

    def take(self, name: str, value: Any) -> Any:
        """Returns a runtime parameter for a value; TFX passes everything but numbers as text."""
        default = value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
        self.taken[name] = default
        return tfx.dsl.experimental.RuntimeParameter(name=name, ptype=type(default), default=default)


def _check(config: RunConfig) -> None:
    if not files.is_remote(config.kubeflow.root):
        raise UsageError(f"kubeflow.root: found {config.kubeflow.root!r}, expected gs://BUCKET/FOLDER for Vertex AI")
    if config.serving_dir and not files.is_remote(config.serving_dir):
        raise UsageError(f"serving_dir: found {config.serving_dir!r}, expected gs://BUCKET/FOLDER for Vertex AI")
    if not config.data.dir:
        raise UsageError(
            "--data: found nothing, expected the data set's folder: Vertex AI's pipeline has its layout in it"
        )
    if config.training.warm_start:
        raise UsageError(
            "training.warm_start: found true, expected false for Vertex AI, which cannot look for the model to start "
            "from. Start it on Kubeflow Pipelines"
        )


def _mend(spec: dict[str, Any], defaults: dict[str, Any], config: RunConfig) -> None:
    """Adds to a compiled pipeline what TFX's compiler leaves out."""
    declared = spec["root"]["inputDefinitions"]["parameters"]
    for name, default in defaults.items():
        declared[name].update(defaultValue=default, isOptional=True, description=_DESCRIPTIONS[name])
    executors = spec["deploymentSpec"]["executors"]
    executors[f"{_EXAMPLE_GEN}_executor"]["container"]["lifecycle"]["preCacheCheck"]["command"] = _DRIVER
    for name in spec["components"]:
        container = executors.get(f"{name}_executor", {}).get("container")
        if container and (resources := _resources(name, config.kubeflow.of_component(name))):
            container["resources"] = resources
    _add_retries(spec, config.kubeflow)


def _add_retries(spec: dict[str, Any], settings: KubeflowSettings) -> None:
    """Lets tasks be tried again; importers and resolvers have no container and no retries.

    The fields are those of `PipelineTaskSpec.RetryPolicy` in kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto.
    """
    if not settings.retries:
        return
    executors = spec["deploymentSpec"]["executors"]
    for task in spec["root"]["dag"]["tasks"].values():
        executor = spec["components"][task["componentRef"]["name"]].get("executorLabel", "")
        if "container" in executors.get(executor, {}):
            task["retryPolicy"] = {
                "maxRetryCount": settings.retries,
                "backoffDuration": f"{settings.retry_wait}s",
                "backoffFactor": settings.retry_factor,
                "backoffMaxDuration": f"{settings.retry_max_wait}s",
            }


def _resources(name: str, wanted: ComponentResources) -> dict[str, Any]:
    """Returns Vertex AI's words for what a component gets: cores, gigabytes, accelerators."""
    resources: dict[str, Any] = {}
    if wanted.cpu:
        resources["cpuLimit"] = amount(wanted.cpu)
    if wanted.memory:
        resources["memoryLimit"] = amount(wanted.memory) / 1e9
    if wanted.gpus:
        if "/" in wanted.gpu_kind:
            raise UsageError(
                f"kubeflow.components.{name}.gpu_kind: found {wanted.gpu_kind!r}, expected Vertex AI's name of a GPU, "
                "such as NVIDIA_TESLA_T4"
            )
        resources["accelerator"] = {"type": wanted.gpu_kind, "count": str(wanted.gpus)}
    return resources
