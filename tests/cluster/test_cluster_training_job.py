"""The pods of an indexed Job find each other by name and train together, even if one of them is lost."""

import json

import pytest
from real_cluster import CLAIM, MOUNT, until
from typer.testing import CliRunner

from pipeline.cli.main import app

pytestmark = pytest.mark.slow

_NAME, _EPOCHS = "night-1", 30
_MAKE_DATA = f"""
from components.dataset import synthetic
synthetic.make("{MOUNT}/data", pairs={{"train": 24, "val": 8}}, size=(64, 96))
"""
# Prints the history of the only Trainer execution that succeeded.
_READ_RESULT = f"""
import json
from pathlib import Path
from pipeline.storage.store import Store
store = Store("{MOUNT}/runs/metadata.sqlite")
(run,) = store.run_ids()
found = [one for one in store.executions(run) if one.node_id == "Trainer" and one.state == "ran"]
model, = (one.outputs["model"][0].uri for one in found)
assert Path(model, "Format-Serving", "saved_model.pb").is_file()
history, = Path("{MOUNT}/runs").rglob(f"model_run/{{found[0].id}}/history.json")
print("RESULT", json.dumps(json.loads(history.read_text())))
"""


@pytest.fixture
def training(cluster, volume, pipeline_image, tmp_path):
    """Creates the data set and applies the Job as a user would."""
    cluster.run("data", pipeline_image, _MAKE_DATA)
    manifest = tmp_path / "job.yaml"
    settings = {
        "kubeflow.image": pipeline_image,
        "kubeflow.root": f"{MOUNT}/runs",
        "kubeflow.volumes": f"{{{CLAIM}: {MOUNT}}}",
        "model.base_filters": "4",
        "kubeflow.retries": "5",
    }
    words = ["kubeflow", "training-job", "--kind", "job", "--name", _NAME, "--workers", "2", "--out", str(manifest)]
    words += ["--data", f"{MOUNT}/data", "--model", "unet", "--preset", "smoke", "--size", "64x96"]
    words += ["--epochs", str(_EPOCHS), *(word for item in settings.items() for word in ("--set", "=".join(item)))]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    cluster.kubectl("apply", f"--filename={manifest}")
    return cluster


def _pods(cluster, index):
    """Returns the pods that a worker has had, oldest first."""
    found = cluster.get("pods", f"--selector=batch.kubernetes.io/job-completion-index={index}")["items"]
    return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])


def _log(cluster, index):
    return "".join(cluster.kubectl("logs", pod["metadata"]["name"], check=False) for pod in _pods(cluster, index))


def _ended(cluster):
    conditions = cluster.get("job", _NAME)["status"].get("conditions", [])
    return {one["type"] for one in conditions if one["status"] == "True"} & {"Complete", "Failed"}


def test_a_training_resumes_after_a_pod_is_lost(training, pipeline_image):
    until(lambda: "epoch 4/" in _log(training, 0), 900, lambda: _log(training, 0)[-3000:])
    (lost,) = _pods(training, 1)
    training.kubectl("delete", "pod", lost["metadata"]["name"], "--grace-period=1")

    ended = until(lambda: _ended(training), 900, lambda: _log(training, 0)[-3000:] + _log(training, 1)[-3000:])

    assert ended == {"Complete"}, _log(training, 0)[-3000:]
    # The new pod has the old one's name, because the manifest has the workers' addresses.
    (back, *_) = reversed(_pods(training, 1))
    assert back["metadata"]["uid"] != lost["metadata"]["uid"]
    assert back["spec"]["hostname"] == lost["spec"]["hostname"] == f"{_NAME}-1"
    printed = training.run("result", pipeline_image, _READ_RESULT)
    (line,) = (line for line in printed.splitlines() if line.startswith("RESULT "))
    history = json.loads(line.removeprefix("RESULT "))
    assert [entry["epoch"] for entry in history] == list(range(1, _EPOCHS + 1))
    # The second chief resumed after the finished epochs.
    *_, chief = _pods(training, 0)
    assert "epoch 1/" not in training.kubectl("logs", chief["metadata"]["name"])
