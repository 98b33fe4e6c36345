"""The Report component, run on the outputs of ExampleGen, StatisticsGen, Trainer, Evaluator and Pusher."""

from __future__ import annotations

import json
import math
import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
from tfx.types import channel, standard_artifacts

from components import drawing, features
from components.artifact_files import write_model_metadata
from components.class_map import ClassMap
from components.example_gen.artifacts import Quarantine
from components.metrics.diagnostics import Diagnostics
from components.metrics.gate import eval_config
from components.metrics.results import Evaluation, ModelResult
from components.metrics.scores import scores
from components.metrics.settings import GateSettings
from components.report import artifacts
from components.report.assemble import read_class_shares, read_history, sequence_scores
from components.report.component import Report, describe_baseline
from components.report.data import load

CLASS_MAP = ClassMap(("road", "sky", "void"), ((128, 64, 128), (70, 130, 180), (0, 0, 0)), ignore_index=2)
SIZE = (6, 10)
# Columns of road in the truth of each frame; the model is right only about the first two frames.
FRAMES = {"dusk_1": 4, "dusk_2": 8, "day_1": 5}
ISSUE = {
    "split": "train", "name": "day_9", "file": "train/day_9.png", "reason": "undecodable",
    "found": "0 bytes", "expected": "a PNG or JPEG", "action": "write it again",
}  # fmt: skip


class RedChannel(tf.Module):
    """A model that takes the image's red channel for the class."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def evaluate(self, image):
        def predict(encoded):
            return tf.io.encode_png(tf.io.decode_png(encoded, channels=3)[..., :1])

        return {"mask_png_bytes": tf.map_fn(predict, image, fn_output_signature=tf.string)}


def raw_example(name: str, road_columns: int) -> bytes:
    truth = np.ones(SIZE, np.uint8)
    truth[:, :road_columns] = 0
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 0] = truth if name.startswith("dusk") else 1
    texts = {
        features.IMAGE: drawing.png_bytes(image),
        features.MASK: drawing.png_bytes(truth),
        features.NAME: name.encode(),
        features.SEQUENCE: name.split("_")[0].encode(),
    }
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in texts.items()}
    share = road_columns / SIZE[1]
    for class_name, value in (("road", share), ("sky", 1 - share), ("void", 0.0)):
        feature[features.class_share(class_name)] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def artifact(kind: type, folder: pathlib.Path, name: str):
    made = kind()
    made.uri = str(folder / name)
    os.makedirs(made.uri)
    return made


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict:
    """The component's input artifacts, written as their own components write them."""
    folder = tmp_path_factory.mktemp("pipeline")
    made = {
        "examples": artifact(standard_artifacts.Examples, folder, "examples"),
        "statistics": artifact(standard_artifacts.ExampleStatistics, folder, "statistics"),
        "quarantine": artifact(Quarantine, folder, "quarantine"),
        "model": artifact(standard_artifacts.Model, folder, "Trainer/model/7"),
        "model_run": artifact(standard_artifacts.ModelRun, folder, "model_run"),
        "evaluation": artifact(standard_artifacts.ModelEvaluation, folder, "evaluation"),
        "blessing": artifact(standard_artifacts.ModelBlessing, folder, "blessing"),
        "pushed_model": artifact(standard_artifacts.PushedModel, folder, "pushed_model"),
    }
    records = write_examples(pathlib.Path(made["examples"].uri))
    made["examples"].set_string_custom_property("input_fingerprint", "d1ce" * 16)

    statistics = pathlib.Path(made["statistics"].uri) / "Split-val"
    statistics.mkdir()
    found = tfdv.generate_statistics_from_tfrecord(records)
    (statistics / "FeatureStats.pb").write_bytes(found.SerializeToString())

    quarantine = pathlib.Path(made["quarantine"].uri)
    counts = {"examples": {"train": 5, "val": 3}, "quarantined": {"train": {"undecodable": 1}}}
    (quarantine / "counts.json").write_text(json.dumps(counts))
    (quarantine / "quarantine.jsonl").write_text(json.dumps(ISSUE) + "\n")

    saved_model = export(pathlib.Path(made["model"].uri))
    (pathlib.Path(made["model_run"].uri) / "history.json").write_text(
        json.dumps([{"epoch": 1, "loss": 0.7, "mean_iou": 0.4, "val_loss": 0.8, "val_mean_iou": 0.35}])
    )
    evaluate(saved_model, records, made["evaluation"].uri)
    made["blessing"].set_int_custom_property("blessed", 1)
    made["pushed_model"].set_int_custom_property("pushed", 1)
    made["pushed_model"].set_string_custom_property("pushed_destination", "/srv/serving/unet/3")
    return made


def write_examples(examples: pathlib.Path) -> str:
    (examples / "Split-val").mkdir()
    path = str(examples / "Split-val" / "data_tfrecord-00000-of-00001.gz")
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for name, road_columns in FRAMES.items():
            writer.write(raw_example(name, road_columns))
    return path


def export(model: pathlib.Path) -> str:
    directory = model / "Format-Serving"
    module = RedChannel()
    tf.saved_model.save(module, str(directory), signatures={"evaluation": module.evaluate})
    write_model_metadata(str(directory), {"model": "unet"})
    return str(directory)


