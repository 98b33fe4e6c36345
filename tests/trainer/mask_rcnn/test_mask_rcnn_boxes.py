import numpy as np
import pytest
import tensorflow as tf

from trainer.models.mask_rcnn import anchors, boxes, matching


def test_anchors_are_those_of_the_paper_at_its_size():
    found = anchors.anchors((800, 1024))

    assert found.shape == (sum(anchors.counts((800, 1024))), 4)
    # The first position of P2: ratios of height to width of 1:2, 1:1 and 2:1, each with an area of 32x32 pixels.
    np.testing.assert_allclose(found[1], [-14, -14, 18, 18], atol=1e-4)
    sides = found[:3, 2:] - found[:3, :2]
    np.testing.assert_allclose(sides[:, 0] / sides[:, 1], [0.5, 1, 2], rtol=1e-5)
    np.testing.assert_allclose(sides.prod(axis=1), 32**2, rtol=1e-5)
    # The last position of P6, whose stride is 64: 512x512 pixels.
    np.testing.assert_allclose(np.diff(found[-2].reshape(2, 2), axis=0), [[512, 512]], rtol=1e-5)
    assert (np.diff(found[1:7:3], axis=0) == [0, 4, 0, 4]).all()


def test_small_images_have_smaller_anchors_and_odd_sizes_are_rounded_up():
    assert anchors.scale((800, 1333)) == anchors.scale((1000, 1000)) == 1
    assert anchors.scale((400, 2000)) == 0.5
    assert anchors.scale((96, 128)) == 0.375
    # P6 has half of P5's 3x5 positions, rounded up.
    assert anchors.counts((96, 160))[3:] == [3 * 15, 3 * 2 * 3]


def test_decoded_offsets_are_the_boxes():
    origins = tf.constant([[10.0, 10, 30, 50], [0, 0, 8, 8]])
    true = tf.constant([[12.0, 5, 40, 45], [1, 1, 9, 20]])

    offsets = boxes.encode(origins, true, boxes.BOX_VARIANCE)

    # Ren et al. 2015, equation 2, divided by the variance: the centre moves by 6 of 20 pixels down and -5 of 40 across.
    np.testing.assert_allclose(offsets[0], [6 / 20 / 0.1, -5 / 40 / 0.1, np.log(28 / 20) / 0.2, 0], atol=1e-5)
    np.testing.assert_allclose(boxes.decode(origins, offsets, boxes.BOX_VARIANCE, (100, 100)), true, atol=1e-4)


def test_decoded_boxes_stay_in_the_image_and_finite():
    origins = tf.constant([[10.0, 10, 30, 50]])

    (found,) = boxes.decode(origins, tf.constant([[0.0, 0, 1e9, 1e9]]), boxes.ANCHOR_VARIANCE, (100, 120)).numpy()

    assert found.tolist() == [0, 0, 100, 120]


def test_the_best_box_of_each_group_is_kept():
    found = tf.constant([[[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [50, 50, 60, 60], [70, 70, 80, 80]]])
    scores, groups = tf.constant([[0.8, 0.9, 0.7, 0.3, 0.05]]), tf.constant([[0, 0, 1, 0, 1]])

    kept, real = boxes.keep_best(found, scores, groups, number=4, max_iou=0.5, min_score=0.1)

    assert kept[0][real[0]].numpy().tolist() == [1, 2, 3]
    assert real.numpy().tolist() == [[True, True, True, False]]


# IoU with the first truth, 10x10 pixels: 1, 0.7, 0.5 and 0.2. The fifth box is half of the second truth.
CANDIDATES = [[0, 0, 10, 10], [0, 0, 7, 10], [0, 0, 5, 10], [0, 0, 2, 10], [40, 40, 45, 50], [80, 80, 90, 90]]
TRUTH = [[[0, 0, 10, 10], [40, 40, 50, 50], [0, 0, 0, 0]]]


@pytest.mark.parametrize(
    ("force_best", "expected"),
    [(False, [1, 1, -1, 0, -1, 0]), (True, [1, 1, -1, 0, 1, 0])],
    ids=["not forced", "forced"],
)
def test_boxes_are_matched_by_the_papers_thresholds(force_best, expected):
    labels, instance = matching.match(
        tf.constant(CANDIDATES, tf.float32), tf.constant(TRUTH, tf.float32), 0.7, 0.3, force_best
    )

    assert labels.numpy().tolist() == [expected]
    assert instance.numpy()[0, [0, 1, 4]].tolist() == [0, 0, 1]


def test_without_an_instance_every_box_is_negative():
    labels, _ = matching.match(tf.constant(CANDIDATES, tf.float32), tf.zeros([1, 3, 4]), 0.7, 0.3, force_best=True)

    assert labels.numpy().tolist() == [[0] * 6]


@pytest.mark.parametrize(("positive", "expected"), [(30, 4), (3, 3), (0, 0)])
def test_one_in_four_boxes_at_most_is_positive_and_comes_first(positive, expected):
    labels = tf.constant([[1] * positive + [-1] * 5 + [0] * 40])

    index, positives, drawn = matching.sample(labels, 16, 4, tf.constant([1, 2]))

    assert positives.numpy().tolist() == [[True] * expected + [False] * (16 - expected)]
    assert drawn.numpy().all()
    assert len(set(index.numpy()[0])) == 16
    assert tf.gather(labels[0], index[0]).numpy().tolist() == [1] * expected + [0] * (16 - expected)


def test_too_few_boxes_are_padded_with_invalid_ones():
    index, positives, drawn = matching.sample(tf.constant([[0, 1, -1, -1, 0]]), 4, 2, tf.constant([1, 2]))

    assert (int(positives.numpy().sum()), int(drawn.numpy().sum())) == (1, 3)
    assert set(index[0][drawn[0]].numpy()) == {0, 1, 4}


def test_a_sample_depends_on_its_seed():
    labels = tf.zeros([1, 100], tf.int32)
    first, again, other = (matching.sample(labels, 8, 2, tf.constant([seed, 0]))[0].numpy() for seed in (1, 1, 2))

    assert (first == again).all()
    assert (first != other).any()
