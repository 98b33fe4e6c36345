"""Fixtures for the tests on a real cluster: images, a namespace for each test, and a volume that all pods mount.

The tests run on the cluster of KUBECONFIG. SEGPIPE_PIPELINE_IMAGE, SEGPIPE_SERVING_TOOLS_IMAGE and
SEGPIPE_BEAM_WORKER_IMAGE name the images of `make images`, as the cluster's nodes pull them. The storage class
SEGPIPE_STORAGE_CLASS provisions the volume, as ReadWriteMany. If it is not set, the volume is a folder of the node, and
on a cluster of several nodes the tests are skipped.
"""

import os
import shutil
import uuid

import pytest
from real_cluster import CLAIM, MOUNT, Cluster, until
from rendered import render  # noqa: F401
from typer.testing import CliRunner

from pipeline.cli.main import app

_STORAGE_CLASS = "SEGPIPE_STORAGE_CLASS"


@pytest.fixture(scope="session")
def reachable():
    """Skips the test if KUBECONFIG is not set or kubectl is not installed."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set; these tests need a cluster")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")


@pytest.fixture(scope="session")
def pipeline_image(reachable):
    """Returns the name of the pipeline's image."""
    return _image("SEGPIPE_PIPELINE_IMAGE")


@pytest.fixture(scope="session")
def tools_image(reachable):
    """Returns the name of the image serving-tools."""
    return _image("SEGPIPE_SERVING_TOOLS_IMAGE")


@pytest.fixture(scope="session")
def beam_worker_image(reachable):
    """Returns the name of the image beam-worker."""
    return _image("SEGPIPE_BEAM_WORKER_IMAGE")


def _image(variable):
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set; it names an image of `make images` that the cluster can pull")
    return os.environ[variable]


@pytest.fixture
def cluster(reachable):
    """Creates a namespace for the test, and deletes it afterwards."""
    cluster = Cluster(f"segpipe-test-{uuid.uuid4().hex[:8]}")
    cluster.kubectl("create", "namespace", cluster.namespace)
    # The API server rejects pods until the controllers have created this account.
    until(lambda: cluster.kubectl("get", "serviceaccount", "default", check=False), 60)
    yield cluster
    # Deleting a namespace can take long if it has pods of a failed Job.
    cluster.kubectl("delete", "jobs", "--all", "--wait=false")
    cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false")


@pytest.fixture
def volume(cluster, pipeline_image):
    """Creates the claim, writable for the images' user, and deletes its content after the test."""
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    storage_class = os.environ.get(_STORAGE_CLASS)
    volume = None
    if storage_class:
        claim["storageClassName"] = storage_class
    else:
        cluster.skip_if_several_nodes(f"set {_STORAGE_CLASS} to a storage class that all nodes can mount")
        volume = _folder_of_the_node(cluster.namespace)
        cluster.apply(volume)
        claim |= {"storageClassName": "", "volumeName": volume["metadata"]["name"]}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim})
    cluster.run("prepare", pipeline_image, f"import os; os.chown({MOUNT!r}, 1000, 1000)", user=0)
    yield
    delete = f"import os, shutil\nfor e in os.scandir({MOUNT!r}):\n    shutil.rmtree(e.path)"
    cluster.run("clean", pipeline_image, delete, user=0)
    if volume:
        cluster.kubectl("delete", "persistentvolume", volume["metadata"]["name"], "--wait=false")


def _folder_of_the_node(name):
    spec = {
        "storageClassName": "",
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": f"/var/tmp/{name}", "type": "DirectoryOrCreate"},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def compiled_file(tmp_path, pipeline_image):
    """Compiles the pipeline for the claim, with the secret `segpipe-test`, and returns the file."""
    out = tmp_path / "pipeline.yaml"
    settings = {
        "kubeflow.image": pipeline_image,
        "kubeflow.root": f"{MOUNT}/runs",
        "kubeflow.volumes": f"{{{CLAIM}: {MOUNT}}}",
        "kubeflow.secret_env": "{segpipe-test: {word: SEGPIPE_TEST_WORD}}",
    }
    words = ["kubeflow", "compile", "--data", f"{MOUNT}/data", "--model", "unet", "--preset", "smoke"]
    words += ["--size", "32x48", *(word for item in settings.items() for word in ("--set", "=".join(item)))]
    assert CliRunner().invoke(app, [*words, "--out", str(out)], catch_exceptions=False).exit_code == 0
    return out
