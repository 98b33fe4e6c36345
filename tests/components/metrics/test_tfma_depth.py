"""A model of classes and depth evaluated in process by TFX's Evaluator, with and without a baseline."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tfx_evaluator import evaluate_model, evaluator_inputs, image_of, raw_example

from components.class_map import ClassMap
from components.drawing import png_bytes
from components.metrics.depth import DepthTally, error_sums
from components.metrics.gate import eval_config
from components.metrics.results import Evaluation, load_evaluation
from components.metrics.settings import GateSettings
from components.metrics.threshold_check import ThresholdCheck
from components.report import wording
from components.schema import raw_schema

SIZE = (8, 12)
SCALE = 100.0
CLASS_MAP = ClassMap(("road", "car"), ((0, 0, 0), (255, 0, 0)))
_RNG = np.random.default_rng(0)
# The last image is in the split that selected the epoch.
TRUTH = _RNG.integers(500, 6000, (6, *SIZE)).astype(np.uint16)
TRUTH[:, :2] = 0
ESTIMATE = (TRUTH * _RNG.uniform(0.7, 1.4, TRUTH.shape) + 1).astype(np.uint16)
WORSE = (ESTIMATE * 1.4).astype(np.uint16)


class Remembered(tf.Module):
    """Answers with one mask, and the depth map of the scene that an image names, as the signature `evaluation` does."""

    def __init__(self, depth: np.ndarray | None):
        super().__init__()
        self._mask = tf.constant(png_bytes(np.zeros(SIZE, np.uint8)))
        self._depth = None if depth is None else tf.constant([png_bytes(each) for each in depth])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def evaluate(self, image):
        first = tf.map_fn(lambda each: tf.io.decode_png(each)[0, 0, 0], image, fn_output_signature=tf.uint8)
        outputs = dict.fromkeys(("mask_png_bytes", "confidence_png_bytes"), tf.fill(tf.shape(image), self._mask))
        if self._depth is not None:
            outputs["depth_png_bytes"] = tf.gather(self._depth, tf.cast(first, tf.int32))
        return outputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict:
    models = {"good": Remembered(ESTIMATE), "worse": Remembered(WORSE), "classes": Remembered(None)}
    rows = [raw_example(index, SIZE, "day", CLASS_MAP, depth=png_bytes(TRUTH[index])) for index in range(6)]
    schema = raw_schema(CLASS_MAP, 256, has_depth=True)
    return evaluator_inputs(tmp_path_factory.mktemp("depth"), rows, schema, models)


def run(root: pathlib.Path, inputs: dict, model: str, baseline: str = "", **gate) -> tuple[bool, Evaluation]:
    config = eval_config(CLASS_MAP, GateSettings(**gate), "abc", selection_split="val", depth_scale=SCALE)
    uri, blessed = evaluate_model(root, inputs, model, baseline, config)
    return blessed, load_evaluation(uri, CLASS_MAP)


def expected(estimate: np.ndarray) -> dict[str, float]:
    """The scores by their formulas over the known pixels of the images that the gate judges."""
    truth, found = (each[:5][TRUTH[:5] > 0] / SCALE for each in (TRUTH, estimate))
    return {
        "abs_rel": np.mean(np.abs(found - truth) / truth),
        "rmse": math.sqrt(np.mean((found - truth) ** 2)),
        "delta_1": np.mean(np.maximum(found / truth, truth / found) < 1.25),
    }


def test_a_first_model(tmp_path, inputs):
    blessed, evaluation = run(tmp_path, inputs, "good", max_abs_rel=0.1)

    assert evaluation.candidate.depth == pytest.approx(expected(ESTIMATE))
    assert evaluation.candidate.flat(CLASS_MAP).keys() >= {"mean_iou", "abs_rel"}
    low, high = evaluation.candidate.intervals["abs_rel"]
    assert low < expected(ESTIMATE)["abs_rel"] < high
    (failure,) = evaluation.failures
    assert not blessed
    assert (failure.metric, failure.kind, failure.bound) == ("abs_rel", "value", 0.1)
    assert failure.margin == pytest.approx(0.1 - expected(ESTIMATE)["abs_rel"])
    assert failure.reason.endswith(" above its maximum of 0.100")


def test_a_rise_of_the_error_blocks_and_a_fall_does_not(tmp_path, inputs):
    blessed, evaluation = run(tmp_path / "worse", inputs, "worse", "good", max_abs_rel=1.0)

    (failure,) = evaluation.failures
    rise = expected(WORSE)["abs_rel"] - expected(ESTIMATE)["abs_rel"]
    assert not blessed
    assert (failure.metric, failure.kind, failure.bound) == ("abs_rel", "change", 0.02)
    assert failure.value == pytest.approx(rise)
    assert failure.counted == pytest.approx(rise)
    assert evaluation.baseline.depth == pytest.approx(expected(ESTIMATE))
    assert failure.reason.endswith(" above the +0.020 allowed")

    blessed, evaluation = run(tmp_path / "better", inputs, "good", "worse")
    assert blessed
    assert {check.metric: check.passed for check in evaluation.checks}["abs_rel"]


def test_without_depth_in_the_baseline_no_rise_is_bounded(tmp_path, inputs):
    blessed, evaluation = run(tmp_path, inputs, "good", "classes")

    assert blessed
    assert np.isnan(list(evaluation.baseline.depth.values())).all()
    assert evaluation.candidate.depth == pytest.approx(expected(ESTIMATE))


def test_tallies_add_up():
    parts, whole = (DepthTally(), DepthTally()), DepthTally()
    for index in range(4):
        sums = error_sums(TRUTH[index].astype(float), ESTIMATE[index].astype(float), SCALE), image_of(index, SIZE)
        parts[index % 2].add(*sums)
        whole.add(*sums)
    parts[0].merge(parts[1])

    assert parts[0].flat() == pytest.approx(whole.flat())
    np.testing.assert_allclose(parts[0].resampled()["rmse"], whole.resampled()["rmse"])
    assert np.isnan(list(DepthTally().flat().values())).all()


def test_depth_maps_of_different_sizes_are_rejected():
    with pytest.raises(ValueError, match=r"estimate has shape \(2, 2\), the truth \(8, 12\)"):
        error_sums(TRUTH[0], np.ones((2, 2)), SCALE)


def test_a_missed_bound_on_an_error_is_above_a_maximum():
    gate = ThresholdCheck("abs_rel", "value", 0.1, 0.15, False, lower_is_better=True)

    assert wording.gate_bound(gate) == "at most 0.100"
    assert gate.shortfall == "is 0.150, 0.050 above its maximum of 0.100"
    rise = dataclasses.replace(gate, kind="change", bound=0.02, value=0.05)
    assert rise.shortfall.endswith("0.030 above the +0.020 allowed")
