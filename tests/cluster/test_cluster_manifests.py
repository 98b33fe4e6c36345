"""The cluster's API server accepts every manifest of a kind that it knows.

tests/kubernetes_manifests checks the other custom resources against their schemas.
"""

import subprocess
from pathlib import Path

import pytest
import yaml
from real_cluster import until

pytestmark = pytest.mark.slow

_KUBERNETES = Path(__file__).parents[2] / "kubernetes"
_FOLDERS = ("serving/setup", "serving/base", "serving/overlays/local", "serving/overlays/cpu", "serving/overlays/gpu")
_CRON_JOB = _KUBERNETES / "kubeflow" / "retrain-cronjob.yaml"


def _into(cluster, document):
    """Moves an object to the test's namespace."""
    if "namespace" in document["metadata"]:
        document["metadata"]["namespace"] = cluster.namespace
    return document


@pytest.mark.parametrize("folder", [*_FOLDERS, "serving/release", "kserve"])
def test_the_api_server_accepts_what_a_folder_renders(cluster, folder):
    command = ["kubectl", "kustomize", str(_KUBERNETES / folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = set(cluster.kubectl("api-resources", "--output=name").split())
    # The API server has no resources in the group of an operator that is not installed.
    groups = {name.partition(".")[2] for name in known}
    documents = [_into(cluster, one) for one in yaml.safe_load_all(rendered)]
    own = [one for one in documents if one["apiVersion"].rpartition("/")[0] in groups]

    assert own
    cluster.kubectl("apply", "--dry-run=server", "--filename=-", text=yaml.safe_dump_all(own))


def test_the_cron_job_runs_and_its_command_calls_kubeflow(cluster, pipeline_image, compiled_file):
    cron_job = yaml.safe_load(_CRON_JOB.read_text())
    cron_job["spec"] |= {"schedule": "* * * * *", "timeZone": "Etc/UTC"}
    (container,) = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    container["image"] = pipeline_image
    cluster.kubectl("create", "configmap", "segpipe-pipeline", f"--from-file=pipeline.yaml={compiled_file}")

    cluster.apply(cron_job)
    (pod, *_) = until(lambda: _ended_pods(cluster), 240, lambda: cluster.kubectl("describe", "pods"))

    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "segpipe-retrain"
    # Kubeflow need not be installed: the command reads the pipeline and the token, and then tries to connect.
    (host,) = (word.removeprefix("--host=") for word in container["args"] if word.startswith("--host="))
    log = cluster.kubectl("logs", pod["metadata"]["name"])
    assert host in log, log


def _ended_pods(cluster):
    return [one for one in cluster.get("pods")["items"] if one["status"]["phase"] in ("Succeeded", "Failed")]
