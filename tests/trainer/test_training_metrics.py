import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import jaccard_score

from components.class_map import ClassMap
from components.metrics.confusion import confusion_matrix
from components.metrics.scores import mean_iou
from trainer.metrics import MeanIoU, MeanLoss


def class_map(size: int, ignore_index: int | None = None) -> ClassMap:
    return ClassMap(tuple(f"class {i}" for i in range(size)), ((0, 0, 0),) * size, ignore_index)


def as_logits(predicted: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size, dtype=np.float32)[predicted] * 5 - 1


def test_the_worked_4x4_example():
    truth = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]])
    predicted = np.array([[1, 0, 0, 0], [1, 3, 0, 1], [2, 2, 2, 3], [3, 1, 0, 0]])
    metric = MeanIoU(class_map(4))

    metric.update_state(truth[np.newaxis], as_logits(predicted, 4)[np.newaxis])

    assert float(metric.result()) == pytest.approx((3 / 7 + 2 / 6 + 3 / 4 + 1 / 6) / 4)


def test_batches_add_up_to_scikit_learns_score_without_void():
    rng = np.random.default_rng(3)
    truth, predicted = rng.integers(0, 5, (6, 8, 9)), rng.integers(0, 4, (6, 8, 9))
    metric = MeanIoU(class_map(5, ignore_index=4))

    for start in (0, 2, 4):
        metric.update_state(truth[start : start + 2], as_logits(predicted[start : start + 2], 5))

    counted = truth != 4
    expected = jaccard_score(truth[counted], predicted[counted], average="macro")
    assert float(metric.result()) == pytest.approx(expected)


def test_void_predicted_on_a_scored_pixel_is_a_miss():
    metric = MeanIoU(class_map(3, ignore_index=2))

    metric.update_state(np.array([[[0, 0, 1, 1]]]), as_logits(np.array([[[0, 2, 1, 1]]]), 3))

    assert float(metric.result()) == pytest.approx((1 / 2 + 1) / 2)


@pytest.mark.parametrize("ignore_index", [None, 3])
def test_the_mean_iou_equals_that_of_the_evaluation(ignore_index):
    # Class 2 is only predicted; class 4 is neither true nor predicted.
    truth, predicted = np.array([[0, 0, 1, 1, 3, 3]]), np.array([[0, 2, 1, 3, 3, 0]])
    metric = MeanIoU(class_map(5, ignore_index))

    metric.update_state(truth[np.newaxis], as_logits(predicted, 5)[np.newaxis])

    expected = mean_iou(confusion_matrix(truth, predicted, 5), class_map(5, ignore_index))
    assert float(metric.result()) == pytest.approx(expected)
    assert expected == pytest.approx((1 / 2 + 1 / 2) / 2 if ignore_index == 3 else (1 / 3 + 1 / 2 + 1 / 3) / 3)


def test_the_mean_iou_of_no_scored_pixel_is_nan():
    assert math.isnan(float(MeanIoU(class_map(3)).result()))


@pytest.mark.parametrize("ignore_index", [None, 2])
def test_padding_does_not_count(ignore_index):
    truth, predicted = np.array([[[0, -1, 1, 1]], [[-1] * 4]]), np.array([[[0, 1, 1, 0]], [[0, 1, 2, 0]]])
    metric = MeanIoU(class_map(3, ignore_index))

    metric.update_state(truth, as_logits(predicted, 3))

    assert metric.variables[0].numpy().sum() == 3
    assert float(metric.result()) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_the_mean_loss_is_that_of_all_images():
    metric = MeanLoss()

    for loss, images in ((2.0, 4), (5.0, 1), (7.0, 0)):
        metric.update_state(tf.constant(loss), tf.constant(images))

    assert float(metric.result()) == pytest.approx((2 * 4 + 5) / 5)


def test_the_mean_loss_of_no_image_is_nan():
    assert math.isnan(float(MeanLoss().result()))


def test_counts_stay_exact_beyond_float32():
    metric = MeanIoU(class_map(2))
    matrix = metric.variables[0]
    matrix.assign([[2.0**25, 0.0], [0.0, 1.0]])

    metric.update_state(tf.zeros([1, 1, 1]), as_logits(np.array([[[0]]]), 2))

    assert matrix.numpy()[0, 0] == 2**25 + 1
