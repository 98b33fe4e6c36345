"""The pods of a TrainJob run as processes on this machine: two workers train one model in one execution."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.dataset import synthetic
from pipeline.cli.main import app
from pipeline.storage.store import Store

pytestmark = pytest.mark.slow

_PROJECT = Path(__file__).parents[3]


def _free_ports(number):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _start(container, ports, index):
    """Starts a pod's container as the indexed Job would, with localhost instead of the pods' names."""
    arguments = list(container["args"])
    arguments[arguments.index("--workers") + 1] = ",".join(f"localhost:{port}" for port in ports)
    return subprocess.Popen(
        [sys.executable, *container["command"][1:], *arguments],
        cwd=_PROJECT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "JOB_COMPLETION_INDEX": str(index)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_workers_of_a_training_job_share_one_execution(tmp_path):
    data, work, manifest = tmp_path / "data", tmp_path / "work", tmp_path / "job.yaml"
    synthetic.make(str(data), pairs={"train": 8, "val": 4}, size=(32, 32))
    words = ["kubeflow", "training-job", "--kind", "trainjob", "--data", str(data), "--out", str(manifest)]
    words += [
        "--model",
        "unet",
        "--preset",
        "smoke",
        "--size",
        "32x32",
        "--epochs",
        "2",
        "--set",
        f"kubeflow.root={work}",
    ]
    assert CliRunner().invoke(app, [*words, "--set", "model.base_filters=4"], catch_exceptions=False).exit_code == 0
    runtime = next(yaml.safe_load_all(manifest.read_text()))
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]

    ports = _free_ports(2)
    pods = [_start(container, ports, index) for index in range(2)]
    outputs = [pod.communicate(timeout=600)[0] for pod in pods]

    assert [pod.returncode for pod in pods] == [0, 0], "\n".join(text[-3000:] for text in outputs)
    # TensorFlow logs the number of workers in a collective. The chief's message is in the full log of its task.
    (log,) = work.glob("runs/*/Trainer.log")
    assert "group_size = 2" in log.read_text()
    assert "group_size = 2" in outputs[1]
    store = Store(str(work / "metadata.sqlite"))
    (run_id,) = store.run_ids()
    assert run_id.startswith("segpipe-training-")
    (training,) = [execution for execution in store.executions(run_id) if execution.node_id == "Trainer"]
    assert training.state == "ran"
    assert Path(training.outputs["model"][0].uri, "Format-Serving", "saved_model.pb").exists()
