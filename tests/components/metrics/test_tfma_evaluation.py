"""A model evaluated in process by TFMA, with and without a baseline, as the pipeline's Evaluator does it."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import standard_artifacts
from tfx_evaluator import evaluate, model_artifact, schema_artifact, write_examples

from components import features
from components.class_map import ClassMap
from components.drawing import png_bytes
from components.metrics import tally
from components.metrics.bootstrap import Interval, change_intervals, score_intervals
from components.metrics.confusion import confusion_matrix
from components.metrics.diagnostics import Diagnostics
from components.metrics.gate import eval_config
from components.metrics.results import Evaluation, load_evaluation
from components.metrics.scores import or_null, scores
from components.metrics.settings import GateSettings
from components.metrics.tally import Tally
from components.metrics.threshold_check import ThresholdCheck

# "tram" occurs neither in the masks nor in the predictions.
CLASS_MAP = ClassMap(
    names=("sky", "road", "pedestrian", "tram", "void"),
    colors=((0, 0, 255), (99, 99, 99), (255, 0, 0), (0, 255, 0), (0, 0, 0)),
    ignore_index=4,
)
# The class that each model predicts for each index in the image.
GOOD = [0, 1, 2, 3, 0, 0]
BLIND = [0, 1, 1, 3, 0, 0]
# Only one frame's image holds index 5.
UNLUCKY = [0, 1, 2, 3, 0, 1]
# The confidence for each index in the image, 0 to 255 for 0 to 1.
CONFIDENCE = [255, 240, 130, 100, 60, 200]


def png(mask: np.ndarray) -> bytes:
    return png_bytes(mask.astype(np.uint8))


class MaskFromImage(tf.Module):
    """Predicts the image's own bytes as its mask: red pixels of a grey PNG are already class indices."""

    def __init__(self, classes: list[int]):
        super().__init__()
        self._mapping = tf.constant(classes, tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def evaluate(self, image):
        def predict(encoded):
            return tf.io.encode_png(tf.gather(self._mapping, tf.cast(tf.io.decode_png(encoded), tf.int32)))

        return {"mask_png_bytes": tf.map_fn(predict, image, fn_output_signature=tf.string)}


class MaskAndConfidence(MaskFromImage):
    """Predicts a confidence too, which only depends on the index that the image holds."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def evaluate_with_confidence(self, image):
        def confidence(encoded):
            indices = tf.cast(tf.io.decode_png(encoded), tf.int32)
            return tf.io.encode_png(tf.gather(tf.constant(CONFIDENCE, tf.uint8), indices))

        levels = tf.map_fn(confidence, image, fn_output_signature=tf.string)
        return {**self.evaluate(image), "confidence_png_bytes": levels}


def export_model(directory: pathlib.Path, classes: list[int], with_confidence: bool = False) -> str:
    """Exports, as Trainer does, a model that predicts `classes[i]` wherever the image holds i."""
    module = MaskAndConfidence(classes) if with_confidence else MaskFromImage(classes)
    evaluate = module.evaluate_with_confidence if with_confidence else module.evaluate
    tf.saved_model.save(module, str(directory / "Format-Serving"), signatures={"evaluation": evaluate})
    return str(directory)


@pytest.fixture(scope="module")
def frames() -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(sequence, image, truth) of frames of differing sizes, with pixels of all classes but tram."""
    random = np.random.default_rng(5)
    result = []
    for index, (height, width) in enumerate([(6, 9), (6, 9), (4, 4), (5, 7), (8, 3)]):
        truth = random.choice([0, 1, 2, 4], size=(height, width))
        image = np.where(random.random((height, width)) < 0.8, truth, random.choice([0, 1, 2], size=(height, width)))
        if index == 0:
            image[truth == 0] = 5
        result.append(("dusk" if index < 2 else "day", image, truth))
    return result


@pytest.fixture(scope="module")
def examples(tmp_path_factory, frames) -> standard_artifacts.Examples:
    """The frames as ExampleGen writes them, in the split val."""
    return examples_of(tmp_path_factory.mktemp("examples"), {"val": frames})


def examples_of(folder: pathlib.Path, frames_by_split: dict[str, list]) -> standard_artifacts.Examples:
    return write_examples(
        folder,
        {split: [raw_example(split, *frame) for frame in frames] for split, frames in frames_by_split.items()},
    )


def raw_example(split: str, sequence: str, image: np.ndarray, truth: np.ndarray) -> tf.train.Example:
    values = {
        features.IMAGE: png(image),
        features.MASK: png(truth),
        features.SEQUENCE: sequence.encode(),
        features.SPLIT: split.encode(),
    }
    feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature))


