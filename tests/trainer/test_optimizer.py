import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import optimizer
from trainer.config import TrainingSettings
from trainer.optimizer import OptimizerSettings, RecipeAdamW

BLOCKS = (("block1_conv1", "block1_normalize"), ("block2_conv1",))


def network() -> keras.Model:
    image = keras.Input((8, 8, 3))
    # No bias before normalisation: its gradient is only rounding error, so two optimizers would not agree on it.
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="block1_conv1")(image)
    x = keras.layers.BatchNormalization(momentum=0.5, name="block1_normalize")(x)
    x = keras.layers.Conv2D(4, 3, padding="same", name="block2_conv1")(x)
    x = keras.layers.Dense(4, name="head")(x)
    return keras.Model(image, keras.layers.Dense(2, dtype="float32", name="classes")(x), name="net")


def compiled(seed: int = 1, rate: float = 1e-2, blocks=BLOCKS, **settings: float) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = network()
    recipe = TrainingSettings(**{"weight_decay": 0.1, **settings})
    return compile_with(model, optimizer.build(recipe, rate, model, blocks))


def compile_with(model: keras.Model, chosen: keras.optimizers.Optimizer) -> keras.Model:
    model.compile(chosen, loss="mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def step(model: keras.Model, steps: int = 1) -> list[float]:
    rng = np.random.default_rng(0)
    images, truth = rng.normal(size=(4, 8, 8, 3)), rng.normal(size=(4, 8, 8, 2))
    losses = []
    for _ in range(steps):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(images, truth)))
    return losses


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {v.path: v.numpy() for v in model.trainable_variables + model.non_trainable_variables}


def moves(model: keras.Model) -> dict[str, float]:
    """Returns the largest change of each variable in one step, by path."""
    before = values(model)
    step(model)
    return {path: float(np.abs(value - before[path]).max()) for path, value in values(model).items()}


def test_without_an_encoder_rate_the_optimizer_equals_adamw():
    model = compiled()
    keras.utils.set_random_seed(1)
    reference = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    reference.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    other = compile_with(network(), reference)

    assert step(model, 4) == pytest.approx(step(other, 4), rel=1e-5)
    for found, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_weights_and_moments_are_updated_in_one_operation():
    model = compiled()
    variables = model.trainable_variables
    update = tf.function(lambda: model.optimizer.apply([tf.ones(v.shape) for v in variables], variables))

    types = [operation.type for operation in update.get_concrete_function().graph.get_operations()]

    assert types.count("ResourceApplyAdam") == len(variables)


def test_encoder_updates_are_scaled_by_the_lr_multiplier():
    moved = moves(compiled(encoder_lr_multiplier=0.1, weight_decay=0))

    # The size of Adam's first step is the learning rate, for any gradient.
    for path in ("block1_conv1/kernel", "block1_normalize/gamma", "block2_conv1/kernel"):
        assert moved[path] == pytest.approx(1e-3, rel=0.02)
    for path in ("head/kernel", "classes/bias"):
        assert moved[path] == pytest.approx(1e-2, rel=0.02)


def test_weight_decay_follows_the_learning_rate_and_excludes_scales_and_offsets():
    model = compile_with(network(), RecipeAdamW(1e-2, OptimizerSettings(0.5, 0.1, frozenset({"block2_conv1/kernel"}))))
    before = values(model)

    model.optimizer.apply([np.zeros(v.shape, np.float32) for v in model.trainable_variables], model.trainable_variables)

    after = values(model)
    np.testing.assert_allclose(after["head/kernel"], before["head/kernel"] * (1 - 0.5 * 1e-2), rtol=1e-5)
    np.testing.assert_allclose(after["block2_conv1/kernel"], before["block2_conv1/kernel"] * (1 - 0.5e-3), rtol=1e-5)
    for path in ("head/bias", "block1_normalize/gamma", "block1_normalize/beta"):
        np.testing.assert_array_equal(after[path], before[path])


def test_a_schedule_sets_the_rate_of_both_groups():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1e-2, 1e-3])
    model = compiled(rate=schedule, encoder_lr_multiplier=0.1, weight_decay=0)
    step(model)

    moved = moves(model)

    assert moved["head/kernel"] < 2e-3
    assert moved["block2_conv1/kernel"] < 2e-4


def averages(model: keras.Model) -> dict[str, np.ndarray]:
    with optimizer.averaged(model.optimizer):
        return values(model)


def test_the_average_follows_its_formula_and_includes_the_statistics():
    model = compiled(ema=0.6)
    expected: dict[str, np.ndarray] = {}
    for number in range(30):
        step(model)
        share = 1 - min(0.6, number / (number + 10))
        expected = {path: share * v + (1 - share) * expected.get(path, 0) for path, v in values(model).items()}

    found = averages(model)

    assert {path for path in found if "moving" in path} == {
        "block1_normalize/moving_mean", "block1_normalize/moving_variance",
    }  # fmt: skip
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, atol=1e-5)


def test_after_one_step_the_average_is_the_weights():
    model = compiled(ema=0.999)
    step(model)

    for path, average in averages(model).items():
        np.testing.assert_allclose(average, values(model)[path], atol=1e-7)


def test_training_continues_from_the_newest_weights():
    model, plain = compiled(ema=0.9), compiled()
    for _ in range(3):
        assert step(model) == pytest.approx(step(plain), rel=1e-5)
        with optimizer.averaged(model.optimizer):
            pass


def test_a_frozen_layer_keeps_its_statistics_while_others_are_averaged():
    keras.utils.set_random_seed(1)
    model = network()
    model.get_layer("block1_normalize").trainable = False
    compile_with(model, optimizer.build(TrainingSettings(ema=0.9), 1e-2, model, BLOCKS))
    step(model, 2)

    before, found = values(model), averages(model)

    for path in before:
        assert np.array_equal(before[path], found[path]) == path.startswith("block1_normalize")


def test_without_momentum_there_are_no_averages():
    model = compiled()
    step(model)
    before = values(model)

    for path, value in averages(model).items():
        np.testing.assert_array_equal(value, before[path])
