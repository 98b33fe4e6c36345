"""Every workload satisfies the restricted Pod Security Standard and some further rules."""

import copy

import pytest
from rendered import FOLDERS, chosen_by, of_kind, pods

_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI", "csi", "ephemeral"}
_WORKLOADS = ("base", "local", "cpu", "gpu", "object-store", "request-log", "release", "kserve")

# Kubernetes does not allow probes on an init container, unless it is a sidecar.
_RUN_ONCE = {"copy-models"}


def _violations(pod, containers):
    """Returns a description of each way in which a pod violates the policy."""
    found = []
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        found.append("may run as root")
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("no seccomp profile")
    if pod.get("automountServiceAccountToken") is not False:
        found.append("a token is mounted")
    if pod.get("serviceAccountName", "default") == "default":
        found.append("runs as the default account")
    found += [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    for volume in pod.get("volumes", []):
        found += [f"volume {volume['name']} is a {kind}" for kind in set(volume) - {"name"} - _VOLUMES]
    for container in containers:
        found += _container_violations(container)
    return found


def _container_violations(container):
    found = []
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        found.append("may gain privileges")
    if not security.get("readOnlyRootFilesystem"):
        found.append("the root file system can be written")
    if security.get("capabilities") != {"drop": ["ALL"]}:
        found.append("keeps capabilities")
    resources = container.get("resources", {})
    for side in ("requests", "limits"):
        found += [f"no {side} of {name}" for name in ("cpu", "memory") if name not in resources.get(side, {})]
    if container.get("name") not in _RUN_ONCE:
        found += [f"no {probe}" for probe in ("readinessProbe", "livenessProbe") if probe not in container]
    image = container.get("image", f"runtime:{container.get('runtimeVersion', '')}")
    if image.partition(":")[2] in ("", "latest"):
        found.append(f"{image} is not pinned")
    return found


@pytest.mark.parametrize("folder", _WORKLOADS)
def test_no_workload_violates_the_policy(render, folder):
    found = list(pods(render(folder)))

    assert found
    assert [fault for _, pod, containers in found for fault in _violations(pod, containers)] == []


@pytest.mark.parametrize("folder", _WORKLOADS)
def test_every_pod_has_a_network_policy_for_both_directions(render, folder):
    policies = of_kind(render(folder), "NetworkPolicy")

    for labels, _, _ in pods(render(folder)):
        choosing = [one["spec"] for one in policies if chosen_by(one["spec"]["podSelector"], labels)]
        assert choosing
        for spec in choosing:
            assert spec["policyTypes"] == ["Ingress", "Egress"]
            assert {} not in (spec.get("ingress") or [])
            assert {} not in (spec.get("egress") or [])


@pytest.mark.parametrize("folder", _WORKLOADS)
def test_no_service_account_mounts_its_token_automatically(render, folder):
    accounts = {one["metadata"]["name"]: one for one in of_kind(render(folder), "ServiceAccount")}

    for _, pod, _ in pods(render(folder)):
        assert accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False


def test_the_namespace_enforces_the_restricted_standard(render):
    (namespace,) = of_kind(render("setup"), "Namespace")

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_release_account_has_access_to_one_configmap_only(render):
    (role,) = of_kind(render("release"), "Role")
    (served,) = of_kind(render("setup"), "ConfigMap")

    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [served["metadata"]["name"]],
            "verbs": ["get", "patch"],
        }
    ]


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("securityContext", "runAsNonRoot"), False, "may run as root"),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}, "no seccomp profile"),
        (("automountServiceAccountToken",), True, "a token is mounted"),
        (("serviceAccountName",), "default", "runs as the default account"),
        (("hostNetwork",), True, "hostNetwork is set"),
        (("volumes", 0), {"name": "models", "hostPath": {"path": "/"}}, "volume models is a hostPath"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "may gain privileges"),
        (("containers", 0, "securityContext", "privileged"), True, "may gain privileges"),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False, "the root file system can be written"),
        (("containers", 0, "securityContext", "capabilities"), {"add": ["SYS_ADMIN"]}, "keeps capabilities"),
        (("containers", 0, "resources", "limits"), {"cpu": "1"}, "no limits of memory"),
        (("containers", 0, "image"), "tensorflow/serving:latest", "tensorflow/serving:latest is not pinned"),
        (("containers", 0, "image"), "tensorflow/serving", "tensorflow/serving is not pinned"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_policy_check_finds_each_violation(render, path, value, fault):
    _, sound, _ = next(pods(render("cpu")))
    pod = copy.deepcopy(sound)
    holder = pod
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value

    assert _violations(pod, [*pod["initContainers"], *pod["containers"]]) == [fault]


def test_every_folder_with_workloads_is_checked(render):
    assert [name for name in FOLDERS if any(pods(render(name)))] == list(_WORKLOADS)
