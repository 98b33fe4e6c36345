"""Settings of a run on Kubeflow: where its tasks run, with what, and where their results and metadata go.

Nothing here imports TFX, kfp or Kubernetes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal, cast

from pydantic import Field, model_validator

from components import files
from components.errors import UsageError
from components.settings import Settings

# The pipeline's nodes, as TFX names them; which of them a run has is for its settings to say.
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

# Of Kubernetes' quantities, those that kfp takes too.
_CORES = r"^$|^\d+(\.\d+)?$|^\d+m$"
_BYTES = r"^$|^\d+(Ki|[MGTPE]i?)?$"

_UNITS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("MGTPE", start=2)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)},
}

# NCCL does not start if /dev/shm is too small, and a container's own has 64 MiB. NVIDIA advises --shm-size=1g:
# docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/runtime_and_mpi_issues.html. What it holds counts as
# memory of the pod.
SHARED_MEMORY = {"name": "segpipe-dev-shm", "path": "/dev/shm", "medium": "Memory", "size": "1Gi"}


class MetadataSettings(Settings):
    """Which ML Metadata store keeps executions, artifacts and the cache."""

    kind: Literal["sqlite", "mysql", "postgresql", "grpc"] = Field(
        "sqlite", description="store: a file on one machine, a database (mysql is MariaDB too), or a metadata service"
    )
    path: str = Field("", description="file of an sqlite store; ROOT/metadata.sqlite where empty")
    host: str = Field("", description="host of a database or service")
    port: int = Field(0, ge=0, le=65535, description="its port; 0 for the kind's own: 3306, 5432 or 8080")
    database: str = Field("segpipe", description="name of the database")
    user: str = Field("", description="user of the database")
    password_env: str = Field(
        "SEGPIPE_METADATA_PASSWORD", description="environment variable that holds the database's password"
    )
    tls_ca: str = Field("", description="file of certificates that a service's must be signed by; turns TLS on")
    tls_cert: str = Field("", description="file of the client's certificate, if the service asks for one")
    tls_key: str = Field("", description="file of its private key")

    @model_validator(mode="after")
    def _tls_where_it_protects(self) -> MetadataSettings:
        """Refuses TLS to databases.

        Of ML Metadata 1.16 and 1.21, the PostgreSQL client has no TLS ("SSL support is not compiled in"). The MySQL
        client takes any certificate, goes on unencrypted if the server has no TLS, and never connects with
        `verify_server_cert`.
        """
        if self.tls_ca and self.kind != "grpc":
            raise ValueError(
                f"found tls_ca with kind={self.kind}, expected kind=grpc: ML Metadata's clients of databases cannot "
                "check a server's certificate. Encrypt the network instead, with a service mesh or a tunnel in the pod"
            )
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_cert and not self.tls_ca):
            raise ValueError("found some of tls_ca, tls_cert and tls_key, expected tls_ca alone or all three")
        return self

    @model_validator(mode="after")
    def _host_of_a_service(self) -> MetadataSettings:
        if self.kind != "sqlite" and not self.host:
            raise ValueError(
                f"found kind={self.kind} without a host, expected the host of the store. Set kubeflow.metadata.host, "
                "or kubeflow.metadata.kind=sqlite for a file on one machine"
            )
        return self


class Toleration(Settings):
    """A taint that the pods of a run put up with, in Kubernetes' words."""

    key: str = Field("", description="the taint's key; empty with Exists for all")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="whether the value must be equal too")
    value: str = Field("", description="the taint's value")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "", description="the taint's effect; empty for all"
    )


