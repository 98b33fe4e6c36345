"""The cluster's API server accepts every manifest of a kind that it knows.

tests/kubernetes_manifests checks the custom kinds against their schemas.
"""

import pytest
import yaml
from real_cluster import until
from rendered import FOLDERS, ROOT

pytestmark = pytest.mark.slow

_KUBEFLOW = ROOT / "kubernetes" / "kubeflow"


def _apply(cluster, documents):
    """Applies the objects to the test's namespace without saving them, except those of operators that are missing."""
    groups = {version.rpartition("/")[0] for version in cluster.kubectl("api-versions").split()}
    known = [
        one | {"metadata": {name: value for name, value in one["metadata"].items() if name != "namespace"}}
        for one in documents
        if one["apiVersion"].rpartition("/")[0] in groups
    ]
    assert known
    cluster.kubectl("apply", "--dry-run=server", "--filename=-", text=yaml.safe_dump_all(known))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_api_server_accepts_what_a_folder_renders(cluster, render, folder):
    _apply(cluster, render(folder))


def test_the_api_server_accepts_the_pipeline_s_manifests(cluster):
    _apply(cluster, [yaml.safe_load(file.read_text()) for file in _KUBEFLOW.glob("*.yaml")])


def test_the_cron_job_runs_and_its_command_calls_kubeflow(cluster, pipeline_image, compiled_file):
    cron_job = yaml.safe_load((_KUBEFLOW / "retrain-cronjob.yaml").read_text())
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
