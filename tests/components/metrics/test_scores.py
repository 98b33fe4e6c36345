"""The scores against a worked example, a formula, scikit-learn, and properties that they must have."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from components.class_map import ClassMap
from components.metrics.confusion import confusion_matrix
from components.metrics.scores import nested, scores

NUM_CLASSES = 5
MEANS = ("mean_iou", "mean_dice", "pixel_accuracy", "frequency_weighted_iou", "mean_iou_with_void")
VOID = NUM_CLASSES - 1


def class_map(num_classes: int = NUM_CLASSES, ignore_index: int | None = None) -> ClassMap:
    return ClassMap(
        names=tuple(f"class {i}" for i in range(num_classes)),
        colors=tuple((i, i, i) for i in range(num_classes)),
        ignore_index=ignore_index,
    )


def by_class(result: dict[str, float], family: str) -> dict[str, float]:
    return {name.partition("/")[2]: value for name, value in result.items() if name.startswith(f"{family}/")}


WITH_VOID = class_map(ignore_index=VOID)
masks = hnp.arrays(np.uint8, st.just((4, 6)), elements=st.integers(0, NUM_CLASSES - 1))
matrices = hnp.arrays(np.int64, (NUM_CLASSES, NUM_CLASSES), elements=st.integers(0, 10**12))

# The worked example of a 4x4 image with four classes.
TRUTH = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]])
PREDICTION = np.array([[1, 0, 0, 0], [1, 3, 0, 1], [2, 2, 2, 3], [3, 1, 0, 0]])


def class_wise_metrics(y_true: np.ndarray, y_pred: np.ndarray, n_classes: int) -> tuple[list[float], list[float]]:
    """Class-wise formula with smoothing: overlap over union, and twice the overlap over the combined area."""
    smoothening_factor = 0.00001
    class_wise_iou, class_wise_dice_score = [], []
    for i in range(n_classes):
        intersection = np.sum((y_pred == i) * (y_true == i))
        y_true_area = np.sum(y_true == i)
        y_pred_area = np.sum(y_pred == i)
        combined_area = y_true_area + y_pred_area
        class_wise_iou.append((intersection + smoothening_factor) / (combined_area - intersection + smoothening_factor))
        class_wise_dice_score.append(2 * (intersection + smoothening_factor) / (combined_area + smoothening_factor))
    return class_wise_iou, class_wise_dice_score


def test_the_worked_example():
    result = scores(confusion_matrix(TRUTH, PREDICTION, 4), class_map(4))

    assert list(by_class(result, "class_iou").values()) == pytest.approx([3 / 7, 2 / 6, 3 / 4, 1 / 6])
    assert round(result["mean_iou"], 3) == 0.420
    assert result["mean_iou"] == pytest.approx((3 / 7 + 2 / 6 + 3 / 4 + 1 / 6) / 4)
    assert result["pixel_accuracy"] == pytest.approx(9 / 16)
    assert set(nested(result)) == {*MEANS, "class_iou", "class_dice"}


@given(masks, masks)
def test_agrees_with_the_class_wise_formula(truth, prediction):
    result = scores(confusion_matrix(truth, prediction, NUM_CLASSES), class_map())
    iou, dice = class_wise_metrics(truth, prediction, NUM_CLASSES)

    for index, name in enumerate(class_map().names):
        if not math.isnan(by_class(result, "class_iou")[name]):
            assert by_class(result, "class_iou")[name] == pytest.approx(iou[index], abs=1e-4)
            assert by_class(result, "class_dice")[name] == pytest.approx(dice[index], abs=1e-4)


@given(masks, masks)
def test_agrees_with_scikit_learn_without_an_ignore_index(truth, prediction):
    result = scores(confusion_matrix(truth, prediction, NUM_CLASSES), class_map())
    flat = truth.ravel(), prediction.ravel()
    present = np.unique(truth)

    iou = sklearn.metrics.jaccard_score(*flat, labels=present, average=None)
    dice = sklearn.metrics.f1_score(*flat, labels=present, average=None)
    assert [by_class(result, "class_iou")[f"class {i}"] for i in present] == pytest.approx(iou)
    assert [by_class(result, "class_dice")[f"class {i}"] for i in present] == pytest.approx(dice)
    assert result["mean_iou"] == result["mean_iou_with_void"] == pytest.approx(iou.mean())
    assert result["mean_dice"] == pytest.approx(dice.mean())
    assert result["pixel_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(*flat))
    assert result["frequency_weighted_iou"] == pytest.approx(
        sklearn.metrics.jaccard_score(*flat, labels=present, average="weighted")
    )


@given(masks, masks)
def test_agrees_with_scikit_learn_with_an_ignore_index(truth, prediction):
    counted = truth != VOID
    assume(counted.any())
    flat = truth[counted], prediction[counted]
    present = np.unique(flat[0])

    result = scores(confusion_matrix(truth, prediction, NUM_CLASSES), WITH_VOID)

    iou = sklearn.metrics.jaccard_score(*flat, labels=present, average=None)
    dice = sklearn.metrics.f1_score(*flat, labels=present, average=None)
    assert result["mean_iou"] == pytest.approx(iou.mean())
    assert result["mean_dice"] == pytest.approx(dice.mean())
    assert result["pixel_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(*flat))
    assert "class 4" not in by_class(result, "class_iou")
    assert "class 4" not in by_class(result, "class_dice")


@given(masks, masks, masks)
def test_predictions_on_ignored_pixels_change_only_the_score_with_void(truth, prediction, other):
    changed = np.where(truth == VOID, other, prediction)

    before = nested(scores(confusion_matrix(truth, prediction, NUM_CLASSES), WITH_VOID))
    after = nested(scores(confusion_matrix(truth, changed, NUM_CLASSES), WITH_VOID))

    del before["mean_iou_with_void"], after["mean_iou_with_void"]
    assert before == after


def test_predicting_the_ignored_class_is_a_miss():
    truth, prediction = np.array([[0, 0, 0, 0]]), np.array([[0, 0, 0, VOID]])

    result = scores(confusion_matrix(truth, prediction, NUM_CLASSES), WITH_VOID)

    assert by_class(result, "class_iou")["class 0"] == pytest.approx(3 / 4)
    assert result["pixel_accuracy"] == pytest.approx(3 / 4)


def test_void_counts_as_a_class_in_the_score_with_void():
    truth, prediction = np.array([[0, 0, VOID, VOID]]), np.array([[0, 0, 0, VOID]])

    result = scores(confusion_matrix(truth, prediction, NUM_CLASSES), WITH_VOID)

    assert result["mean_iou"] == 1.0
    assert result["mean_iou_with_void"] == pytest.approx((2 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize("prediction", [[0, 0, 1, 1], [0, 0, 1, 2]])
def test_a_class_without_a_true_pixel_has_no_score(prediction):
    result = scores(confusion_matrix(np.array([[0, 0, 1, 1]]), np.array([prediction]), NUM_CLASSES), WITH_VOID)

    assert math.isnan(by_class(result, "class_iou")["class 2"])
    assert math.isnan(by_class(result, "class_dice")["class 2"])
    iou = prediction.count(1) / 2
    assert result["mean_iou"] == (1 + iou) / 2
    assert result["mean_dice"] == (1 + 2 * iou / (1 + iou)) / 2


def test_a_stray_pixel_of_an_absent_class_hardly_moves_the_mean():
    # Ten classes with an IoU of 0.6 each; the eleventh is not in the truth.
    matrix = np.zeros((11, 11), np.int64)
    matrix[:10, :10] = 750 * np.eye(10) + 250 * np.roll(np.eye(10), 1, axis=1)
    stray = matrix.copy()
    stray[0, 0], stray[0, 10] = 749, 1

    before, after = (scores(counted, class_map(11))["mean_iou"] for counted in (matrix, stray))

    assert before == pytest.approx(0.6)
    assert after == pytest.approx(before, abs=1e-4)


def test_nothing_to_score_gives_no_score():
    result = nested(scores(np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64), WITH_VOID))

    assert {result[name] for name in MEANS} == {None}
    assert set(result["class_iou"].values()) == {None}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@given(matrices)
def test_dice_follows_from_iou(matrix):
    result = scores(matrix, WITH_VOID)
    for name, iou in by_class(result, "class_iou").items():
        assert by_class(result, "class_dice")[name] == pytest.approx(2 * iou / (1 + iou), nan_ok=True)


@given(matrices)
def test_scores_are_fractions(matrix):
    result = scores(matrix, WITH_VOID)
    assert all(math.isnan(value) or 0 <= value <= 1 for value in result.values())


@given(matrices, st.permutations(range(NUM_CLASSES)))
def test_the_order_of_classes_does_not_matter(matrix, order):
    renamed = ClassMap(
        names=tuple(WITH_VOID.names[i] for i in order),
        colors=tuple(WITH_VOID.colors[i] for i in order),
        ignore_index=order.index(VOID),
    )

    before = scores(matrix, WITH_VOID)
    after = scores(matrix[np.ix_(order, order)], renamed)

    assert by_class(after, "class_iou") == pytest.approx(by_class(before, "class_iou"), nan_ok=True)
    assert by_class(after, "class_dice") == pytest.approx(by_class(before, "class_dice"), nan_ok=True)
    for name in MEANS:
        assert after[name] == pytest.approx(before[name], nan_ok=True)


def test_a_matrix_of_another_class_map_is_rejected():
    with pytest.raises(ValueError, match=r"\(3, 3\).*expected \(5, 5\)"):
        scores(np.zeros((3, 3), np.int64), WITH_VOID)
