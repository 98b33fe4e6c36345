"""The checks of a task before and after its nodes run."""

import json
import os
from pathlib import Path

import kfp_harness
import pytest
import yaml
from kfp import dsl

from pipeline.kubeflow import node
from pipeline.kubeflow.node import main
from pipeline.kubeflow.parameters import RUN_ID, defaults
from pipeline.kubeflow.tasks import TASKS
from pipeline.storage.store import Artifact, NodeExecution


def _main(layers, **values):
    values = {RUN_ID: "r", **values}
    executor_input = {"inputs": {"parameterValues": values}}
    words = ["--task", "Trainer", "--configuration", json.dumps(layers), "--executor-input", json.dumps(executor_input)]
    return main(words)


def test_a_server_without_run_ids_is_refused(capsys):
    code = _main([], **{RUN_ID: dsl.PIPELINE_JOB_ID_PLACEHOLDER})

    assert code == 2
    error = capsys.readouterr().err
    assert "run_id: found '{{$.pipeline_job_uuid}}'" in error
    assert "update the server" in error


def test_a_model_is_not_pushed_into_the_container(tmp_path, street_scenes, capsys):
    values = defaults(street_scenes, "unet", "smoke", None, None)
    layers = [("test", {"kubeflow": {"root": str(tmp_path / "work")}})]

    code = _main(layers, **{**values, RUN_ID: "r", "push_destination": "served"})

    assert code == 2
    assert "serving_dir: found 'served'" in capsys.readouterr().err


def test_no_task_checks_the_compiled_bounds_that_a_run_replaces(tmp_path, compiled, street_scenes, monkeypatch):
    # The run's data has no class of that name.
    gate, own = {"min_class_iou": {"walker": 0.1}}, {"pedestrian": 0.2}
    package = compiled({"kubeflow": {"root": str(tmp_path / "work")}, "gate": gate})
    spec = next(yaml.safe_load_all(Path(package).read_text()))
    values = {**defaults(street_scenes, "unet", "smoke", None, None), "min_class_iou": own, RUN_ID: "r"}
    seen = {}
    monkeypatch.setattr(node, "_launch", lambda name, config, *_: seen.update({name: config.gate.min_class_iou}))

    for name, task in spec["root"]["dag"]["tasks"].items():
        given = {key: values[key] for key in task["inputs"]["parameters"]}
        executor_input = {"inputs": {"parameterValues": given}, "outputs": {"artifacts": {}}}
        words = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]["args"]
        assert main(kfp_harness.fill(words, executor_input)) == 0

    assert seen == {
        name: own if "min_class_iou" in task.parameters else {} for name, task in TASKS.items() if name in seen
    }
    assert len(seen) == len(spec["root"]["dag"]["tasks"])


def test_a_task_prepares_its_process_for_gpus(monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    seen = []
    monkeypatch.setattr(node, "run_task", lambda *_: seen.append(os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH")))

    assert _main([]) == 0
    assert seen == ["true"]


@pytest.mark.parametrize(("state", "pushed", "checked"), [("cached", 1, True), ("ran", 1, False), ("cached", 0, False)])
def test_a_version_from_the_cache_must_still_be_served(state, pushed, checked):
    properties = {"pushed": pushed, "pushed_destination": "/served/unet/3"}
    outputs = {"pushed_model": [Artifact(1, "PushedModel", "/results/pushed", properties)]}
    seen = []

    node._check_served(
        [NodeExecution(1, "Pusher", state, 0.0, 1.0, {}, {}, outputs)], lambda *places: seen.append(places)
    )

    assert seen == ([("/served/unet/3", "/results/pushed")] if checked else [])