@pytest.fixture(scope="module")
def schema(tmp_path_factory) -> standard_artifacts.Schema:
    message = schema_pb2.Schema()
    for name in (features.IMAGE, features.MASK, features.SEQUENCE, features.SPLIT):
        message.feature.add(name=name, type=schema_pb2.BYTES, shape={}, presence={"min_fraction": 1})
    return schema_artifact(tmp_path_factory.mktemp("schema"), message)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {
        "good": export_model(root / "good", GOOD),
        "blind to pedestrians": export_model(root / "blind", BLIND),
        "unlucky": export_model(root / "unlucky", UNLUCKY),
        "good with confidence": export_model(root / "confident", GOOD, with_confidence=True),
    }


@dataclasses.dataclass(frozen=True)
class Run:
    uri: str
    blessed_by_tfx: bool
    evaluation: Evaluation

    def failure(self, metric: str) -> ThresholdCheck:
        (check,) = (check for check in self.evaluation.failures if check.metric == metric)
        return check


def run(
    root: pathlib.Path, inputs: dict, gate: GateSettings, splits: tuple[str, ...] = ("val",), selection_split: str = ""
) -> Run:
    """Runs TFX's own Evaluator."""
    uri, blessed = evaluate(root, inputs, eval_config(CLASS_MAP, gate, "abc", selection_split), splits)
    return Run(uri, blessed, load_evaluation(uri, CLASS_MAP))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, examples, schema, models) -> Run:
    """The good model without a baseline, against bounds of which it keeps only one."""
    gate = GateSettings(min_mean_iou=0.99, min_class_iou={"road": 0.1, "pedestrian": 0.99, "tram": 0.1})
    inputs = {"examples": [examples], "schema": [schema], "model": [model_artifact(models["good"])]}
    return run(tmp_path_factory.mktemp("first"), inputs, gate)


@pytest.fixture(scope="module")
def better_run(tmp_path_factory, examples, schema, models) -> Run:
    """The good model against a baseline that sees no pedestrians."""
    gate = GateSettings(min_mean_iou=0.3, min_class_iou={"pedestrian": 0.3})
    inputs = {
        "examples": [examples],
        "schema": [schema],
        "model": [model_artifact(models["good"])],
        "baseline_model": [model_artifact(models["blind to pedestrians"])],
    }
    return run(tmp_path_factory.mktemp("better"), inputs, gate)


@pytest.fixture(scope="module")
def worse_run(tmp_path_factory, examples, models) -> Run:
    """The model that sees no pedestrians against the good one, without a schema."""
    gate = GateSettings(min_mean_iou=0.0, max_class_drop=0.05, max_mean_drop=1.0)
    inputs = {
        "examples": [examples],
        "model": [model_artifact(models["blind to pedestrians"])],
        "baseline_model": [model_artifact(models["good"])],
    }
    return run(tmp_path_factory.mktemp("worse"), inputs, gate)


def expected_matrix(frames, classes: list[int], sequence: str | None = None) -> np.ndarray:
    return sum(
        confusion_matrix(truth, np.array(classes)[image], CLASS_MAP.num_classes)
        for name, image, truth in frames
        if sequence in (None, name)
    )


def test_the_matrix_and_the_scores_of_a_first_run(first_run, frames):
    expected = expected_matrix(frames, GOOD)
    np.testing.assert_array_equal(first_run.evaluation.candidate.matrix, expected)
    np.testing.assert_equal(first_run.evaluation.candidate.scores, scores(expected, CLASS_MAP))
    assert first_run.evaluation.baseline is None
    assert first_run.evaluation.candidate.selection == {}


def test_tfma_reports_the_same_scores(first_run, frames):
    reported = tfma.load_eval_result(first_run.uri).get_metrics_for_slice()

    expected = scores(expected_matrix(frames, GOOD), CLASS_MAP)
    assert reported["mean_iou"]["doubleValue"] == expected["mean_iou"]
    assert reported["frequency_weighted_iou"]["doubleValue"] == expected["frequency_weighted_iou"]
    assert reported["class_dice/pedestrian"]["doubleValue"] == expected["class_dice/pedestrian"]
    assert math.isnan(float(reported["class_iou/tram"]["doubleValue"]))


@pytest.mark.parametrize("name", ["first_run", "better_run", "worse_run"])
def test_tfx_and_the_result_agree_on_the_blessing(name, request):
    run = request.getfixturevalue(name)
    assert run.blessed_by_tfx == (not run.evaluation.failures)


