import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import log_loss

from components.class_map import ClassMap
from components.errors import DataRejectedError
from trainer import augmentation, losses
from trainer.config import TrainingSettings
from trainer.decoded import SplitFacts
from trainer.losses import CrossEntropy, Dice, Focal, Lovasz, WeightedSum, class_weights
from trainer.padding import PADDING, real_images, real_pixels

CLASS_MAP = ClassMap(("road", "pole", "sky", "void"), ((0, 0, 0),) * 4, ignore_index=3)
FACTS = SplitFacts(2, 2, class_pixels=np.array([80, 10, 30, 40]), present_pixels=np.array([200, 100, 100, 200]))
WEIGHTS = np.array([0.5, 3.0, 1.0, 0.0], np.float32)

EVERY_LOSS = {
    "cross_entropy": CrossEntropy(WEIGHTS),
    "focal": Focal(WEIGHTS),
    "dice": Dice(CLASS_MAP),
    "lovasz": Lovasz(CLASS_MAP),
    "sum": WeightedSum([(1.0, CrossEntropy(WEIGHTS)), (0.5, Lovasz(CLASS_MAP))]),
}
every_loss = pytest.mark.parametrize("loss", EVERY_LOSS.values(), ids=EVERY_LOSS.keys())


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    """Random masks with all four classes, and random logits."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 4, (3, 5, 6)).astype(np.uint8), rng.normal(size=(3, 5, 6, 4)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def jaccard_loss(truth: np.ndarray, wrong: np.ndarray) -> float:
    """Returns one minus the IoU of a class if exactly the pixels in `wrong` are misclassified."""
    predicted = truth ^ wrong
    return 1 - (truth & predicted).sum() / max((truth | predicted).sum(), 1)


def lovasz_extension(truth: np.ndarray, errors: np.ndarray) -> float:
    """Computes the definition: the sum of error times increase of the loss, adding pixels by decreasing error."""
    wrong, before, total = np.zeros(truth.shape, bool), 0.0, 0.0
    for pixel in np.argsort(-errors, kind="stable"):
        wrong[pixel] = True
        after = jaccard_loss(truth, wrong)
        total += errors[pixel] * (after - before)
        before = after
    return total


def gradient(loss, labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        value = loss(labels, variable)
    return tape.gradient(value, variable).numpy()


def test_cross_entropy_is_the_weighted_mean_over_counted_pixels(batch):
    labels, logits = batch

    loss = EVERY_LOSS["cross_entropy"](labels, logits)

    flat = labels.ravel()
    expected = log_loss(flat, softmax(logits).reshape(-1, 4), sample_weight=WEIGHTS[flat], labels=range(4))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_is_its_formula(batch):
    labels, logits = batch

    loss = Focal(WEIGHTS, gamma=2.0)(labels, logits)

    right = np.take_along_axis(softmax(logits), labels[..., np.newaxis].astype(int), axis=-1)[..., 0]
    costs = WEIGHTS[labels] * (1 - right) ** 2 * -np.log(right)
    assert float(loss) == pytest.approx(costs.sum() / WEIGHTS[labels].sum(), rel=1e-5)


def test_focal_loss_without_focus_is_cross_entropy(batch):
    labels, logits = batch

    loss = Focal(WEIGHTS, gamma=0.0)(labels, logits)

    assert float(loss) == pytest.approx(float(EVERY_LOSS["cross_entropy"](labels, logits)), rel=1e-6)


def test_dice_is_its_formula_image_by_image(batch):
    labels, logits = batch
    labels[0][labels[0] == 1] = 0

    for image in range(3):
        found = EVERY_LOSS["dice"](labels[image : image + 1], logits[image : image + 1])
        counted = labels[image] != 3
        probabilities, truth = softmax(logits[image])[counted], np.eye(4)[labels[image][counted]]
        overlap, size = (probabilities * truth).sum(axis=0), (probabilities**2 + truth**2).sum(axis=0)
        present = truth.any(axis=0)
        assert float(found) == pytest.approx((1 - 2 * overlap / size)[present].mean(), rel=1e-5)
    assert not (labels[0] == 1).any()


def test_lovasz_is_its_definition_image_by_image(batch):
    labels, logits = batch

    for image in range(3):
        found = EVERY_LOSS["lovasz"](labels[image : image + 1], logits[image : image + 1])
        counted = labels[image] != 3
        truth, probabilities = labels[image][counted], softmax(logits[image])[counted]
        expected = [
            lovasz_extension(truth == c, np.abs((truth == c) - probabilities[:, c]))
            for c in range(3)
            if (truth == c).any()
        ]
        assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=12, max_size=12), st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_lovasz_of_a_hard_prediction_is_one_minus_the_mean_iou(truth, predicted):
    truth, predicted = np.array(truth), np.array(predicted)

    loss = Lovasz(CLASS_MAP)(truth.reshape(1, 3, 4), 200 * np.eye(4)[predicted].reshape(1, 3, 4, 4))

    expected = [jaccard_loss(truth == c, (truth == c) ^ (predicted == c)) for c in range(3) if (truth == c).any()]
    assert float(loss) == pytest.approx(np.mean(expected), abs=1e-5)


def test_lovasz_of_a_sample_is_that_of_every_second_row_and_column(batch):
    labels, logits = batch

    found = Lovasz(CLASS_MAP, stride=2)(labels, logits)

    assert float(found) == pytest.approx(float(EVERY_LOSS["lovasz"](labels[:, ::2, ::2], logits[:, ::2, ::2])))
    assert float(found) != pytest.approx(float(EVERY_LOSS["lovasz"](labels, logits)))


@every_loss
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much(loss, batch):
    labels = batch[0] % 3

    perfect, wrong = (float(loss(labels, 50 * np.eye(4)[(labels + shift) % 3])) for shift in (0, 1))

    assert perfect == pytest.approx(0, abs=1e-6)
    assert wrong > 0.9


@every_loss
def test_predictions_on_void_change_no_loss(loss, batch):
    labels, logits = batch
    void = labels == 3
    other = np.where(void[..., np.newaxis], np.float32(7) * logits[::-1], logits)

    assert float(loss(labels, other)) == float(loss(labels, logits))
    slopes = np.abs(gradient(loss, labels, logits)).sum(axis=-1)
    assert (slopes[void] == 0).all()
    assert slopes[~void].mean() > 0


@every_loss
def test_a_batch_of_void_has_no_loss_and_no_gradient(loss, batch):
    labels, logits = np.full((3, 5, 6), 3), batch[1]

    assert float(loss(labels, logits)) == 0.0
    assert (gradient(loss, labels, logits) == 0).all()


@every_loss
def test_a_step_down_the_gradient_lowers_the_loss(loss, batch):
    labels, logits = batch
    slopes = gradient(loss, labels, logits)

    assert np.isfinite(slopes).all()
    assert float(loss(labels, logits - 0.1 * slopes)) < float(loss(labels, logits))


@every_loss
def test_gradients_are_finite_for_extreme_logits(loss, batch):
    labels, logits = batch

    assert np.isfinite(gradient(loss, labels, 1e4 * logits)).all()


@pytest.mark.parametrize("name", ["dice", "lovasz"])
def test_losses_on_regions_are_the_mean_of_the_images(name, batch):
    labels, logits = batch
    loss = EVERY_LOSS[name]

    alone = [float(loss(labels[i : i + 1], logits[i : i + 1])) for i in range(3)]

    assert float(loss(labels, logits)) == pytest.approx(np.mean(alone), rel=1e-6)


def padded(masks: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the batch as int32 with two padding images, whose predictions are very confident."""
    blank = np.full((2, *masks.shape[1:]), PADDING)
    sure = 1e4 * np.eye(4, dtype=np.float32)[np.zeros(blank.shape, int)]
    order = [3, 0, 1, 2, 4]
    return np.concatenate([masks, blank])[order].astype(np.int32), np.concatenate([logits, sure])[order]


