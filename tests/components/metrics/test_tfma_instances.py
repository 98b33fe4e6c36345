"""A model of instances evaluated in process by TFX's Evaluator, with and without a baseline."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from random_instances import INDICES, SIZE, THINGS, Scene, scenes
from tfx_evaluator import evaluate_model, evaluator_inputs, image_of, raw_example

from components import features
from components.class_map import ClassMap
from components.drawing import png_bytes
from components.metrics import tfma_instances
from components.metrics.average_precision import AveragePrecision, ImageMatches, match
from components.metrics.bootstrap import change_intervals, score_intervals
from components.metrics.detections import Detections
from components.metrics.gate import eval_config
from components.metrics.results import Evaluation, load_evaluation
from components.metrics.settings import GateSettings
from components.schema import raw_schema

_MOST = 32
_NAMES = tuple(dict(zip(INDICES, THINGS, strict=True)).get(index, f"stuff {index}") for index in range(10))
CLASS_MAP = ClassMap(_NAMES, tuple((index, 0, 0) for index in range(10)))


class Remembered(tf.Module):
    """Answers with the detections of the scene that an image names, in the form of the signature `evaluation`."""

    def __init__(self, found: list[Detections]):
        super().__init__()
        padded = [_MOST - len(each.scores) for each in found]
        self._boxes = tf.constant(
            [np.pad(each.boxes, ((0, more), (0, 0))) for each, more in zip(found, padded, strict=True)]
        )
        self._classes = tf.constant(
            [np.pad(each.classes, (0, more), constant_values=-1) for each, more in zip(found, padded, strict=True)]
        )
        self._scores = tf.constant([np.pad(each.scores, (0, more)) for each, more in zip(found, padded, strict=True)])
        self._masks = tf.constant(
            [
                [*(png_bytes(np.uint8(255) * mask) for mask in each.masks), *[b""] * more]
                for each, more in zip(found, padded, strict=True)
            ]
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def evaluate(self, image):
        first = tf.map_fn(lambda each: tf.io.decode_png(each)[0, 0, 0], image, fn_output_signature=tf.uint8)
        index = tf.cast(first, tf.int32)
        tables = self._boxes, self._classes, self._scores, self._masks
        return dict(
            zip(
                ("boxes", "classes", "scores", "instance_png_bytes"),
                (tf.gather(table, index) for table in tables),
                strict=True,
            )
        )


def sequence_of(index: int) -> str:
    return "dusk" if index % 2 else "day"


@pytest.fixture(scope="module")
def data() -> list[Scene]:
    """Images of the split test, then of val; one has neither instances nor detections."""
    found = scenes(3, count=8)
    _, truth, detections = found[2]
    found[2] = (
        b"",
        type(truth)(truth.masks[:0], truth.classes[:0], truth.crowd[:0]),
        Detections(detections.masks[:0], detections.boxes[:0], detections.classes[:0], detections.scores[:0]),
    )
    return found


def worse(found: Detections) -> Detections:
    """The same with every mask moved by a tenth of the image."""
    masks = np.roll(found.masks, 5, axis=2)
    return Detections(masks, found.boxes + np.float32([0, 5, 0, 5]), found.classes, found.scores)


_JUDGED = range(5)


def expected_matches(data: list[Scene], indices=_JUDGED, change=lambda found: found) -> list[ImageMatches]:
    return [
        match(data[index][1], change(data[index][2]), INDICES, image_of(index, SIZE), sequence_of(index))
        for index in indices
    ]


def expected(data: list[Scene], *args) -> AveragePrecision:
    return AveragePrecision(expected_matches(data, *args), THINGS)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, data) -> dict:
    models = {
        "good": Remembered([found for _, _, found in data]),
        "worse": Remembered([worse(found) for _, _, found in data]),
    }
    rows = [
        raw_example(index, SIZE, sequence_of(index), CLASS_MAP, instances=truth)
        for index, (_, truth, _) in enumerate(data)
    ]
    schema = raw_schema(CLASS_MAP, 256, has_instances=True)
    return evaluator_inputs(tmp_path_factory.mktemp("instances"), rows, schema, models)


def run(root: pathlib.Path, inputs: dict, model: str, baseline: str = "", **gate) -> tuple[str, bool, Evaluation]:
    config = eval_config(CLASS_MAP, GateSettings(**gate), "abc", selection_split="val", things=THINGS)
    uri, blessed = evaluate_model(root, inputs, model, baseline, config)
    return uri, blessed, load_evaluation(uri, CLASS_MAP)


def test_a_first_model(tmp_path, data, inputs):
    uri, blessed, evaluation = run(tmp_path, inputs, "good", min_mask_ap=0.0, min_class_ap={"car": 0.999})

    scores = expected(data).flat()
    candidate = evaluation.candidate
    assert 0.1 < scores["mask_ap"] < 1
    np.testing.assert_equal(candidate.scores, pytest.approx(scores, abs=1e-12, nan_ok=True))
    assert np.isnan(candidate.scores["class_mask_ap/tram"])
    assert candidate.scores["class_box_ap50/car"] == scores["class_box_ap50/car"]
    assert candidate.flat(CLASS_MAP).keys() == scores.keys()
    assert candidate.diagnostics is None
    assert evaluation.baseline is None
    reported = tfma.load_eval_result(uri).get_metrics_for_slice()
    assert reported["mask_ap"]["doubleValue"] == pytest.approx(scores["mask_ap"])

    selection = expected(data, range(5, 8)).flat()
    assert set(candidate.selection) == {"mask_ap", *(f"class_mask_ap/{name}" for name in THINGS)}
    assert candidate.selection["mask_ap"] == selection["mask_ap"]
    assert candidate.selection["class_mask_ap/tram"] is None

    sequences = {name: expected(data, list(rows)).mask_ap for name, rows in (("day", (0, 2, 4)), ("dusk", (1, 3)))}
    assert {name: row["mask_ap"] for name, row in candidate.sequences.items()} == pytest.approx(sequences)
    intervals = score_intervals(expected(data).resampled())
    assert candidate.intervals == {name: bounds for name, bounds in intervals.items() if not np.isnan(bounds[0])}

    (failure,) = evaluation.failures
    assert not blessed
    assert (failure.metric, failure.kind, failure.value) == ("class_mask_ap/car", "value", scores["class_mask_ap/car"])


def test_a_drop_against_the_baseline_blocks(tmp_path, data, inputs):
    _, blessed, evaluation = run(
        tmp_path, inputs, "worse", "good", min_mask_ap=0.0, max_class_drop=1.0, significant_drops=False
    )

    after, before = expected(data, _JUDGED, worse), expected(data)
    assert evaluation.baseline.scores["mask_ap"] == pytest.approx(before.mask_ap)
    (failure,) = evaluation.failures
    assert not blessed
    assert (failure.metric, failure.kind) == ("mask_ap", "change")
    assert failure.value == pytest.approx(after.mask_ap - before.mask_ap)
    assert failure.value < -0.02
    changes = change_intervals(after.resampled(), before.resampled())
    assert evaluation.change_intervals["mask_ap"] == pytest.approx(changes["mask_ap"])
    kept = {(check.metric, check.kind) for check in evaluation.checks if check.passed}
    assert kept == {("mask_ap", "value"), *((f"class_mask_ap/{name}", "change") for name in THINGS)}


def test_examples_without_instances_are_rejected():
    with pytest.raises(ValueError, match="found no feature instance/class in an example, .* name its `things`"):
        tfma_instances.true_instances({features.HEIGHT: [4], features.WIDTH: [4]})