def test_missed_lower_bounds_name_metric_and_amount(first_run):
    assert [check.metric for check in first_run.evaluation.failures] == [
        "class_iou/pedestrian",
        "class_iou/tram",
        "mean_iou",
    ]
    mean_iou = first_run.failure("mean_iou")
    assert mean_iou.value == first_run.evaluation.candidate.scores["mean_iou"]
    assert mean_iou.margin == pytest.approx(mean_iou.value - 0.99)
    assert mean_iou.reason.endswith(" below its minimum of 0.990")


def test_a_lower_bound_on_an_absent_class_fails_with_a_reason(first_run):
    tram = first_run.failure("class_iou/tram")
    assert math.isnan(tram.value)
    assert "class_iou/tram is undefined" in tram.reason


def test_bounds_on_a_change_are_left_out_without_a_baseline(first_run):
    assert {check.kind for check in first_run.evaluation.checks} == {"value"}
    assert len(first_run.evaluation.checks) == 4


def test_a_better_candidate_is_blessed_against_its_baseline(better_run):
    assert not better_run.evaluation.failures
    assert {(check.metric, check.kind) for check in better_run.evaluation.checks} == {
        ("mean_iou", "value"),
        ("mean_iou", "change"),
        ("class_iou/pedestrian", "value"),
        *((f"class_iou/{name}", "change") for name in CLASS_MAP.scored_names),
    }


@pytest.mark.parametrize(("name", "candidate", "baseline"), [("better_run", GOOD, BLIND), ("worse_run", BLIND, GOOD)])
def test_sequences_are_scored_one_by_one(name, candidate, baseline, request, frames):
    evaluation = request.getfixturevalue(name).evaluation

    for result, classes in ((evaluation.candidate, candidate), (evaluation.baseline, baseline)):
        assert sorted(result.sequences) == ["day", "dusk"]
        for sequence, part in result.sequences.items():
            expected = scores(expected_matrix(frames, classes, sequence), CLASS_MAP)
            assert part == {name: expected[name] for name in ("mean_iou", "mean_dice", "pixel_accuracy")}


def expected_tally(frames, classes: list[int]) -> Tally:
    total = Tally.empty(CLASS_MAP)
    for sequence, image, truth in frames:
        matrix = confusion_matrix(truth, np.array(classes)[image], CLASS_MAP.num_classes)
        total.add(matrix, png(image), sequence)
    return total


def test_intervals_equal_those_of_the_tallies(better_run, frames):
    evaluation = better_run.evaluation
    good, blind = expected_tally(frames, GOOD), expected_tally(frames, BLIND)

    assert "class_iou/tram" not in evaluation.candidate.intervals
    assert evaluation.candidate.intervals == defined(score_intervals(good.resampled()))
    assert evaluation.baseline.intervals == defined(score_intervals(blind.resampled()))
    assert evaluation.change_intervals == defined(change_intervals(good.resampled(), blind.resampled()))


def defined(intervals: dict[str, Interval]) -> dict[str, Interval]:
    return {name: bounds for name, bounds in intervals.items() if not math.isnan(bounds[0])}


def expected_diagnostics(frames, classes: list[int], with_confidence: bool) -> Diagnostics:
    total = Diagnostics.empty(CLASS_MAP)
    for _, image, truth in frames:
        prediction = np.array(classes, np.uint8)[image]
        confidence = np.array(CONFIDENCE, np.uint8)[image] if with_confidence else None
        total.add(Diagnostics.of_image(truth.astype(np.uint8), prediction, CLASS_MAP, confidence))
    return total


def test_a_model_with_confidence_is_compared_with_one_of_an_earlier_version(tmp_path, examples, models, frames):
    inputs = {
        "examples": [examples],
        "model": [model_artifact(models["good with confidence"])],
        "baseline_model": [model_artifact(models["good"])],
    }

    found = run(tmp_path, inputs, GateSettings(min_mean_iou=0.0))

    expected = expected_diagnostics(frames, GOOD, with_confidence=True).to_dict(CLASS_MAP)
    earlier = expected_diagnostics(frames, GOOD, with_confidence=False).to_dict(CLASS_MAP)
    assert not found.evaluation.failures
    assert found.evaluation.candidate.diagnostics.to_dict(CLASS_MAP) == expected
    assert found.evaluation.baseline.diagnostics.to_dict(CLASS_MAP) == earlier
    assert earlier == {**expected, "expected_calibration_error": None, "reliability": []}
    assert expected["expected_calibration_error"] > 0.1
    reported = tfma.load_eval_result(found.uri, model_name=tfma.CANDIDATE_KEY).get_metrics_for_slice()
    for name in ("expected_calibration_error", "mean_boundary_iou"):
        assert reported[name]["doubleValue"] == expected[name]
    assert reported["class_boundary_iou/road"]["doubleValue"] == expected["class_boundary_iou"]["road"]