@pytest.mark.parametrize("xla", [False, True], ids=["plain", "xla"])
@every_loss
def test_padding_changes_no_loss_and_has_no_gradient(loss, xla, batch):
    compiled = tf.function(loss, jit_compile=xla)
    masks, logits = padded(*batch)

    assert float(compiled(masks, logits)) == pytest.approx(float(loss(*batch)), rel=1e-5)
    slopes = gradient(compiled, masks, logits)
    np.testing.assert_allclose(slopes[1:4], gradient(loss, *batch), rtol=1e-4, atol=1e-7)
    assert not slopes[[0, 4]].any()


@pytest.mark.parametrize("xla", [False, True], ids=["plain", "xla"])
@every_loss
def test_single_padding_pixels_count_as_void(loss, xla, batch):
    masks, logits = batch
    masks = masks.astype(np.int32)
    with_padding = np.where(masks == 3, PADDING, masks)

    found = tf.function(loss, jit_compile=xla)(with_padding, logits)

    assert float(found) == pytest.approx(float(loss(masks, logits)), rel=1e-5)


@every_loss
def test_a_batch_of_padding_has_no_loss_and_no_gradient(loss, batch):
    masks, logits = np.full((3, 5, 6), PADDING, np.int32), batch[1]

    assert float(loss(masks, logits)) == 0.0
    assert (gradient(loss, masks, logits) == 0).all()


