"""The Kubernetes manifests: they parse, fit together, and keep to restricted security."""

from pathlib import Path

import pytest
import yaml

_FOLDER = Path(__file__).parent.parent.parent / "kubernetes"


@pytest.fixture(scope="module")
def manifests():
    text = (_FOLDER / "tensorflow-serving.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_the_service_reaches_the_pods_on_ports_they_open(manifests):
    template = manifests["Deployment"]["spec"]["template"]
    service = manifests["Service"]["spec"]

    assert service["selector"].items() <= template["metadata"]["labels"].items()
    opened = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= opened


def test_the_probes_ask_for_the_model_that_is_served(manifests):
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]

    model = next(word.split("=")[1] for word in container["args"] if word.startswith("--model_name="))
    assert f"--model_base_path=/models/{model}" in container["args"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] == f"/v1/models/{model}"


def test_the_workload_is_restricted(manifests):
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_folder_is_no_package():
    # A package of this name would hide the Kubernetes client that kfp imports.
    assert not (_FOLDER / "__init__.py").exists()
