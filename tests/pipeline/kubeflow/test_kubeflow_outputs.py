"""What Kubeflow shows of a run: scores, confusion matrix and page, written as its launcher reads them."""

import json

import numpy as np
from kfp import dsl

from components.class_map import ClassMap
from components.metrics.scores import scores
from pipeline.kubeflow.outputs import log_scores, write_outputs
from pipeline.store import Artifact, NodeExecution

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

    write_outputs(_execution("Report", report=tmp_path / "report"), _CLASSES, _executor_input(tmp_path, "page"))

    assert (tmp_path / "out" / "page").read_text() == "<html>page</html>"
    output = json.loads((tmp_path / "out" / "executor_output.json").read_text())
    assert output["artifacts"]["page"]["artifacts"][0]["uri"] == str(tmp_path / "out" / "page")


def test_other_nodes_write_nothing(tmp_path):
    write_outputs(_execution("Transform"), _CLASSES, _executor_input(tmp_path))

    assert not (tmp_path / "out").exists()
