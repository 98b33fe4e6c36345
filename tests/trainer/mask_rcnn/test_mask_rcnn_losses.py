import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import UsageError
from serving.instance_masks import paste
from trainer.config import ModelSettings
from trainer.models import encoders, registry
from trainer.models.mask_rcnn import anchors, boxes, losses, model
from trainer.models.mask_rcnn.detection import Detections
from trainer.models.mask_rcnn.proposals import Proposals
from trainer.models.mask_rcnn.truth import Truth, read

SIZE = (64, 96)
SEED = tf.constant([3, 4])


@pytest.fixture(scope="module")
def truth() -> Truth:
    stacks = np.zeros((2, *SIZE, 4), np.uint8)
    stacks[0, 8:40, 8:40, 0] = 1
    stacks[0, 20:52, 60:84, 1] = 2
    stacks[1, 8:24, 30:62, 0] = 2
    return read(tf.constant(stacks))


def test_smooth_l1_is_quadratic_below_beta_and_linear_above():
    found = losses.smooth_l1(tf.zeros([2, 2]), tf.constant([[0.5, 0.0], [3.0, -1.0]]), beta=1.0)

    assert found.numpy().tolist() == [0.125, 2.5 + 0.5]


def test_perfect_proposals_have_no_loss(truth):
    all_anchors = tf.constant(anchors.anchors(SIZE))
    iou = boxes.iou(all_anchors, truth.boxes).numpy()
    best = np.argmax(iou, axis=-1)
    peak = (iou == iou.max(axis=1, keepdims=True)) & (iou > 0)
    is_instance = (iou.max(axis=-1) >= 0.7) | peak.any(axis=-1)
    logits = tf.where(is_instance, 20.0, -20.0)
    offsets = boxes.encode(all_anchors, tf.gather(truth.boxes, best, batch_dims=1), boxes.ANCHOR_VARIANCE)

    right = float(losses.proposal_losses(logits, offsets, truth, SIZE, SEED))
    wrong_scores = float(losses.proposal_losses(-logits, offsets, truth, SIZE, SEED))
    wrong_places = float(losses.proposal_losses(logits, offsets + 1, truth, SIZE, SEED))

    assert right == pytest.approx(0, abs=1e-4)
    # Each sampled logit is wrong by 20.
    assert wrong_scores == pytest.approx(20, abs=1e-3)
    assert wrong_places > 0.01


def test_padding_does_not_change_the_loss(truth):
    padded = Truth(truth.masks, truth.labels, truth.boxes, tf.constant([1.0, 0.0]))
    draw = np.random.default_rng(0)
    logits = tf.constant(draw.normal(size=(2, sum(anchors.counts(SIZE)))), tf.float32)
    offsets = tf.zeros([*logits.shape, 4])

    # The predictions for the second image do not matter.
    found = [
        float(losses.proposal_losses(tf.concat([logits[:1], other], 0), offsets, padded, SIZE, SEED))
        for other in (logits[1:], logits[1:] * 100)
    ]

    assert found[0] == found[1] > 0


def test_mask_targets_are_the_part_of_the_mask_in_the_box(truth):
    # The left half of the first instance, and a box next to the second one.
    proposals = tf.constant([[[8.0, 0, 40, 16], [20, 32, 52, 60]]])

    left, beside = losses.mask_targets(truth.masks[:1], tf.constant([[0, 1]]), proposals).numpy()[0]

    np.testing.assert_array_equal(left, np.repeat([[0] * 14 + [1] * 14], 28, axis=0))
    assert not beside[:, :-1].any()


def test_every_variable_has_a_finite_gradient(truth):
    keras.utils.set_random_seed(0)
    settings = ModelSettings(name="mask_rcnn", encoder="mobilenet_v2", pyramid_filters=8, proposals=20, max_instances=5)
    network = model.build(settings, SIZE, things=2)
    levels = [f"p{level}" for level in range(2, 6)]
    to_train = keras.Model(
        network.inputs, [network.get_layer(name).output for name in (*levels, "objectness", "offsets", "proposals")]
    )
    images = np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3)).astype(np.float32)

    with tf.GradientTape() as tape:
        *features, objectness, offsets, proposals = to_train(images, training=True)
        loss = losses.proposal_losses(objectness, offsets, truth, SIZE, SEED)
        loss += losses.head_losses(network, features, proposals, truth, 16, SEED, training=True)
    gradients = tape.gradient(loss, network.trainable_variables)

    assert np.isfinite(float(loss))
    for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
        assert gradient is not None, f"{variable.path} learns nothing"
        assert np.isfinite(keras.ops.convert_to_numpy(gradient)).all(), variable.path


