import numpy as np
import pytest
import roi_align_reference as reference
import tensorflow as tf

from trainer.models.mask_rcnn.roi_align import RoiAlign, align, levels_of


def _aligned() -> np.ndarray:
    features, boxes = reference.inputs()
    height, width = features.shape[1:3]
    first = tf.zeros(boxes.shape[:2], tf.int32)
    flat = tf.reshape(features, [2, height * width, -1])
    return align(flat, (first, first + height, first + width), boxes * reference.SCALE, reference.BINS).numpy()


def test_features_are_those_of_torchvision():
    expected = np.load(reference.FILE)["expected"]

    assert expected.std() > 0.1
    np.testing.assert_allclose(_aligned(), expected, atol=1e-4)


def test_features_are_those_of_the_torchvision_that_is_installed():
    pytest.importorskip("torchvision", reason="torchvision is not installed")

    np.testing.assert_allclose(_aligned(), reference.torchvision_roi_align(*reference.inputs()), atol=1e-4)


def test_large_boxes_read_deep_levels():
    sides = tf.constant([112, 223, 224, 447, 448, 3000, 1], tf.float32)
    boxes = tf.stack([tf.zeros(7), tf.zeros(7), sides, sides], axis=-1)

    # Lin et al. 2017, equation 1: boxes of 224 pixels belong to P4.
    assert levels_of(boxes, (800, 800)).numpy().tolist() == [1, 1, 2, 2, 3, 3, 0]
    assert levels_of(boxes / 2, (400, 400)).numpy().tolist() == [1, 1, 2, 2, 3, 3, 0]


def test_a_box_reads_its_pixels_of_its_level():
    # Every level holds its stride; P2 adds 100 times the row.
    levels = [np.full((1, 256 // stride, 384 // stride, 1), stride, np.float32) for stride in (4, 8, 16, 32)]
    levels[0] += np.arange(64, dtype=np.float32)[:, np.newaxis, np.newaxis] * 100
    boxes = tf.constant([[[40, 8, 56, 24], [0, 0, 60, 60], [0, 0, 256, 384]]], tf.float32)

    found = RoiAlign(2, (256, 384))(boxes, levels).numpy()[0, ..., 0]

    # Rows 10 to 14 of P2: the two bins have their centres at 11 and 13, which are half a pixel less as row indices.
    np.testing.assert_allclose(found[0], [[1054, 1054], [1254, 1254]])
    assert (found[1] == 8).all()
    assert (found[2] == 32).all()


def test_no_gradient_flows_to_boxes():
    boxes, values = tf.Variable([[[0.0, 0, 4, 4]]]), tf.Variable(tf.random.stateless_normal([1, 16, 2], [0, 1]))
    four = tf.constant([[4]])
    with tf.GradientTape() as tape:
        found = tf.reduce_sum(align(values, (four - 4, four, four), boxes, 3))

    to_boxes, to_values = tape.gradient(found, [boxes, values])

    assert to_boxes is None
    # The weights of all samples add up to the number of bins.
    assert float(tf.reduce_sum(tf.convert_to_tensor(to_values))) == pytest.approx(9 * 2, rel=1e-5)
