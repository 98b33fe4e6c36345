"""Settings of a run on Kubeflow: resources of its tasks, and where results and metadata are stored.

Nothing here imports TFX, kfp or Kubernetes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal, cast

from pydantic import Field

from components import files
from components.errors import UsageError
from components.settings import Settings
from pipeline.storage.settings import MetadataSettings

# The pipeline's nodes, as TFX names them. A run has a subset of them, which depends on its settings.
Node = Literal[
    "ImageMaskExampleGen",
    "QuarantineGate",
    "ImportSchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "AnomalyGate",
    "Transform",
    "StartResolver",
    "Trainer",
    "Optimizer",
    "BaselineResolver",
    "Evaluator",
    "Pusher",
    "Report",
]

# The quantities of Kubernetes that kfp accepts too.
_CORES = r"^$|^\d+(\.\d+)?$|^\d+m$"
_BYTES = r"^$|^\d+(Ki|[MGTPE]i?)?$"

_UNITS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("MGTPE", start=2)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)},
}

# NCCL does not start if /dev/shm is too small. A container's default is 64 MiB; NVIDIA recommends --shm-size=1g:
# docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/runtime_and_mpi_issues.html. Its content counts as
# memory of the pod.
SHARED_MEMORY = {"name": "segpipe-dev-shm", "path": "/dev/shm", "medium": "Memory", "size": "1Gi"}


class Toleration(Settings):
    """A Kubernetes toleration of the pods of a run."""

    key: str = Field("", description="key of the taint; empty, with Exists, for all taints")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Equal compares the value too")
    value: str = Field("", description="value of the taint")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "", description="effect of the taint; empty for all effects"
    )


class ComponentResources(Settings):
    """The resources of one component's pod; an empty value inherits the setting of all components."""

    cpu: str = Field("", pattern=_CORES, description="CPU cores, such as 4 or 500m")
    memory: str = Field("", pattern=_BYTES, description="memory, such as 16Gi")
    gpus: int = Field(0, ge=0, description="number of GPUs")
    gpu_kind: str = Field(
        "nvidia.com/gpu", description="resource name of the GPUs; on Vertex AI their type, such as NVIDIA_TESLA_T4"
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="additional labels of the nodes")
    timeout: int | None = Field(None, ge=0, description="longest time of the task, in seconds; 0 for no limit")