def test_real_images_include_those_of_void_and_exclude_padding():
    masks = np.full((4, 5, 6), PADDING, np.int32)
    masks[1], masks[3, 2, 2] = 3, 0

    assert int(real_images(masks)) == 2
    assert real_images(masks).dtype == tf.int32
    np.testing.assert_array_equal(real_pixels(masks), masks >= 0)
    assert int(real_images(np.zeros((4, 5, 6), np.uint8))) == 4


def test_every_loss_compiles_together_and_gives_the_same_with_xla():
    recipe = TrainingSettings(
        cross_entropy=1,
        focal_weight=1,
        dice_weight=1,
        lovasz_weight=1,
        class_balance=0.5,
    )
    vary, loss = augmentation.build(recipe, (24, 32)), losses.build(recipe, FACTS, CLASS_MAP)
    rng = np.random.default_rng(2)
    images = tf.constant(rng.integers(0, 256, (4, 24, 32, 3)), tf.uint8)
    masks = tf.constant(rng.integers(0, 4, (4, 6, 8)).repeat(4, axis=1).repeat(4, axis=2), tf.uint8)
    weights = tf.constant(rng.normal(size=(3, 4)), tf.float32)

    def step(images: tf.Tensor, masks: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, masks = vary(images, masks, seed)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = loss(masks, tf.tensordot(images / 127.5 - 1, weights, axes=1))
        return value, tape.gradient(value, weights)

    plain, compiled = (
        tf.function(step, jit_compile=xla)(images, masks, tf.constant([7, 1], tf.int64)) for xla in (False, True)
    )

    # With XLA, a pixel whose centre is on a border may get another label, which changes the loss.
    assert float(compiled[0]) == pytest.approx(float(plain[0]), rel=1e-3)
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-2, atol=1e-3)
    assert float(plain[0]) > 1


def test_a_sum_adds_its_weighted_parts(batch):
    parts = [(2.0, EVERY_LOSS["cross_entropy"]), (0.5, EVERY_LOSS["dice"])]

    assert float(WeightedSum(parts)(*batch)) == pytest.approx(sum(w * float(part(*batch)) for w, part in parts))


def test_settings_define_the_parts_and_weight_zero_removes_one(batch):
    recipe = TrainingSettings(cross_entropy=0, focal_weight=2, dice_weight=1, lovasz_weight=0.5, class_balance=1.0)
    weights = class_weights(FACTS, CLASS_MAP, 1.0)

    loss = losses.build(recipe, FACTS, CLASS_MAP)

    lovasz = Lovasz(CLASS_MAP, losses.LOVASZ_STRIDE)
    expected = 2 * Focal(weights)(*batch) + EVERY_LOSS["dice"](*batch) + 0.5 * lovasz(*batch)
    assert float(loss(*batch)) == pytest.approx(float(expected), rel=1e-6)


def test_a_class_map_without_ignored_class_counts_every_pixel(batch):
    class_map = ClassMap(CLASS_MAP.names, CLASS_MAP.colors, ignore_index=None)
    labels, logits = np.full((1, 5, 6), 3), batch[1][:1]

    for loss in (Dice(class_map), Lovasz(class_map)):
        assert float(loss(labels, logits)) > 0.1


def test_class_weights_are_median_frequency_balancing():
    weights = class_weights(FACTS, CLASS_MAP, balance=1.0)

    frequencies = np.array([0.4, 0.1, 0.3])
    np.testing.assert_allclose(weights, [*(0.3 / frequencies), 0.0], rtol=1e-6)


def test_the_exponent_softens_the_weights():
    full, half, none = (class_weights(FACTS, CLASS_MAP, balance) for balance in (1.0, 0.5, 0.0))

    np.testing.assert_allclose(half, full**0.5, rtol=1e-6)
    np.testing.assert_array_equal(none, [1, 1, 1, 0])


def test_a_missing_class_does_not_change_other_weights():
    facts = SplitFacts(1, 1, class_pixels=np.array([60, 0, 20, 0]), present_pixels=np.array([80, 0, 80, 0]))

    weights = class_weights(facts, CLASS_MAP, balance=1.0)

    np.testing.assert_allclose(weights, [0.5 / 0.75, 1.0, 0.5 / 0.25, 0.0], rtol=1e-6)


def test_a_split_of_nothing_but_void_is_rejected():
    facts = SplitFacts(1, 1, class_pixels=np.array([0, 0, 0, 80]), present_pixels=np.array([0, 0, 0, 80]))

    with pytest.raises(DataRejectedError, match="split train: every pixel is void, the ignored class"):
        losses.build(TrainingSettings(), facts, CLASS_MAP)


def test_settings_without_any_loss_are_rejected():
    with pytest.raises(ValidationError, match="expected one of them above 0"):
        TrainingSettings(cross_entropy=0)
