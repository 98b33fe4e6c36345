import contextlib
import dataclasses
import itertools
import json
import math

import pytest
import tensorflow as tf

from components.errors import SegpipeError
from trainer import cluster, distribution, loop
from trainer.checkpoints import Checkpoints, State

SCHEDULE = loop.TrainingSchedule(
    epochs=1, steps=1, validation_steps=1, validated=frozenset({1}), checkpoint_steps=0, is_chief=True
)

BATCHES = itertools.repeat(())


class Unavailable:
    """A learner whose first step ends as one that reads from a store, or waits for a worker, that is away."""

    def __init__(self, message: str) -> None:
        self._message = message

    def reset_scores(self) -> None:
        pass

    def train(self, batch) -> None:
        raise tf.errors.UnavailableError(None, None, self._message)


def _run(folder, message="service is down\n\twhile reading") -> None:
    loop.run(Unavailable(message), SCHEDULE, BATCHES, BATCHES, Checkpoints(str(folder)), State(seed=1), ())


def test_in_one_process_no_worker_is_blamed(tmp_path):
    with pytest.raises(tf.errors.UnavailableError, match="service is down"):
        _run(tmp_path)


@pytest.mark.parametrize(
    ("message", "words"),
    [("service is down\n\twhile reading", "UnavailableError: service is down"), ("", "UnavailableError: ")],
)
def test_of_several_workers_one_is_lost_and_the_error_has_its_words(tmp_path, monkeypatch, message, words):
    workers = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv(cluster.TF_CONFIG, json.dumps(workers))

    with pytest.raises(SegpipeError, match=rf"worker is lost in epoch 1 \({words}\); start all"):
        _run(tmp_path, message)


class Diverging(Unavailable):
    """A learner whose loss is no number from the second step on."""

    variables = ()

    def __init__(self) -> None:
        self._steps = 0

    def train(self, batch) -> None:
        self._steps += 1

    def scores(self) -> dict[str, float]:
        return {"loss": 1.0 if self._steps < 2 else math.nan}


def test_a_checkpoint_within_an_epoch_is_not_replaced_where_the_loss_is_no_number(tmp_path):
    schedule, checkpoints = dataclasses.replace(SCHEDULE, steps=3, checkpoint_steps=2), Checkpoints(str(tmp_path))

    with pytest.raises(SegpipeError, match=rf"the loss is nan at step 2, .* remove {tmp_path}"):
        loop.run(Diverging(), schedule, BATCHES, BATCHES, checkpoints, State(seed=1), ())

    assert checkpoints.read() is None


class Learned(Diverging):
    """A learner of nothing, whose scores are numbers."""

    strategy = tf.distribute.get_strategy()
    learning_rate = 0.1
    score_name = "mean_iou"

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def validate(self, batch) -> None:
        pass

    def predict(self, images) -> None:
        pass

    def scores(self) -> dict[str, float]:
        return {"loss": 1.0, "mean_iou": 0.5}


@pytest.mark.parametrize(("age", "saved"), [(29.9, [2]), (30.0, [1, 2])])
def test_an_epoch_without_a_validation_is_kept_only_if_the_last_checkpoint_is_old(tmp_path, monkeypatch, age, saved):
    checkpoints, found = Checkpoints(str(tmp_path)), []
    monkeypatch.setattr(checkpoints, "age", lambda: age)
    monkeypatch.setattr(checkpoints, "save", lambda _, state: found.append(state.epoch))
    schedule = dataclasses.replace(SCHEDULE, epochs=2, validated=frozenset({2}))

    loop.run(Learned(), schedule, BATCHES, BATCHES, checkpoints, State(seed=1), ())

    assert found == saved


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_meets_the_others_once_the_last_checkpoint_is_written(tmp_path, monkeypatch, workers):
    config = {"cluster": {"worker": ["a:1", "b:1"][:workers]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv(cluster.TF_CONFIG, json.dumps(config))
    checkpoints, kept = Checkpoints(str(tmp_path)), []
    monkeypatch.setattr(distribution, "agree", lambda *_: kept.append(checkpoints.read().epoch))

    loop.run(
        Learned(),
        dataclasses.replace(SCHEDULE, epochs=2, validated=frozenset({1, 2})),
        BATCHES,
        BATCHES,
        checkpoints,
        State(seed=1),
        (),
    )

    assert kept == ([2] if workers > 1 else [])


def test_a_worker_lost_after_the_last_epoch_is_named_with_it(tmp_path, monkeypatch):
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv(cluster.TF_CONFIG, json.dumps(config))

    def lost(*_) -> None:
        raise tf.errors.UnavailableError(None, None, "gone")

    monkeypatch.setattr(distribution, "agree", lost)

    with pytest.raises(SegpipeError, match=r"another worker is lost in epoch 1 \(UnavailableError: gone\)"):
        loop.run(Learned(), SCHEDULE, BATCHES, BATCHES, Checkpoints(str(tmp_path)), State(seed=1), ())
