import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss

from components.class_map import ClassMap
from trainer.input_pipeline import SplitFacts
from trainer.losses import WeightedCrossEntropy, class_weights

CLASS_MAP = ClassMap(("road", "pole", "sky", "void"), ((0, 0, 0),) * 4, ignore_index=3)


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 4, (2, 5, 6)).astype(np.uint8), rng.normal(size=(2, 5, 6, 4)).astype(np.float32)


def test_the_loss_is_the_weighted_mean_over_counted_pixels(batch):
    labels, logits = batch
    weights = np.array([0.5, 3.0, 1.0, 0.0], np.float32)

    loss = WeightedCrossEntropy(weights)(labels, logits)

    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    flat = labels.ravel()
    expected = log_loss(flat, probabilities.reshape(-1, 4), sample_weight=weights[flat], labels=range(4))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_void_pixels_have_no_gradient_and_others_have(batch):
    labels, logits = batch
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        loss = WeightedCrossEntropy(np.array([1, 1, 1, 0], np.float32))(labels, variable)

    gradient = np.abs(tape.gradient(loss, variable).numpy()).sum(axis=-1)

    assert (gradient[labels == 3] == 0).all()
    assert (gradient[labels != 3] > 0).all()


def test_a_batch_of_void_costs_nothing():
    loss = WeightedCrossEntropy(np.array([1, 0], np.float32))(np.ones((1, 2, 2)), np.ones((1, 2, 2, 2)))

    assert float(loss) == 0.0


def test_class_weights_are_median_frequency_balancing():
    facts = SplitFacts(2, class_pixels=np.array([80, 10, 30, 40]), present_pixels=np.array([200, 100, 100, 200]))

    weights = class_weights(facts, CLASS_MAP, balance=1.0)

    frequencies = np.array([0.4, 0.1, 0.3])
    np.testing.assert_allclose(weights, [*(0.3 / frequencies), 0.0], rtol=1e-6)


def test_the_exponent_softens_the_weights():
    facts = SplitFacts(2, class_pixels=np.array([80, 10, 30, 40]), present_pixels=np.array([200, 100, 100, 200]))

    full, half, none = (class_weights(facts, CLASS_MAP, balance) for balance in (1.0, 0.5, 0.0))

    np.testing.assert_allclose(half, full**0.5, rtol=1e-6)
    np.testing.assert_array_equal(none, [1, 1, 1, 0])


def test_a_class_that_never_occurs_leaves_the_others_alone():
    facts = SplitFacts(1, class_pixels=np.array([60, 0, 20, 0]), present_pixels=np.array([80, 0, 80, 0]))

    weights = class_weights(facts, CLASS_MAP, balance=1.0)

    np.testing.assert_allclose(weights, [0.5 / 0.75, 1.0, 0.5 / 0.25, 0.0], rtol=1e-6)
