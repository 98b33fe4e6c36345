"""Compiles the pipeline for Vertex AI with TFX's compiler, and adds what that leaves out.

The compiler drops the defaults of runtime parameters. It also puts TFX's own driver in front of every file-based
ExampleGen, and that driver cannot find this project's splits.
"""

from __future__ import annotations

import json
from typing import Any

import yaml
from tfx import v1 as tfx

# tfx.v1.orchestration.experimental lacks it after import_tfx (pipeline/running/tfx_start.py).
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as compiler

from components import files
from components.errors import UsageError
from pipeline.configuration.config import RunConfig
from pipeline.configuration.data import describe, with_gate_split
from pipeline.configuration.kubeflow import ComponentResources, KubeflowSettings, amount
from pipeline.configuration.loading import field_names
from pipeline.storage.workdir import Workdir
from pipeline.wiring.create_pipeline import Platform, create_pipeline

_EXAMPLE_GEN = "ImageMaskExampleGen"
_DRIVER = ["python", "-m", "pipeline.kubeflow.vertex_driver"]
_DESCRIPTIONS = {
    "trainer": "arguments of the training, JSON: settings of model and training, input size, classes, seed",
    **{name.rpartition(".")[2]: text for name, text, _ in field_names() if name == "data.max_quarantined_fraction"},
    "data": "folder of images and masks, gs://BUCKET/FOLDER, with the layout that was compiled in",
}


def compile_vertex(config: RunConfig, path: str) -> None:
    """Writes the pipeline for Vertex AI; the same arguments give the same bytes.

    The data set is read for its layout and the schema is written below the root, so both must be reachable.

    Args:
        config: every setting.
        path: the file to write: a template in YAML, or a pipeline job if the name ends in `.json`.

    Raises:
        UsageError: a setting is missing, or Vertex AI does not support it.
    """
    _check(config)
    defaults: dict[str, Any] = {}

    def parameter(name: str, value: Any) -> Any:
        # TFX passes everything except numbers as text.
        default = value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
        defaults[name] = default
        return tfx.dsl.experimental.RuntimeParameter(name=name, ptype=type(default), default=default)

    workdir = Workdir(config.kubeflow.root, shared=True)
    description = describe(config.data, config.task, config.model.depth)
    config = with_gate_split(config, description)
    pipeline = create_pipeline(config, workdir, description, Platform(parameter, own_resolver=False))
    settings = compiler.KubeflowV2DagRunnerConfig(default_image=config.kubeflow.image, use_pipeline_spec_2_1=True)
    runner = compiler.KubeflowV2DagRunner(config=settings)
    job = runner.run(pipeline, write_out=False)
    _complete(job["pipelineSpec"], defaults, config)
    as_text = (
        json.dumps(job, indent=2, sort_keys=True) if path.endswith(".json") else yaml.safe_dump(job["pipelineSpec"])
    )
    files.write_bytes(path, as_text.encode())


def _check(config: RunConfig) -> None:
    if not files.is_remote(config.kubeflow.root):
        raise UsageError(f"kubeflow.root: found {config.kubeflow.root!r}, expected gs://BUCKET/FOLDER for Vertex AI")
    if config.serving_dir and not files.is_remote(config.serving_dir):
        raise UsageError(f"serving_dir: found {config.serving_dir!r}, expected gs://BUCKET/FOLDER for Vertex AI")
    if not config.data.dir:
        raise UsageError(
            "--data: found nothing, expected the data set's folder: its layout is compiled in for Vertex AI"
        )
    if config.training.warm_start:
        raise UsageError(
            "training.warm_start: found true, expected false for Vertex AI, which cannot find the model to start "
            "from. Use Kubeflow Pipelines for a warm start"
        )


def _complete(spec: dict[str, Any], defaults: dict[str, Any], config: RunConfig) -> None:
    """Adds defaults, the driver's command, resources and retries, which TFX's compiler leaves out."""
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
    """Adds retries to the tasks that have a container; importers and resolvers have none.

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
    """Returns a component's resources as Vertex AI names them: cores, gigabytes, accelerators."""
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
