import contextlib
import itertools
import json
import math

import pytest
import tensorflow as tf

from components.errors import SegpipeError
from trainer import cluster, distribution
from trainer.checkpoints import Checkpoints, State
from trainer.config import TrainingSettings
from trainer.loop import TrainingLoop

BATCHES = itertools.repeat(())


class Unavailable:
    """A learner whose first step fails as if a store or a worker were unreachable."""

    def __init__(self, message: str) -> None:
        self._message = message

    def reset_scores(self) -> None:
        pass

    def train(self, batch) -> None:
        raise tf.errors.UnavailableError(None, None, self._message)


def _train(learner, checkpoints: Checkpoints, steps: int = 1, **settings: int) -> None:
    training = TrainingSettings(**{"epochs": 1, **settings})
    TrainingLoop(learner, training, steps, 1, BATCHES, BATCHES, checkpoints).run(State(seed=1))


def _run(folder, message="service is down\n\twhile reading") -> None:
    _train(Unavailable(message), Checkpoints(str(folder)))


def test_a_single_process_reports_the_error_itself(tmp_path):
    with pytest.raises(tf.errors.UnavailableError, match="service is down"):
        _run(tmp_path)


@pytest.mark.parametrize(
    ("message", "words"),
    [("service is down\n\twhile reading", "UnavailableError: service is down"), ("", "UnavailableError: ")],
)
def test_one_of_several_workers_reports_a_lost_worker_and_the_cause(tmp_path, monkeypatch, message, words):
    workers = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv(cluster.TF_CONFIG, json.dumps(workers))

    with pytest.raises(SegpipeError, match=rf"worker was lost in epoch 1 \({words}\); restart all"):
        _run(tmp_path, message)


class Diverging(Unavailable):
    """A learner whose loss is NaN from the second step on."""

    variables = ()

    def __init__(self) -> None:
        self._steps = 0

    def train(self, batch) -> None:
        self._steps += 1

    def scores(self) -> dict[str, float]:
        return {"loss": 1.0 if self._steps < 2 else math.nan}


def test_a_nan_loss_prevents_a_checkpoint_within_an_epoch(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))

    with pytest.raises(SegpipeError, match=rf"the loss is nan at step 2, .* remove {tmp_path}"):
        _train(Diverging(), checkpoints, steps=3, checkpoint_steps=2)

    assert checkpoints.read() is None


class Learned(Diverging):
    """A learner with constant scores."""

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
def test_an_epoch_without_validation_is_saved_only_if_the_last_checkpoint_is_old(tmp_path, monkeypatch, age, saved):
    checkpoints, found = Checkpoints(str(tmp_path)), []
    monkeypatch.setattr(checkpoints, "age", lambda: age)
    monkeypatch.setattr(checkpoints, "save", lambda _, state: found.append(state.epoch))

    _train(Learned(), checkpoints, epochs=2, validate_every=2)

    assert found == saved


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_waits_for_the_others_after_the_last_checkpoint(tmp_path, monkeypatch, workers):
    config = {"cluster": {"worker": ["a:1", "b:1"][:workers]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv(cluster.TF_CONFIG, json.dumps(config))
    checkpoints, kept = Checkpoints(str(tmp_path)), []
    monkeypatch.setattr(distribution, "agree", lambda *_: kept.append(checkpoints.read().epoch))

    _train(Learned(), checkpoints, epochs=2)

    assert kept == ([2] if workers > 1 else [])


def test_a_worker_lost_after_the_last_epoch_is_reported_with_that_epoch(tmp_path, monkeypatch):
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv(cluster.TF_CONFIG, json.dumps(config))

    def lost(*_) -> None:
        raise tf.errors.UnavailableError(None, None, "gone")

    monkeypatch.setattr(distribution, "agree", lost)

    with pytest.raises(SegpipeError, match=r"another worker was lost in epoch 1 \(UnavailableError: gone\)"):
        _train(Learned(), Checkpoints(str(tmp_path)))