def test_a_model_without_confidence_has_every_score_but_calibration(better_run, frames):
    for result, classes in ((better_run.evaluation.candidate, GOOD), (better_run.evaluation.baseline, BLIND)):
        expected = expected_diagnostics(frames, classes, with_confidence=False)
        assert result.diagnostics.to_dict(CLASS_MAP) == expected.to_dict(CLASS_MAP)
        assert math.isnan(result.diagnostics.flat(CLASS_MAP)["expected_calibration_error"])
        assert result.diagnostics.sizes["large"].objects > 0


def test_a_dropping_class_blocks_but_an_absent_class_does_not(worse_run):
    failed = {(check.metric, check.kind) for check in worse_run.evaluation.failures}
    assert ("class_iou/pedestrian", "change") in failed
    assert ("class_iou/tram", "change") not in failed

    pedestrian = worse_run.failure("class_iou/pedestrian")
    lost = worse_run.evaluation.baseline.scores["class_iou/pedestrian"]
    assert pedestrian.value == pytest.approx(-lost)
    assert pedestrian.margin == pytest.approx(0.05 - lost)
    assert pedestrian.reason.endswith(" below the -0.050 allowed")


def test_too_many_sequences_are_left_out(tmp_path, examples, models, monkeypatch, frames):
    monkeypatch.setattr(tally, "MAX_SEQUENCES", 1)
    inputs = {"examples": [examples], "model": [model_artifact(models["good"])]}

    candidate = run(tmp_path, inputs, GateSettings()).evaluation.candidate

    assert candidate.sequences == {}
    np.testing.assert_array_equal(candidate.matrix, expected_matrix(frames, GOOD))


@pytest.mark.parametrize(("gate_split", "blessed"), [("with_pedestrians", False), ("without", True)])
def test_the_gate_counts_only_its_own_split(tmp_path, schema, models, gate_split, blessed):
    random = np.random.default_rng(7)
    masks = {"with_pedestrians": random.choice([1, 2], size=(4, 6)), "without": random.choice([0, 1], size=(5, 3))}
    frames = {split: [(split, mask, mask)] for split, mask in masks.items()}
    (selection_split,) = masks.keys() - {gate_split}
    inputs = {
        "examples": [examples_of(tmp_path / "examples", frames)],
        "schema": [schema],
        "model": [model_artifact(models["blind to pedestrians"])],
        "baseline_model": [model_artifact(models["good"])],
    }
    gate = GateSettings(min_mean_iou=0.5, significant_drops=False)

    found = run(tmp_path, inputs, gate, splits=(selection_split, gate_split), selection_split=selection_split)

    evaluation = found.evaluation
    assert found.blessed_by_tfx == (not evaluation.failures) == blessed
    assert {check.passed for check in evaluation.checks} == ({True} if blessed else {True, False})
    for result, classes in ((evaluation.candidate, BLIND), (evaluation.baseline, GOOD)):
        np.testing.assert_array_equal(result.matrix, expected_matrix(frames[gate_split], classes))
        assert list(result.sequences) == [gate_split]
        expected = scores(expected_matrix(frames[selection_split], classes), CLASS_MAP)
        assert set(result.selection) == {"mean_iou", *(f"class_iou/{name}" for name in CLASS_MAP.scored_names)}
        np.testing.assert_equal(result.selection, {name: or_null(expected[name]) for name in result.selection})


@pytest.mark.parametrize("significant_only", [True, False])
def test_a_drop_in_one_image_of_five_blocks_only_if_all_drops_count(tmp_path, examples, models, significant_only):
    gate = GateSettings(min_mean_iou=0.0, max_class_drop=0.05, max_mean_drop=0.02, significant_drops=significant_only)
    inputs = {
        "examples": [examples],
        "model": [model_artifact(models["unlucky"])],
        "baseline_model": [model_artifact(models["good"])],
    }

    evaluation = run(tmp_path, inputs, gate).evaluation

    (mean,) = (check for check in evaluation.checks if (check.metric, check.kind) == ("mean_iou", "change"))
    assert mean.value == pytest.approx(evaluation.candidate.scores["mean_iou"] - evaluation.baseline.scores["mean_iou"])
    assert mean.value < mean.bound
    assert mean.interval[1] == 0
    assert mean.passed == mean.ignored == significant_only
    assert (not evaluation.failures) == significant_only
    assert mean.margin == pytest.approx((0 if significant_only else mean.value) + 0.02)


def test_a_directory_without_an_evaluation_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="found no mean_iou of a candidate"):
        load_evaluation(str(tmp_path), CLASS_MAP)
