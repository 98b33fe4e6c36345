"""The CronJob that retrains: restricted, never overlapping, with an existing image and command."""

import re
from pathlib import Path

import pytest
import yaml

_ROOT = Path(__file__).parent.parent.parent
_FOLDER = _ROOT / "kubernetes" / "kubeflow"


@pytest.fixture(scope="module")
def cron_job():
    return yaml.safe_load((_FOLDER / "retrain-cronjob.yaml").read_text())


@pytest.fixture(scope="module")
def pod(cron_job):
    return cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


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


def test_the_image_is_the_pipeline_image_of_make_images(pod):
    settings = dict(re.findall(r"^(REGISTRY|TAG) \?= (\S+)$", (_ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    # The other images have no client for Kubeflow.
    assert [one["image"] for one in pod["containers"]] == [f"{settings['REGISTRY']}/pipeline:{settings['TAG']}"]


def test_the_compiled_parameters_are_not_changed(pod):
    assert not [word for word in pod["containers"][0]["args"] if word.startswith("--param")]


def test_every_file_that_the_command_reads_is_mounted(pod):
    (container,) = pod["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}

    for option in ("--pipeline=", "--token-file="):
        (path,) = (word.removeprefix(option) for word in container["args"] if word.startswith(option))
        assert str(Path(path).parent) in mounts
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_command_and_its_options_exist(pod):
    import inspect

    from pipeline.cli import kubeflow_runs

    (container,) = pod["containers"]
    assert container["command"] == ["segpipe", "kubeflow", "submit"]
    options = {word.split("=")[0] for word in container["args"]}
    names = {f"--{name.replace('_', '-')}" for name in inspect.signature(kubeflow_runs.submit).parameters}
    assert options <= names