def evaluate(saved_model: str, records: str, output: str) -> None:
    config = eval_config(CLASS_MAP, GateSettings(min_mean_iou=0.5, min_class_iou={"sky": 0.7}), code_hash="abc")
    config = tfma.utils.update_eval_config_with_defaults(config, has_baseline=False, rubber_stamp=True)
    tfma.run_model_analysis(
        eval_shared_model=tfma.default_eval_shared_model(saved_model, eval_config=config),
        eval_config=config,
        data_location=records,
        output_path=output,
    )


def run(inputs: dict, folder: pathlib.Path, **changes):
    report = artifact(artifacts.Report, folder, "report")
    properties = {
        "class_map": CLASS_MAP.to_json(),
        "configuration": json.dumps({"training": {"epochs": 1}}),
        "lineage": json.dumps({"code_hash": "c0de", "packages": {"tfx": "1.16.0"}}),
        "gate_split": "val",
        "selection_split": "val",
        "max_frames": 10,
        "code": "abc",
    }
    Report.test_call(report=report, **{**inputs, **properties, **changes})
    return report


def test_report_holds_the_outputs_of_the_components(inputs, tmp_path):
    report = run(inputs, tmp_path)

    data = load(report.uri)
    # Truth: 102 pixels of road, 78 of sky. The third frame, 30 of road and 30 of sky, is all sky to the model.
    assert data.confusion == ((72, 30, 0), (0, 78, 0), (0, 0, 0))
    assert data.scores["class_iou/road"] == pytest.approx(72 / 102)
    assert data.scores["class_iou/sky"] == pytest.approx(78 / 108)
    assert data.scores["mean_iou"] == pytest.approx((72 / 102 + 78 / 108) / 2)
    assert data.baseline_scores is None
    assert {row.name: row.mean_iou for row in data.sequences} == pytest.approx({"day": 0.25, "dusk": 1.0})
    assert [row.name for row in data.sequences] == ["day", "dusk"]
    low, high = data.intervals["mean_iou"]
    assert low < data.scores["mean_iou"] <= high
    assert {(gate.metric, gate.passed) for gate in data.verdict.gates} == {
        ("mean_iou", True),
        ("class_iou/sky", True),
    }
    assert data.model == "unet"
    assert data.history[0]["loss"] == 0.7
    assert data.class_shares["val"] == pytest.approx({"road": 17 / 30, "sky": 13 / 30, "void": 0})
    assert data.examples == {"train": 5, "val": 3}
    assert data.quarantine_rows == (ISSUE,)
    assert data.frames_scored == 3
    assert (data.frames[0].group, data.frames[0].name) == ("worst", "day_1")


def test_lineage_joins_parameters_and_properties_of_the_artifacts(inputs, tmp_path):
    lineage = load(run(inputs, tmp_path).uri).lineage

    assert lineage.data_hash == "d1ce" * 16
    assert lineage.code_hash == "c0de"
    assert lineage.configuration == {"training": {"epochs": 1}}
    assert lineage.packages == {"tfx": "1.16.0"}
    assert lineage.baseline is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", lineage.created)


def test_page_is_written_and_the_artifact_has_the_scores(inputs, tmp_path):
    report = run(inputs, tmp_path)

    page = (pathlib.Path(report.uri) / "report.html").read_text(encoding="utf-8")
    assert "Blessed and pushed" in page
    assert "/srv/serving/unet/3" in page
    assert report.get_float_custom_property("mean_iou") == pytest.approx(0.714, abs=1e-3)


def test_model_that_was_not_pushed_has_no_address(inputs, tmp_path):
    held_back = standard_artifacts.PushedModel()
    held_back.set_int_custom_property("pushed", 0)

    assert load(run(inputs, tmp_path, pushed_model=held_back).uri).verdict.pushed is None


def test_pipeline_without_a_pusher_has_a_report_too(inputs, tmp_path):
    assert load(run(inputs, tmp_path, pushed_model=None).uri).verdict.pushed is None


def test_baseline_is_named_by_architecture_and_execution(inputs):
    assert describe_baseline(inputs["model"].uri) == "unet of execution 7"


def test_sequences_have_the_baseline_s_scores_with_the_worst_first():
    def result(sequences: dict[str, float]) -> ModelResult:
        matrix = np.eye(3, dtype=np.int64)
        rows = {name: {"mean_iou": value} for name, value in sequences.items()}
        return ModelResult(matrix, scores(matrix, CLASS_MAP), rows, {}, Diagnostics.empty(CLASS_MAP))

    candidate, baseline = result({"dusk": 0.9, "void": math.nan, "day": 0.4}), result({"dusk": 0.25})

    rows = sequence_scores(Evaluation(candidate, baseline, checks=()))

    assert [(row.name, row.baseline_mean_iou) for row in rows] == [("day", None), ("dusk", 0.25), ("void", None)]


def test_missing_history_and_statistics_leave_their_parts_empty(tmp_path):
    assert read_history(str(tmp_path)) == ()
    assert read_class_shares(str(tmp_path), ["train"], CLASS_MAP) == {}


def test_component_can_be_wired_with_and_without_a_pushed_model(inputs):
    properties = {
        "class_map": "{}", "configuration": "{}", "lineage": "{}", "gate_split": "val", "selection_split": "val",
        "max_frames": 1, "code": "abc",
    }  # fmt: skip
    channels = {name: channel.Channel(type=type(made)) for name, made in inputs.items()}
    without = {name: made for name, made in channels.items() if name != "pushed_model"}

    assert set(Report(**channels, **properties).inputs) == set(inputs)
    assert Report(**without, **properties).outputs["report"].type is artifacts.Report
