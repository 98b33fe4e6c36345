import os

import keras
import numpy as np
import pytest

from components import files
from components.errors import SegpipeError
from trainer.checkpoints import Checkpoints, State, directory, execution_of


def small_model() -> keras.Model:
    image = keras.Input((4,))
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(8)(image))
    model = keras.Model(image, keras.layers.Dense(1)(x))
    model.compile(keras.optimizers.AdamW(1e-2), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def variables(model: keras.Model) -> list:
    return [*model.variables, *model.optimizer.variables]


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


@pytest.fixture
def first_epoch(model, folder) -> State:
    state = State(seed=9).after_epoch(entry(1), 0.5)
    Checkpoints(folder).save(variables(model), state)
    return state


def test_a_new_training_has_no_state(folder):
    assert Checkpoints(folder).read() is None


def test_a_restored_training_continues_as_if_never_stopped(model, folder, first_epoch):
    unbroken = [step(model) for _ in range(3)]
    keras.utils.set_random_seed(2)
    other = small_model()

    checkpoints = Checkpoints(folder)
    state = checkpoints.read()
    checkpoints.restore(variables(other), state)

    assert (state.seed, state.epoch, state.step, state.history) == (9, 1, 0, [entry(1)])
    assert int(other.optimizer.iterations) == 1
    assert [step(other) for _ in range(3)] == unbroken


def test_the_best_epoch_is_kept_beside_the_newest(model, folder):
    checkpoints, state = Checkpoints(folder), State(seed=0)
    best = None
    for epoch, score in enumerate((0.1, 0.7, 0.3, float("nan")), 1):
        state = state.after_epoch(entry(epoch), score)
        checkpoints.save(variables(model), state)
        best = model.get_weights() if epoch == 2 else best
        step(model)

    assert (state.best_epoch, state.best_score, state.epoch) == (2, 0.7, 4)
    assert sorted(os.listdir(folder)) == ["epoch-0002.variables", "epoch-0004.variables", "state.json"]
    checkpoints.restore_best(variables(model), state)
    for found, expected in zip(model.get_weights(), best, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_checkpoint_within_an_epoch_replaces_the_previous_one(model, folder, first_epoch):
    checkpoints, state = Checkpoints(folder), first_epoch.after_epoch(entry(2), 0.1)
    for number in (5, 10):
        state = state.after_step(number, seconds=1.5 * number)
        checkpoints.save(variables(model), state)

    assert sorted(os.listdir(folder)) == ["epoch-0001.variables", "epoch-0003-step-000010.variables", "state.json"]
    found = checkpoints.read()
    assert (found.epoch, found.step, found.seconds, found.best_epoch) == (2, 10, 15.0, 1)
    assert found.after_epoch(entry(3), 0.0).step == 0


def test_a_nan_score_still_leaves_best_values(model, folder):
    state = State(seed=0).after_epoch(entry(1), float("nan"))
    Checkpoints(folder).save(variables(model), state)

    assert Checkpoints(folder).read() == state
    Checkpoints(folder).restore_best(variables(model), state)


@pytest.mark.parametrize("leftover", ["epoch-0002.variables", "state.json.partial"])
def test_half_written_files_are_ignored(model, folder, first_epoch, leftover):
    checkpoints = Checkpoints(folder)
    with open(os.path.join(folder, leftover), "wb") as file:
        file.write(b"half")

    assert Checkpoints(folder).read() == first_epoch
    checkpoints.restore(variables(model), first_epoch)
    second = first_epoch.after_epoch(entry(2), 0.6)
    checkpoints.save(variables(model), second)
    checkpoints.restore(variables(model), second)
    assert sorted(os.listdir(folder)) == ["epoch-0002.variables", "state.json"]


def test_a_damaged_file_is_named(model, folder, first_epoch):
    path = os.path.join(folder, first_epoch.values)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 8)

    with pytest.raises(SegpipeError, match=r"epoch-0001\.variables: found a truncated or damaged file .* to restart"):
        Checkpoints(folder).restore(variables(model), first_epoch)


def test_values_of_other_variables_are_refused(model, folder, first_epoch):
    with pytest.raises(SegpipeError, match=r"found values of \(4, 8\), expected \(8,\)"):
        Checkpoints(folder).restore(variables(model)[1:], first_epoch)


def test_missing_values_are_reported(model, folder, first_epoch):
    os.remove(os.path.join(folder, first_epoch.values))

    with pytest.raises(SegpipeError, match=rf"{first_epoch.values}: found no such file, .* remove {folder} to restart"):
        Checkpoints(folder).restore(variables(model), first_epoch)


def test_a_kill_while_a_checkpoint_is_removed_leaves_none(folder, first_epoch, monkeypatch):
    monkeypatch.setattr(files, "remove_folder", _killed)
    with pytest.raises(KeyboardInterrupt):
        Checkpoints(folder).remove()

    assert Checkpoints(folder).read() is None


def _killed(folder):
    raise KeyboardInterrupt


def test_values_are_on_the_disk_before_the_state_that_names_them(model, folder, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda number: calls.append(os.readlink(f"/proc/self/fd/{number}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))

    state = State(seed=9).after_epoch(entry(1), 0.5)
    Checkpoints(folder).save(variables(model), state)

    names = [os.path.basename(call) for call in calls]
    assert names[0].startswith(f"{state.values}.")
    assert names[2].startswith("state.json.")
    assert (names[1], *names[3:]) == ("replace", "replace", os.path.basename(folder))


def test_checkpoints_record_the_execution_that_wrote_them(model, folder, first_epoch):
    assert execution_of(folder) == ""

    Checkpoints(folder, "42").save(variables(model), first_epoch)

    assert execution_of(folder) == "42"
    assert Checkpoints(folder).read() == first_epoch
    assert execution_of(os.path.join(folder, "none")) == ""


def test_a_removed_checkpoint_is_gone(folder, first_epoch):
    checkpoints = Checkpoints(folder)

    checkpoints.remove()
    checkpoints.remove()

    assert checkpoints.read() is None
    assert not os.path.exists(folder)


def test_another_training_has_another_folder():
    settings = {"epochs": 3, "seed": None}

    assert directory("/root", settings, ["a.gz"]) == directory("/root", {"seed": None, "epochs": 3}, ["a.gz"])
    assert directory("/root", settings, ["a.gz"]) != directory("/root", settings, ["b.gz"])
    assert directory("/root", settings, ["a.gz"]) != directory("/root", {**settings, "epochs": 4}, ["a.gz"])


def test_an_object_store_keeps_checkpoints_too(model, s3):
    checkpoints = Checkpoints(f"{s3}/training")
    assert checkpoints.read() is None
    saved = [variable.numpy() for variable in variables(model)]
    state = State(seed=9).after_epoch(entry(1), 0.5)
    checkpoints.save(variables(model), state.after_step(3, 1.0))
    checkpoints.save(variables(model), state)
    for variable in variables(model):
        variable.assign(variable + 1)

    checkpoints.restore(variables(model), checkpoints.read())

    assert files.list_names(f"{s3}/training") == [state.values, "state.json"]
    assert all(np.array_equal(now.numpy(), then) for now, then in zip(variables(model), saved, strict=True))
    checkpoints.remove()
    assert checkpoints.read() is None
    assert files.list_names(f"{s3}/training") == []
