"""What a task refuses before it does anything."""

import json
import os

from kfp import dsl

from pipeline.config import load_config
from pipeline.kubeflow import node
from pipeline.kubeflow.node import locate, main
from pipeline.kubeflow.parameters import RUN_ID, defaults


def _main(layers, **values):
    executor_input = {"inputs": {"parameterValues": values}}
    words = ["--node", "Trainer", "--configuration", json.dumps(layers), "--executor-input", json.dumps(executor_input)]
    return main(words)


def test_a_server_that_tells_no_run_from_another_is_refused(capsys):
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


def test_the_first_run_on_a_volume_finds_its_span(tmp_path):
    (tmp_path / "span-3").mkdir()
    settings = {"kubeflow": {"root": str(tmp_path / "new" / "work")}, "data": {"dir": f"{tmp_path}/span-{{span}}"}}

    assert locate(load_config([("test", settings)]), "r") == f"{tmp_path}/span-3"


def test_a_task_prepares_its_process_for_gpus(monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    seen = []
    monkeypatch.setattr(node, "run_node", lambda *_: seen.append(os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH")))

    assert _main([]) == 0
    assert seen == ["true"]