def test_proposals_are_the_best_anchors_moved_by_their_offsets():
    all_anchors = anchors.anchors(SIZE)
    objectness = np.full((1, len(all_anchors)), -9.0, np.float32)
    # An anchor of P2 away from the border, and its neighbour, which non-maximum suppression removes.
    inside = np.flatnonzero((all_anchors.min(axis=-1) > 4) & (all_anchors[:, 2] < 60) & (all_anchors[:, 3] < 90))[0]
    objectness[0, [inside, inside + 3]] = 5, 4
    offsets = np.zeros((*objectness.shape, 4), np.float32)
    offsets[0, inside] = [0.1, 0, 0, 0]
    offsets[0, inside + 3] = [0.1, -4 / np.diff(all_anchors[inside + 3][1::2])[0], 0, 0]

    found = Proposals(3, SIZE)(objectness, offsets).numpy()[0]

    height = all_anchors[inside, 2] - all_anchors[inside, 0]
    np.testing.assert_allclose(found[0], all_anchors[inside] + [0.1 * height, 0, 0.1 * height, 0], atol=1e-3)
    assert abs(found[1] - found[0]).max() > 1


def test_detections_are_the_boxes_of_their_class_above_the_minimum_score():
    proposals = tf.constant([[[0.0, 0, 20, 20], [30, 30, 60, 60], [0, 0, 0, 0]]])
    logits = tf.math.log([[[0.1, 0.7, 0.2], [0.85, 0.08, 0.07], [0.0001, 0.5, 0.5]]])
    offsets = np.zeros((1, 3, 2, 4), np.float32)
    # The first class moves its box down by a tenth of the height, 2 pixels.
    offsets[0, 0, 0, 0] = 0.1 / boxes.BOX_VARIANCE[0]

    found, classes, scores = Detections(4, 0.1, SIZE)(proposals, logits, tf.reshape(offsets, [1, 3, 8]))

    assert classes.numpy().tolist() == [[0, 1, -1, -1]]
    np.testing.assert_allclose(scores, [[0.7, 0.2, 0, 0]], rtol=1e-5)
    np.testing.assert_allclose(found[0, :3], [[2, 0, 22, 20], [0, 0, 20, 20], [0, 0, 0, 0]], atol=1e-4)


def test_masks_are_pasted_into_their_boxes_at_any_size():
    masks = np.zeros((1, 28, 28), np.float32)
    masks[0, :, :14] = 1
    half = paste(tf.constant(masks), tf.constant([[4.0, 10, 32, 66]]), (40, 80)).numpy()[0]

    expected = np.zeros((40, 80), bool)
    expected[4:32, 10:38] = True
    np.testing.assert_array_equal(half, expected)
    assert not paste(tf.ones([1, 28, 28]), tf.zeros([1, 4]), (40, 80)).numpy().any()


@pytest.mark.parametrize(
    "encoder",
    [pytest.param(name, marks=() if name == "vgg16" else pytest.mark.slow) for name in encoders.ENCODERS],
)
def test_every_encoder_supports_the_pyramid(encoder):
    settings = ModelSettings(name="mask_rcnn", encoder=encoder, pyramid_filters=8, proposals=20, max_instances=5)

    network = registry.build(settings, SIZE, 3)

    strides = [SIZE[0] // network.get_layer(f"p{level}").output.shape[1] for level in range(2, 7)]
    assert strides == [4, 8, 16, 32, 64]
    assert {name: value.shape[1:] for name, value in network.output.items()} == {
        "boxes": (5, 4),
        "classes": (5,),
        "scores": (5,),
        "masks": (5, 28, 28),
    }
    registry.freeze(network, settings, 1)


def test_a_network_needs_a_size():
    with pytest.raises(UsageError, match="size: found none, but mask_rcnn needs a fixed image size"):
        registry.build(ModelSettings(name="mask_rcnn"), None, 3)
