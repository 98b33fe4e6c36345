"""A finished run is logged to MLflow, and a model that was not blessed is sent to the webhook, on any orchestrator."""

import json

import pytest
from webhook_receiver import receiving

from components.class_map import ClassMap
from components.metrics.threshold_check import ThresholdCheck
from components.report.data import DATA_FILE, ReportData, Verdict
from pipeline.configuration.loading import load_config
from pipeline.running import tracking
from pipeline.running.after_run import announce
from pipeline.running.notifications import Notifier
from pipeline.storage.store import Artifact, NodeExecution


def _executions(folder, blessed):
    report = ReportData(
        model="unet",
        class_map=ClassMap(("road", "void"), ((0, 0, 0), (1, 1, 1)), 1),
        gate_split="val",
        verdict=Verdict(
            blessed,
            gates=(
                ThresholdCheck("mean_iou", "value", 0.4, 0.3, blessed),
                ThresholdCheck("class_iou/road", "value", 0.1, 0.2, True),
            ),
        ),
        scores={"mean_iou": 0.3, "mean_dice": None},
    )
    (folder / DATA_FILE).write_text(report.to_json())
    model, written = Artifact(1, "Model", "/artifacts/model/4", {}), Artifact(2, "Report", str(folder), {})
    return [
        NodeExecution(1, "ImageMaskExampleGen", "cached", 100.0, 101.0, {}, {}, {}),
        NodeExecution(2, "Report", "ran", 150.0, 160.0, {}, {"model": [model]}, {"report": [written]}),
    ]


@pytest.mark.parametrize("blessed", [False, True])
def test_a_model_that_was_not_blessed_is_sent_to_the_webhook(tmp_path, monkeypatch, blessed):
    with receiving() as receiver:
        monkeypatch.setenv("SEGPIPE_WEBHOOK_URL", receiver.address)
        notices = Notifier("streets", "run-1", pytest.fail, links={"report": "report.html"})

        announce(load_config([]), _executions(tmp_path, blessed), "report.html", notices)

    expected = {
        "event": "not_blessed",
        "pipeline": "streets",
        "run_id": "run-1",
        "reason": "mean_iou is 0.300, 0.100 below its minimum of 0.400",
        "scores": {"mean_iou": 0.3},
        "links": {"report": "report.html"},
    }
    assert [{name: body[name] for name in expected} for body in receiver.bodies] == ([] if blessed else [expected])


def test_times_and_model_are_logged_to_mlflow(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(tracking, "log_run", lambda config, run: logged.append(run) or "address")
    said = []
    config = load_config([("test", {"tracking": {"mlflow_uri": "http://mlflow"}})])

    announce(config, _executions(tmp_path, True), "report.html", Notifier("streets", "run-1", said.append))

    (run,) = logged
    assert said == ["MLflow   address"]
    assert (run.run_id, run.started, run.ended, run.page) == ("run-1", 100.0, 160.0, "report.html")
    assert run.model == "/artifacts/model/4/Format-Serving"
    assert json.loads(run.report.to_json())["scores"]["mean_iou"] == 0.3
