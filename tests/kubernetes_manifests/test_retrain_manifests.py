"""The CronJob that retrains: valid, restricted, never overlapping, and a command line that exists."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

_FOLDER = Path(__file__).parent.parent.parent / "kubernetes" / "kubeflow"


@pytest.fixture(scope="module")
def cron_job():
    return yaml.safe_load((_FOLDER / "retrain-cronjob.yaml").read_text())


@pytest.fixture(scope="module")
def pod(cron_job):
    return cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_the_manifest_is_valid(cron_job):
    kubernetes_validate.validate(cron_job, "1.31", strict=True)


def test_submissions_never_overlap(cron_job, pod):
    assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"
    assert "--no-overlap" in pod["containers"][0]["args"]


def test_the_pod_is_restricted(pod):
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_every_file_that_the_command_reads_is_mounted(pod):
    (container,) = pod["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}

    for option in ("--pipeline=", "--token-file="):
        (path,) = (word.removeprefix(option) for word in container["args"] if word.startswith(option))
        assert str(Path(path).parent) in mounts
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_command_is_one_of_segpipe_s(pod):
    import inspect

    from pipeline.cli import kubeflow_runs

    (container,) = pod["containers"]
    assert container["command"] == ["segpipe", "kubeflow", "submit"]
    options = {word.split("=")[0] for word in container["args"]} - {"--param"}
    names = {f"--{name.replace('_', '-')}" for name in inspect.signature(kubeflow_runs.submit).parameters}
    assert options <= names
