"""Applies the settings for Kubernetes to a task: resources, nodes, volumes, secrets, retries and timeout."""

from __future__ import annotations

from kfp import dsl, kubernetes

from pipeline.configuration.kubeflow import SHARED_MEMORY, ComponentResources, KubeflowSettings


def apply(task: dsl.PipelineTask, resources: ComponentResources, settings: KubeflowSettings) -> None:
    """Applies the settings of all tasks, and the resources of this one, to a task in place."""
    # Only TFX's cache is used.
    task.set_caching_options(False)
    if settings.retries:
        task.set_retry(
            settings.retries,
            backoff_duration=f"{settings.retry_wait}s",
            backoff_factor=settings.retry_factor,
            backoff_max_duration=f"{settings.retry_max_wait}s",
        )
    # Requests equal limits, so that a pod is not evicted for what it uses.
    if resources.cpu:
        task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    if resources.memory:
        task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.gpus:
        task.set_accelerator_type(resources.gpu_kind).set_accelerator_limit(resources.gpus)
        memory = SHARED_MEMORY
        kubernetes.empty_dir_mount(task, memory["name"], memory["path"], memory["medium"], memory["size"])
    for variable, value in sorted(settings.env.items()):
        task.set_env_variable(variable, value)
    for label, value in sorted(resources.node_selector.items()):
        kubernetes.add_node_selector(task, label, value)
    for claim, path in sorted(settings.volumes.items()):
        kubernetes.mount_pvc(task, claim, path)
    for secret, variables in sorted(settings.secret_env.items()):
        kubernetes.use_secret_as_env(task, secret, dict(sorted(variables.items())))
    for secret, path in sorted(settings.secret_volumes.items()):
        kubernetes.use_secret_as_volume(task, secret, path)
    for toleration in settings.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    kubernetes.set_image_pull_policy(task, settings.image_pull_policy)
    if resources.timeout:
        kubernetes.set_timeout(task, resources.timeout)