class ComponentResources(Settings):
    """What the pod of one component gets; an empty value takes the one of all components."""

    cpu: str = Field("", pattern=_CORES, description="processor cores, as 4 or 500m")
    memory: str = Field("", pattern=_BYTES, description="memory, as 16Gi")
    gpus: int = Field(0, ge=0, description="number of GPUs")
    gpu_kind: str = Field(
        "nvidia.com/gpu", description="the GPU's resource name; on Vertex AI its type, as NVIDIA_TESLA_T4"
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of the nodes, besides those of all")
    timeout: int | None = Field(None, ge=0, description="seconds the task may take, 0 for no bound")


class KubeflowSettings(Settings):
    """How the tasks of a run look to Kubernetes, and what they share."""

    image: str = Field("registry.example.com/segpipe/pipeline:0.2.0", description="container image of every task")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="when Kubernetes pulls the image"
    )
    root: str = Field("", description="folder of results that all tasks share: on a mounted volume, gs:// or s3://")
    service_account: str = Field(
        "", description="service account of a multi-worker training's pods; a run names its own when it is submitted"
    )
    cpu: str = Field("", pattern=_CORES, description="processor cores of a task, as 4 or 500m; no bound where empty")
    memory: str = Field("", pattern=_BYTES, description="memory of a task, as 8Gi; no bound where empty")
    components: dict[Node, ComponentResources] = Field(
        default_factory=dict,
        description="cpu, memory, gpus, gpu_kind, node_selector and timeout of single components by name",
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels that a task's node must have")
    tolerations: tuple[Toleration, ...] = Field(
        (), description="taints that tasks tolerate: key, operator, value, effect"
    )
    volumes: dict[str, str] = Field(
        default_factory=dict, description="persistent volume claims and where to mount them"
    )
    env: dict[str, str] = Field(default_factory=dict, description="environment variables of every task")
    secret_env: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Kubernetes secrets: environment variable by key of the secret"
    )
    secret_volumes: dict[str, str] = Field(
        default_factory=dict, description="Kubernetes secrets and where to mount them as files"
    )
    retries: int = Field(2, ge=0, description="how often a failed task is tried again")
    retry_wait: int = Field(60, ge=0, description="seconds before the first retry")
    retry_factor: float = Field(2.0, ge=1, description="growth of the wait from one retry to the next")
    retry_max_wait: int = Field(3600, ge=0, le=3600, description="longest wait, in seconds, an hour at most")
    timeout: int = Field(0, ge=0, description="seconds a task may take, 0 for no bound")
    metadata: MetadataSettings = Field(default_factory=MetadataSettings)

    def check_shared(self, serving_dir: str = "") -> None:
        """Checks that what the tasks of a run write is where all of them find it, and where it outlives them.

        Args:
            serving_dir: where models are pushed; empty for a folder of the root.

        Raises:
            UsageError: a folder is missing, inside a container, or of a kind that the metadata store cannot be kept on.
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
                    f"{name}: found {path!r}, which each container would have for itself; expected an absolute path "
                    "on a volume that kubeflow.volumes mounts, or gs:// or s3://"
                )
        if self.metadata.kind == "sqlite" and files.is_remote(self.metadata.path or self.root):
            raise UsageError(
                f"kubeflow.metadata: found an sqlite file on {self.metadata.path or self.root}, where none can be "
                "opened; expected a store that all tasks reach. Set kubeflow.metadata.kind=mysql and "
                "kubeflow.metadata.host, or kubeflow.metadata.path to a file on a volume"
            )

    def of_component(self, name: str) -> ComponentResources:
        """Returns what one component's pod gets, the values of all components filled in."""
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
        """Returns what the pod of a task gets: the largest of what each of its nodes wants.

        Raises:
            UsageError: the nodes want different labels of a Kubernetes node, or different kinds of GPUs.
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
        timeouts = [resources.timeout or 0 for resources in wanted.values()]
        return ComponentResources(
            cpu=max((resources.cpu for resources in wanted.values()), key=amount),
            memory=max((resources.memory for resources in wanted.values()), key=amount),
            gpus=max(resources.gpus for resources in wanted.values()),
            gpu_kind=next(iter(kinds), "nvidia.com/gpu"),
            node_selector=selector,
            timeout=max(timeouts) if all(timeouts) else 0,
        )

    @staticmethod
    def _conflict(name: str, field: str, found: str, expected: str, nodes: Sequence[str]) -> UsageError:
        return UsageError(
            f"kubeflow.components.{name}.{field}: found {found}, expected {expected}, because "
            f"{', '.join(nodes)} share a task; give them the same"
        )


def amount(quantity: str) -> float:
    """Reads a quantity of Kubernetes, as 500m or 16Gi, in cores or bytes; 0 if it is empty."""
    found = re.fullmatch(r"([\d.]+)([A-Za-z]*)", quantity)
    if found is None:
        return 0.0
    value, unit = found.groups()
    return float(value) / 1000 if unit == "m" else float(value) * _UNITS[unit]
