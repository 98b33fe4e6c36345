"""Renders the manifests of a multi-worker training, from the configuration of the pipeline.

- A Job (batch/v1) needs no operator: it is indexed, and a headless Service gives its pods stable names.
- A TrainJob (trainer.kubeflow.org/v1alpha1) is for Kubeflow Trainer 2, whose newest release is 2.3. Trainer has no
  runtime for TensorFlow, so a TrainingRuntime comes with the job.
- A TFJob (kubeflow.org/v1) is for the older Training Operator 1.9, which sets `TF_CONFIG` in every pod.

The pods of a Job and of a TrainJob make `TF_CONFIG` from their addresses and indices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml

from components.errors import UsageError
from pipeline.configuration.kubeflow import SHARED_MEMORY, KubeflowSettings
from pipeline.kubeflow.parameters import Layers
from pipeline.kubeflow.training_worker import TRAINER

_PORT = 2222
_COMMAND = ["python", "-m", "pipeline.kubeflow.training_worker"]
# The proxies of a service mesh would intercept the connections between workers.
_OUTSIDE_THE_MESH = {"annotations": {"sidecar.istio.io/inject": "false"}}


def render(
    kind: str, name: str, workers: int, settings: KubeflowSettings, layers: Layers, values: Mapping[str, Any]
) -> str:
    """Returns the manifests as YAML.

    Args:
        kind: `job`, `tfjob` or `trainjob`.
        name: name of the job. The run in the metadata is named after it and a hash of settings and parameters.
        workers: number of pods, the chief included.
        settings: image, resources, volumes and secrets.
        layers: settings that the pipeline is compiled with, with their sources.
        values: the pipeline's parameters by name.

    Raises:
        UsageError: the kind is unknown, or a setting or the data folder is missing.
    """
    kinds = {"job": _job, "tfjob": _tfjob, "trainjob": _trainjob}
    if kind not in kinds:
        raise UsageError(f"--kind {kind}: expected one of {', '.join(kinds)}")
    settings.check_shared()
    if values["data"] is None:
        raise UsageError("--data: found nothing, expected the data folder, as the pods see it")
    arguments = ["--configuration", json.dumps(layers, sort_keys=True)]
    arguments += ["--parameters", json.dumps(dict(values), sort_keys=True)]
    arguments = ["--run-id", f"{name}-{_digest(arguments)}", *arguments]
    manifests = kinds[kind](name, workers, settings, arguments)
    # Through JSON, so that YAML has no anchors and aliases.
    return yaml.safe_dump_all(json.loads(json.dumps(manifests)), sort_keys=False, width=1000)


def _digest(arguments: list[str]) -> str:
    """Returns eight digits of a hash; other settings need another run, because a run skips its finished nodes."""
    return hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:8]


def _job(name: str, workers: int, settings: KubeflowSettings, arguments: list[str]) -> list[dict[str, Any]]:
    # The host names of an indexed Job's pods, in the subdomain of the Service.
    addresses = ",".join(f"{name}-{index}.{name}:{_PORT}" for index in range(workers))
    container = _container("worker", "tensorflow", settings, [*arguments, "--workers", addresses])
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "None",
            # Workers connect to each other before they are ready.
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name},
            "ports": [{"name": "tensorflow", "port": _PORT}],
        },
    }
    spec = {
        "completionMode": "Indexed",
        "completions": workers,
        "parallelism": workers,
        # If a worker is lost, all workers fail once and restart: a retry of the training is a retry of each worker.
        "backoffLimitPerIndex": settings.retries,
        # The others would wait forever for a worker that is not restarted.
        "maxFailedIndexes": 0,
        # The replacement of a drained or preempted pod is no retry.
        "podFailurePolicy": {
            "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "template": {
            "metadata": _OUTSIDE_THE_MESH,
            "spec": {"restartPolicy": "Never", "subdomain": name, **_pod(settings, container)},
        },
        **_deadline(settings),
    }
    return [service, {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}]


def _deadline(settings: KubeflowSettings) -> dict[str, int]:
    timeout = settings.of_component(TRAINER).timeout
    return {"activeDeadlineSeconds": timeout} if timeout else {}


def _tfjob(name: str, workers: int, settings: KubeflowSettings, arguments: list[str]) -> list[dict[str, Any]]:
    # The operator requires these names of the container and its port.
    container = _container("tensorflow", "tfjob-port", settings, arguments)
    template = {"metadata": _OUTSIDE_THE_MESH, "spec": _pod(settings, container)}
    replicas = {"Chief": 1, **({"Worker": workers - 1} if workers > 1 else {})}
    specs = {
        role: {"replicas": count, "restartPolicy": "OnFailure", "template": template}
        for role, count in replicas.items()
    }
    run_policy = {"cleanPodPolicy": "Running", "backoffLimit": settings.retries, **_deadline(settings)}
    return [
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "TFJob",
            "metadata": {"name": name},
            "spec": {"runPolicy": run_policy, "tfReplicaSpecs": specs},
        }
    ]


def _trainjob(name: str, workers: int, settings: KubeflowSettings, arguments: list[str]) -> list[dict[str, Any]]:
    # The host names of a JobSet's pods, in the subdomain of its Service, which has the JobSet's name.
    addresses = ",".join(f"{name}-node-0-{index}.{name}:{_PORT}" for index in range(workers))
    container = _container("node", "tensorflow", settings, [*arguments, "--workers", addresses])
    pod = {"restartPolicy": "OnFailure", **_pod(settings, container)}
    runtime = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": name, "labels": {"trainer.kubeflow.org/framework": "tensorflow"}},
        "spec": {
            "mlPolicy": {"numNodes": workers},
            "template": {
                "spec": {
                    # Workers connect to each other before they are ready.
                    "network": {"publishNotReadyAddresses": True},
                    "failurePolicy": {"maxRestarts": settings.retries},
                    "replicatedJobs": [
                        {
                            "name": "node",
                            "template": {
                                "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                                "spec": {"template": {"spec": pod}},
                            },
                        }
                    ],
                }
            },
        },
    }
    job = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": name},
            "trainer": {"numNodes": workers},
            **_deadline(settings),
        },
    }
    return [runtime, job]


def _container(name: str, port: str, settings: KubeflowSettings, arguments: list[str]) -> dict[str, Any]:
    resources = settings.of_component(TRAINER)
    amounts = {"cpu": resources.cpu, "memory": resources.memory}
    limits: dict[str, Any] = {key: amount for key, amount in amounts.items() if amount}
    if resources.gpus:
        limits[resources.gpu_kind] = resources.gpus
    container: dict[str, Any] = {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": _COMMAND,
        "args": arguments,
        "ports": [{"name": port, "containerPort": _PORT}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if limits:
        container["resources"] = {"requests": limits, "limits": limits}
    variables: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in sorted(settings.env.items())]
    for secret, keys in sorted(settings.secret_env.items()):
        variables += [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for key, variable in sorted(keys.items())
        ]
    if variables:
        container["env"] = variables
    mounts = {**settings.volumes, **settings.secret_volumes, SHARED_MEMORY["name"]: SHARED_MEMORY["path"]}
    container["volumeMounts"] = [{"name": source, "mountPath": path} for source, path in sorted(mounts.items())]
    return container


def _pod(settings: KubeflowSettings, container: dict[str, Any]) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in sorted(settings.volumes)
    ]
    volumes += [{"name": secret, "secret": {"secretName": secret}} for secret in sorted(settings.secret_volumes)]
    memory = {"medium": SHARED_MEMORY["medium"], "sizeLimit": SHARED_MEMORY["size"]}
    volumes.append({"name": SHARED_MEMORY["name"], "emptyDir": memory})
    optional = {
        "serviceAccountName": settings.service_account,
        "nodeSelector": settings.of_component(TRAINER).node_selector,
        "tolerations": [
            {key: value for key, value in toleration.model_dump().items() if value}
            for toleration in settings.tolerations
        ],
    }
    return {
        "automountServiceAccountToken": bool(settings.service_account),
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
        **{key: value for key, value in optional.items() if value},
    }
