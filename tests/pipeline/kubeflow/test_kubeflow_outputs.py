"""The outputs of a run that Kubeflow shows: scores, confusion matrix and report page."""

import json

import numpy as np
from google.protobuf import struct_pb2
from kfp import dsl

from components.class_map import ClassMap
from components.metrics.scores import scores
from pipeline.kubeflow.outputs import log_scores, write_outputs
from pipeline.storage.store import Artifact, NodeExecution

_CLASSES = ClassMap(("road", "sky", "void"), ((1, 2, 3), (4, 5, 6), (0, 0, 0)), 2)


def _execution(node_id, **outputs):
    artifacts = {name: [Artifact(1, "type", str(uri), {})] for name, uri in outputs.items()}
    return NodeExecution(1, node_id, "ran", 0.0, 1.0, {}, {}, artifacts)


def _executor_input(tmp_path, *names):
    artifacts = {name: {"artifacts": [{"name": name, "uri": str(tmp_path / "out" / name)}]} for name in names}
    return {"outputs": {"artifacts": artifacts, "outputFile": str(tmp_path / "out" / "executor_output.json")}}


def test_every_defined_score_is_a_metric():
    metrics = dsl.Metrics(name="scores")

    log_scores(metrics, scores(np.array([[6, 2, 0], [0, 0, 0], [1, 1, 1]]), _CLASSES))

    assert metrics.metadata["class_iou/road"] == 0.75
    assert metrics.metadata["pixel_accuracy"] == 0.75
    assert all(value == value for value in metrics.metadata.values())
    json.dumps(metrics.metadata, allow_nan=False)


def test_the_report_s_page_is_where_kubeflow_reads_it(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<html>page</html>")

    write_outputs([_execution("Report", report=tmp_path / "report")], _CLASSES, _executor_input(tmp_path, "page"))

    assert (tmp_path / "out" / "page").read_text() == "<html>page</html>"
    output = json.loads((tmp_path / "out" / "executor_output.json").read_text())
    assert output["artifacts"]["page"]["artifacts"][0]["uri"] == str(tmp_path / "out" / "page")


def test_other_nodes_write_nothing(tmp_path):
    write_outputs([_execution("QuarantineGate")], _CLASSES, _executor_input(tmp_path))

    assert not (tmp_path / "out").exists()


def test_a_task_s_outputs_name_the_folders_of_tfx_s_artifacts(tmp_path):
    executions = [
        _execution("ImageMaskExampleGen", examples="/results/examples/1", quarantine="/results/quarantine/1"),
        _execution("Trainer", model="/results/model/4"),
    ]

    write_outputs(executions, _CLASSES, _executor_input(tmp_path, "examples", "trained_model"))

    for name, folder in (("examples", "/results/examples/1"), ("trained_model", "/results/model/4")):
        assert json.loads((tmp_path / "out" / name).read_text()) == {"folder": folder, "type": "type"}
    output = json.loads((tmp_path / "out" / "executor_output.json").read_text())["artifacts"]
    assert {name: group["artifacts"][0]["metadata"]["folder"] for name, group in output.items()} == {
        "examples": "/results/examples/1",
        "trained_model": "/results/model/4",
    }


def test_a_property_that_json_cannot_hold_is_left_out(tmp_path):
    properties = {"split_names": '["train"]', "count": 3, "stats_dashboard_link": struct_pb2.Struct()}
    artifact = Artifact(1, "ExampleStatistics", "/results/statistics/3", properties)
    execution = NodeExecution(1, "StatisticsGen", "ran", 0.0, 1.0, {}, {}, {"statistics": [artifact]})

    write_outputs([execution], _CLASSES, _executor_input(tmp_path, "statistics"))

    shown = json.loads((tmp_path / "out" / "statistics").read_text())
    assert shown == {
        "split_names": '["train"]',
        "count": 3,
        "type": "ExampleStatistics",
        "folder": "/results/statistics/3",
    }


def test_a_training_job_expects_no_outputs(tmp_path):
    write_outputs([_execution("Trainer", model="/results/model/4")], _CLASSES, {"inputs": {}})

    assert not (tmp_path / "out").exists()