class KubeflowSettings(Settings):
    """The Kubernetes options of a run's tasks, and the storage that the tasks share."""

    image: str = Field("registry.example.com/segpipe/pipeline:0.2.0", description="container image of every task")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="when Kubernetes pulls the image"
    )
    root: str = Field("", description="folder of results, shared by all tasks: on a mounted volume, gs:// or s3://")
    service_account: str = Field(
        "",
        description="service account of the pods of a multi-worker training; the run's own is set when it is submitted",
    )
    cpu: str = Field("", pattern=_CORES, description="CPU cores of a task, such as 4 or 500m; if empty, no limit")
    memory: str = Field("", pattern=_BYTES, description="memory of a task, such as 8Gi; if empty, no limit")
    components: dict[Node, ComponentResources] = Field(
        default_factory=dict,
        description="cpu, memory, gpus, gpu_kind, node_selector and timeout by component name",
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of the nodes that tasks run on")
    tolerations: tuple[Toleration, ...] = Field(
        (), description="tolerations of the tasks: key, operator, value, effect"
    )
    volumes: dict[str, str] = Field(
        default_factory=dict, description="persistent volume claims to mount: {CLAIM: PATH}"
    )
    env: dict[str, str] = Field(default_factory=dict, description="environment variables of every task")
    secret_env: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="environment variables from Kubernetes secrets: {SECRET: {KEY: VARIABLE}}",
    )
    secret_volumes: dict[str, str] = Field(
        default_factory=dict, description="Kubernetes secrets to mount as files: {SECRET: PATH}"
    )
    retries: int = Field(2, ge=0, description="number of retries of a failed task")
    retry_wait: int = Field(60, ge=0, description="wait before the first retry, in seconds")
    retry_factor: float = Field(2.0, ge=1, description="factor by which the wait grows with each retry")
    retry_max_wait: int = Field(3600, ge=0, le=3600, description="longest wait, in seconds; at most 3600")
    timeout: int = Field(0, ge=0, description="longest time of a task, in seconds; 0 for no limit")
    metadata: MetadataSettings = Field(default_factory=MetadataSettings)

    def check_shared(self, serving_dir: str = "") -> None:
        """Checks that all tasks of a run can reach the folders that they share, and that these outlive the tasks.

        Raises:
            UsageError: a folder is missing or inside a container, or an SQLite file would be on an object store.
        """
        if not self.root:
            raise UsageError(
                "kubeflow.root: found nothing, expected a folder that all tasks share: one on a volume "
                "(kubeflow.volumes mounts it), gs:// or s3://. Set it with --set kubeflow.root=/mnt/segpipe"
            )
        places = {"kubeflow.root": self.root, "serving_dir": serving_dir, "kubeflow.metadata.path": self.metadata.path}
        for name, path in places.items():
            files.refuse_pattern(name, path)
            if path and not files.is_remote(path) and not os.path.isabs(path):
                raise UsageError(
                    f"{name}: found {path!r}, which is a different folder in each container; expected an absolute path "
                    "on a volume that kubeflow.volumes mounts, or gs:// or s3://"
                )
        if self.metadata.kind == "sqlite" and files.is_remote(self.metadata.path or self.root):
            raise UsageError(
                f"kubeflow.metadata: found an sqlite file on {self.metadata.path or self.root}, which SQLite cannot "
                "open; expected a store that all tasks reach. Set kubeflow.metadata.kind=mysql and "
                "kubeflow.metadata.host, or kubeflow.metadata.path to a file on a volume"
            )

    def of_component(self, name: str) -> ComponentResources:
        """Returns the resources of one component's pod, with empty values inherited from all components."""
        own = self.components.get(cast(Node, name), ComponentResources())
        return own.model_copy(
            update={
                "cpu": own.cpu or self.cpu,
                "memory": own.memory or self.memory,
                "node_selector": {**self.node_selector, **own.node_selector},
                "timeout": self.timeout if own.timeout is None else own.timeout,
            }
        )

    def of_task(self, nodes: Sequence[str]) -> ComponentResources:
        """Returns the resources of a task's pod: the largest value of its nodes.

        Raises:
            UsageError: the nodes select different Kubernetes nodes, or different kinds of GPUs.
        """
        wanted = {name: self.of_component(name) for name in nodes}
        selector: dict[str, str] = {}
        for name, resources in wanted.items():
            for label, value in resources.node_selector.items():
                if selector.setdefault(label, value) != value:
                    raise self._conflict(name, "node_selector", f"{label}={value}", f"{label}={selector[label]}", nodes)
        kinds = {resources.gpu_kind: name for name, resources in wanted.items() if resources.gpus}
        if len(kinds) > 1:
            first, (kind, name) = next(iter(kinds)), list(kinds.items())[-1]
            raise self._conflict(name, "gpu_kind", kind, first, nodes)
        # A limit of 0 counts only if it is a node's own: kubeflow.timeout is 0 if nobody sets it.
        unlimited = any(own.timeout == 0 for name, own in self.components.items() if name in nodes)
        return ComponentResources(
            cpu=max((resources.cpu for resources in wanted.values()), key=amount),
            memory=max((resources.memory for resources in wanted.values()), key=amount),
            gpus=max(resources.gpus for resources in wanted.values()),
            gpu_kind=next(iter(kinds), "nvidia.com/gpu"),
            node_selector=selector,
            timeout=0 if unlimited else max(resources.timeout or 0 for resources in wanted.values()),
        )

    @staticmethod
    def _conflict(name: str, field: str, found: str, expected: str, nodes: Sequence[str]) -> UsageError:
        return UsageError(
            f"kubeflow.components.{name}.{field}: found {found}, expected {expected}, because "
            f"{', '.join(nodes)} share a task; give them the same"
        )


def amount(quantity: str) -> float:
    """Reads a Kubernetes quantity, such as 500m or 16Gi, in cores or bytes; 0 if it is empty."""
    found = re.fullmatch(r"([\d.]+)([A-Za-z]*)", quantity)
    if found is None:
        return 0.0
    value, unit = found.groups()
    return float(value) / 1000 if unit == "m" else float(value) * _UNITS[unit]
