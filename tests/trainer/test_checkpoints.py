import os

import keras
import numpy as np
import pytest

from trainer.checkpoints import Checkpoints, State, directory


def small_model() -> keras.Model:
    image = keras.Input((4,))
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(8)(image))
    model = keras.Model(image, keras.layers.Dense(1)(x))
    model.compile(keras.optimizers.AdamW(1e-2), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def step(model: keras.Model) -> float:
    rng = np.random.default_rng(0)
    model.reset_metrics()
    return float(model.train_on_batch(rng.normal(size=(16, 4)), rng.normal(size=(16, 1))))


def entry(epoch: int) -> dict[str, int]:
    return {"epoch": epoch}


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = small_model()
    step(model)
    return model


@pytest.fixture
def folder(tmp_path) -> str:
    return str(tmp_path / "checkpoint")


def test_a_new_training_has_no_state(folder):
    assert Checkpoints(folder).read() is None


def test_a_restored_training_goes_on_as_if_never_stopped(model, folder):
    Checkpoints(folder).save(model, State(seed=9), entry(1), score=0.5)
    unbroken = [step(model) for _ in range(3)]
    keras.utils.set_random_seed(2)
    other = small_model()

    checkpoints = Checkpoints(folder)
    state = checkpoints.read()
    checkpoints.restore(other, state)

    assert (state.seed, state.epoch, state.history) == (9, 1, [entry(1)])
    assert int(other.optimizer.iterations) == 1
    assert [step(other) for _ in range(3)] == pytest.approx(unbroken, rel=1e-6)


def test_the_best_epoch_is_kept_beside_the_newest(model, folder):
    checkpoints, state = Checkpoints(folder), State(seed=0)
    best = None
    for epoch, score in enumerate((0.1, 0.7, 0.3, float("nan")), 1):
        state = checkpoints.save(model, state, entry(epoch), score)
        best = model.get_weights() if epoch == 2 else best
        step(model)

    assert (state.best_epoch, state.best_score, state.epoch) == (2, 0.7, 4)
    assert sorted(os.listdir(folder)) == ["epoch-0002.weights.h5", "epoch-0004.weights.h5", "state.json"]
    checkpoints.load_best(model, state)
    for found, expected in zip(model.get_weights(), best, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_score_that_is_no_number_still_leaves_something_to_load(model, folder):
    state = Checkpoints(folder).save(model, State(seed=0), entry(1), float("nan"))

    assert Checkpoints(folder).read() == state
    Checkpoints(folder).load_best(model, state)


@pytest.mark.parametrize("leftover", ["epoch-0002.weights.h5", "state.json.partial"])
def test_what_a_kill_left_half_written_does_not_count(model, folder, leftover):
    checkpoints = Checkpoints(folder)
    state = checkpoints.save(model, State(seed=0), entry(1), score=0.5)
    path = os.path.join(folder, leftover)
    with open(path, "wb") as file:
        file.write(b"half")

    assert Checkpoints(folder).read() == state
    checkpoints.restore(model, state)
    state = checkpoints.save(model, state, entry(2), score=0.6)
    checkpoints.restore(model, state)
    assert sorted(os.listdir(folder)) == ["epoch-0002.weights.h5", "state.json"]


def test_a_removed_checkpoint_is_gone(model, folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(model, State(seed=0), entry(1), score=0.5)

    checkpoints.remove()
    checkpoints.remove()

    assert checkpoints.read() is None
    assert not os.path.exists(folder)


def test_another_training_has_another_folder():
    settings = {"epochs": 3, "seed": None}

    assert directory("/root", settings, ["a.gz"]) == directory("/root", {"seed": None, "epochs": 3}, ["a.gz"])
    assert directory("/root", settings, ["a.gz"]) != directory("/root", settings, ["b.gz"])
    assert directory("/root", settings, ["a.gz"]) != directory("/root", {**settings, "epochs": 4}, ["a.gz"])
