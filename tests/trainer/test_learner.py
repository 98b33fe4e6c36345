import keras
import numpy as np
import pytest
import tensorflow as tf
import training_toy as toy

from trainer import deep_supervision, optimizer
from trainer.augmentation import Augmentation
from trainer.config import ModelSettings, TrainingSettings
from trainer.learner import Learner
from trainer.losses import CrossEntropy
from trainer.metrics import MeanIoU
from trainer.models import registry
from trainer.tasks.semantic import SemanticObjective

HEADS = ("decoder3_relu2", "decoder2_relu2")
LOSS = CrossEntropy(np.array([1, 2, 3, 0], np.float32))


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images, masks = zip(*(toy.pair(rng) for _ in range(4)), strict=True)
    return np.stack(images).astype(np.float32), np.stack(masks)


def batches(pairs: tuple[np.ndarray, np.ndarray]) -> tf.data.Iterator:
    seeds = np.zeros((len(pairs[0]), 2), np.int64)
    return iter(tf.data.Dataset.from_tensor_slices((*pairs, seeds)).batch(2).repeat())


def learner(augment: Augmentation | None = None, **training: float) -> tuple[Learner, keras.Model]:
    """Returns a learner and its model with heads."""
    keras.utils.set_random_seed(1)
    model = registry.build(ModelSettings(name="unet", base_filters=4, dropout=0, normalization=True), None, 4)
    settings = TrainingSettings(**training)
    supervised = deep_supervision.attach(model, HEADS if settings.deep_supervision else (), 4)
    made = Learner(
        SemanticObjective(model, supervised, LOSS, toy.CLASS_MAP, settings.deep_supervision),
        optimizer.build(settings, 1e-2, model, ()),
        tf.distribute.get_strategy(),
        augment=augment,
    )
    return made, supervised


def test_heads_add_their_mean_loss_while_training_and_not_in_validation(pairs):
    made, supervised = learner(deep_supervision=0.4)
    images, masks = (part[:2] for part in pairs)
    logits, *heads = supervised(images, training=True)
    own, others = float(LOSS(masks, logits)), float(deep_supervision.loss(LOSS, masks, heads))
    validated = float(LOSS(masks, made.model(images, training=False)))

    made.validate(next(batches(pairs))[:2])
    validation = made.scores()["loss"]
    made.reset_scores()
    made.train(next(batches(pairs)))

    assert validation == pytest.approx(validated, rel=1e-4)
    assert made.scores()["loss"] == pytest.approx(own + 0.4 * others, rel=1e-2)


def test_training_batches_are_augmented_and_validation_batches_are_not(pairs):
    def relabel(images, masks, seed):
        return images, tf.zeros_like(masks) + tf.cast(seed[0], masks.dtype)

    made, supervised = learner(relabel)
    images, masks = (tf.constant(part[:2]) for part in pairs)
    logits = supervised(images, training=True)
    plain, *relabelled = (
        float(LOSS(labels, logits)) for labels in (masks, *(tf.fill(masks.shape, i) for i in (0, 1, 2)))
    )
    label = max(range(3), key=lambda i: abs(relabelled[i] - plain))
    validated = float(LOSS(masks, made.model(images, training=False)))

    made.validate((images, masks))
    validation = made.scores()["loss"]
    made.reset_scores()
    made.train((images, masks, tf.constant([label, 0], tf.int64)))

    assert validation == pytest.approx(validated, rel=1e-4)
    assert abs(relabelled[label] - plain) > 0.05 * plain
    assert made.scores()["loss"] == pytest.approx(relabelled[label], rel=1e-2)


def test_heads_learn_and_are_part_of_a_checkpoint(pairs):
    made, supervised = learner(deep_supervision=0.4)
    heads = [supervised.get_layer(f"{name}_supervision").kernel for name in HEADS]
    before = [kernel.numpy() for kernel in heads]

    made.train(next(batches(pairs)))

    for kernel, value in zip(heads, before, strict=True):
        assert not np.array_equal(kernel.numpy(), value)
        assert any(variable is kernel for variable in made.variables)


def test_scores_are_those_of_all_batches_since_the_reset(pairs):
    made, _ = learner()
    images, masks = pairs
    stream = batches(pairs)
    made.validate(next(stream)[:2])
    made.validate(next(stream)[:2])
    once = made.scores()
    made.validate(next(stream)[:2])
    made.validate(next(stream)[:2])

    assert made.scores() == pytest.approx(once)
    expected = MeanIoU(toy.CLASS_MAP)
    expected.update_state(masks, made.model(images, training=False))
    assert once["mean_iou"] == pytest.approx(float(expected.result()))
    assert once["loss"] == pytest.approx(
        np.mean([float(LOSS(masks[i : i + 2], made.model(images[i : i + 2]))) for i in (0, 2)]), rel=1e-4
    )


def test_averages_are_used_temporarily_during_training_and_for_good_after_it(pairs):
    made, _ = learner(ema=0.9)
    stream = batches(pairs)
    for _ in range(4):
        made.train(next(stream))
    newest = made.model.get_weights()

    with made.averaged():
        lent = made.model.get_weights()
    after = made.model.get_weights()
    made.keep_average()

    assert any(not np.array_equal(a, b) for a, b in zip(newest, lent, strict=True))
    for found, expected in zip([*after, *made.model.get_weights()], [*newest, *lent], strict=True):
        np.testing.assert_array_equal(found, expected)
