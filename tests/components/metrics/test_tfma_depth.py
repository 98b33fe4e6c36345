"""A model of classes and depth evaluated in process by TFX's Evaluator, with and without a baseline."""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx_evaluator import evaluate, model_artifact, schema_artifact, write_examples

from components import features
from components.class_map import ClassMap
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
# The last image is of the split that chose the epoch.
TRUTH = _RNG.integers(500, 6000, (6, *SIZE)).astype(np.uint16)
TRUTH[:, :2] = 0
ESTIMATE = (TRUTH * _RNG.uniform(0.7, 1.4, TRUTH.shape) + 1).astype(np.uint16)
WORSE = (ESTIMATE * 1.4).astype(np.uint16)


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def image_of(index: int) -> bytes:
    return png(np.full((*SIZE, 3), index, np.uint8))


class Remembered(tf.Module):
    """Answers with one mask, and the depth map of the scene that an image names, as the signature `evaluation` does."""

    def __init__(self, depth: np.ndarray | None):
        super().__init__()
        self._mask = tf.constant(png(np.zeros(SIZE, np.uint8)))
        self._depth = None if depth is None else tf.constant([png(each) for each in depth])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def evaluate(self, image):
        first = tf.map_fn(lambda each: tf.io.decode_png(each)[0, 0, 0], image, fn_output_signature=tf.uint8)
        outputs = dict.fromkeys(("mask_png_bytes", "confidence_png_bytes"), tf.fill(tf.shape(image), self._mask))
        if self._depth is not None:
            outputs["depth_png_bytes"] = tf.gather(self._depth, tf.cast(first, tf.int32))
        return outputs


def raw_example(index: int) -> tf.train.Example:
    example = tf.train.Example()
    feature = example.features.feature
    for name, value in {
        features.IMAGE: image_of(index),
        features.MASK: png(np.zeros(SIZE, np.uint8)),
        features.DEPTH: png(TRUTH[index]),
        features.NAME: b"%d" % index,
        features.SEQUENCE: b"day",
        features.SPLIT: b"test" if index < 5 else b"val",
        features.CONTENT_HASH: b"",
    }.items():
        feature[name].bytes_list.value.append(value)
    for name, side in zip((features.HEIGHT, features.WIDTH), SIZE, strict=True):
        feature[name].int64_list.value.append(side)
    for name in CLASS_MAP.names:
        feature[features.class_share(name)].float_list.value.append(0.1)
    return example


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("depth")
    for name, depth in (("good", ESTIMATE), ("worse", WORSE), ("classes", None)):
        module = Remembered(depth)
        tf.saved_model.save(module, str(root / name / "Format-Serving"), signatures={"evaluation": module.evaluate})
    rows = [raw_example(index) for index in range(6)]
    schema = raw_schema(CLASS_MAP, 256, has_depth=True)
    return {
        "examples": [write_examples(root / "examples", {"test": rows[:5], "val": rows[5:]})],
        "schema": [schema_artifact(tmp_path_factory.mktemp("schema"), schema)],
        **{name: [model_artifact(str(root / name))] for name in ("good", "worse", "classes")},
    }


def run(root: pathlib.Path, inputs: dict, model: str, baseline: str = "", **gate) -> tuple[bool, Evaluation]:
    config = eval_config(CLASS_MAP, GateSettings(**gate), "abc", selection_split="val", depth_scale=SCALE)
    chosen = {name: inputs[name] for name in ("examples", "schema")} | {"model": inputs[model]}
    if baseline:
        chosen["baseline_model"] = inputs[baseline]
    uri, blessed = evaluate(root, chosen, config, ("test", "val"))
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
    assert " the maximum is 0.100: " in failure.reason


def test_a_rise_of_the_error_blocks_and_a_fall_does_not(tmp_path, inputs):
    blessed, evaluation = run(tmp_path / "worse", inputs, "worse", "good", max_abs_rel=1.0)

    (failure,) = evaluation.failures
    rise = expected(WORSE)["abs_rel"] - expected(ESTIMATE)["abs_rel"]
    assert not blessed
    assert (failure.metric, failure.kind, failure.bound) == ("abs_rel", "change", 0.02)
    assert failure.value == pytest.approx(rise)
    assert failure.counted == pytest.approx(rise)
    assert evaluation.baseline.depth == pytest.approx(expected(ESTIMATE))
    assert "it may rise by 0.020" in failure.reason

    blessed, evaluation = run(tmp_path / "better", inputs, "good", "worse")
    assert blessed
    assert {check.metric: check.passed for check in evaluation.checks}["abs_rel"]


def test_a_baseline_without_depth_bounds_no_rise(tmp_path, inputs):
    blessed, evaluation = run(tmp_path, inputs, "good", "classes")

    assert blessed
    assert np.isnan(list(evaluation.baseline.depth.values())).all()
    assert evaluation.candidate.depth == pytest.approx(expected(ESTIMATE))


def test_tallies_add_up():
    parts, whole = (DepthTally(), DepthTally()), DepthTally()
    for index in range(4):
        sums = error_sums(TRUTH[index].astype(float), ESTIMATE[index].astype(float), SCALE), image_of(index)
        parts[index % 2].add(sums)
        whole.add(sums)
    parts[0].merge(parts[1])

    assert parts[0].flat() == pytest.approx(whole.flat())
    np.testing.assert_allclose(parts[0].resampled()["rmse"], whole.resampled()["rmse"])
    assert np.isnan(list(DepthTally().flat().values())).all()


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"estimate has shape \(2, 2\), the truth \(8, 12\)"):
        error_sums(TRUTH[0], np.ones((2, 2)), SCALE)


def test_the_report_words_an_error_as_one():
    gate = ThresholdCheck("abs_rel", "value", 0.1, 0.15, False, lower_is_better=True)

    assert wording.gate_bound(gate) == "at most 0.100"
    assert wording._shortfall(gate) == "Relative error of depth is 0.150, 0.050 above its maximum of 0.100"
    rise = dataclasses.replace(gate, kind="change", bound=0.02, value=0.05)
    assert wording._shortfall(rise).endswith("0.030 above the +0.020 allowed")
