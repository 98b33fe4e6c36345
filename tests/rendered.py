"""Renders each Kustomize folder once, as `kubectl apply -k` would, and finds its pods."""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "base": "kubernetes/serving/base",
    "local": "kubernetes/serving/overlays/local",
    "cpu": "kubernetes/serving/overlays/cpu",
    "gpu": "kubernetes/serving/overlays/gpu",
    "object-store": "",
    "request-log": "",
    "setup": "kubernetes/serving/setup",
    "release": "kubernetes/serving/release",
    "kserve": "kubernetes/kserve",
}
# Earlier versions lack a Kustomize feature that the folders use.
OLDEST_KUBECTL = (1, 27)
SERVING = ("base", "local", "cpu", "gpu", "object-store", "request-log")


@pytest.fixture(scope="session")
def render(tmp_path_factory):
    """Returns a function that renders a folder by its name; skips the test without a new enough kubectl."""
    if _kubectl_version() < OLDEST_KUBECTL:
        pytest.skip("kubectl is not on the PATH or is too old; 1.27 or newer renders the manifests")

    @functools.cache
    def render_one(name):
        folder = ROOT / FOLDERS[name] if FOLDERS[name] else _with_component(name, tmp_path_factory.mktemp("overlay"))
        done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return render_one


def _kubectl_version():
    """Returns the major and minor version; zeros if kubectl is not installed."""
    if shutil.which("kubectl") is None:
        return (0, 0)
    done = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, check=True)
    version = json.loads(done.stdout)["clientVersion"]
    return int(version["major"]), int(version["minor"].rstrip("+"))


def of_kind(documents, kind, name=None):
    """Returns the documents of a kind, optionally only the one with a name."""
    found = [one for one in documents if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    if name is None:
        return found
    (one,) = found
    return one


def pods(documents):
    """Yields the labels, the spec and the containers of every pod in the documents, init containers first."""
    for document in documents:
        if document["kind"] == "InferenceService":
            labels = {"serving.kserve.io/inferenceservice": document["metadata"]["name"]}
            predictor = document["spec"]["predictor"]
            yield labels, predictor, [predictor["model"]]
        elif "template" in document.get("spec", {}):
            template = document["spec"]["template"]
            spec = template["spec"]
            yield template["metadata"]["labels"], spec, [*spec.get("initContainers", []), *spec["containers"]]


def container(documents, name):
    """Returns the container of a name in the first pod."""
    _, _, containers = next(pods(documents))
    (one,) = (one for one in containers if one["name"] == name)
    return one


def chosen_by(selector, labels):
    """Returns whether a selector's matchLabels match a pod's labels."""
    return selector["matchLabels"].items() <= labels.items()


def _with_component(name, folder):
    """Writes an overlay that adds a component to the overlay `cpu`, as a user would."""
    serving = os.path.relpath(ROOT / "kubernetes" / "serving", folder)
    settings = {"resources": [f"{serving}/overlays/cpu"], "components": [f"{serving}/components/{name}"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(settings))
    return folder
