"""The schedule of a training: epochs of steps, validation, checkpoints, and who is told of them.

Every worker of a training runs the same schedule; the chief alone writes. It begins wherever the
state says, in the middle of an epoch too.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from components.errors import SegpipeError
from trainer import cluster, distribution
from trainer.callbacks import finite_or_none
from trainer.checkpoints import Checkpoints, State
from trainer.learner import Learner

# Steps between two reads of the loss: a read makes the GPU wait, and a NaN or infinite loss stays so.
_LOSS_CHECK_STEPS = 10

# An epoch that ends without a validation is kept only if the last checkpoint is older than this: on a GPU an epoch can
# take less time than its checkpoint.
_CHECKPOINT_SECONDS = 30

# What a worker's collective operations end with when another worker is gone.
_LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


@dataclasses.dataclass(frozen=True)
class TrainingSchedule:
    """The numbers of a training's schedule.

    Attributes:
        epochs: passes over the training split.
        steps: steps of an epoch.
        validation_steps: steps of a validation.
        validated: 1-based epochs that end with a validation.
        checkpoint_steps: steps between two checkpoints within an epoch; 0 for none.
        is_chief: whether this worker writes checkpoints.
    """

    epochs: int
    steps: int
    validation_steps: int
    validated: frozenset[int]
    checkpoint_steps: int
    is_chief: bool


class Watcher(Protocol):
    """Something that is told how a training goes."""

    def step(self, epoch: int, step: int, scores: Callable[[], dict[str, float]]) -> None:
        """Takes a finished step of an epoch, both 1-based, and a way to get the epoch's scores so far."""

    def epoch(self, entry: dict[str, Any], predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Takes a finished epoch's line of history, and a way to get class indices of images."""


def run(
    learner: Learner,
    schedule: TrainingSchedule,
    batches: Iterable[Any],
    validation: Iterable[Any],
    checkpoints: Checkpoints,
    state: State,
    watchers: Iterable[Watcher],
) -> State:
    """Trains from a state to the end of the last epoch; no worker returns before its checkpoint is written.

    Args:
        learner: holds the variables of that state.
        schedule: how many of everything.
        batches: training batches of all epochs from the state on.
        validation: batches of a whole validation, anew each time it is iterated.
        checkpoints: where states are kept.
        state: where to begin.
        watchers: told of every step and epoch.

    Returns:
        The state at the end.

    Raises:
        SegpipeError: when the loss is no number any more, or another worker is lost.
    """
    stream = iter(batches)
    watchers = tuple(watchers)
    try:
        while state.epoch < schedule.epochs:
            began = time.monotonic() - state.seconds
            state = _train_epoch(learner, schedule, stream, checkpoints, state, watchers, began)
            state = _end_epoch(learner, schedule, validation, checkpoints, state, watchers, began)
        if cluster.this_worker().workers > 1:
            # Whoever ends well is not started again: were the last checkpoint missing, the chief would wait for ever.
            distribution.agree(learner.strategy, [state.epoch])
    except _LOST_WORKER as error:
        if cluster.this_worker().workers == 1:
            raise
        epoch = min(state.epoch + 1, schedule.epochs)
        raise SegpipeError(
            f"Trainer: another worker is lost in epoch {epoch} ({_first_line(error)}); start all workers again with "
            f"the same TF_CONFIG, and they go on from the checkpoint in {checkpoints.folder}"
        ) from error
    return state


def _train_epoch(
    learner: Learner,
    schedule: TrainingSchedule,
    stream: Any,
    checkpoints: Checkpoints,
    state: State,
    watchers: tuple[Watcher, ...],
    began: float,
) -> State:
    if not state.step:
        learner.reset_scores()
    for step in range(state.step + 1, schedule.steps + 1):
        learner.train(next(stream))
        saves = schedule.checkpoint_steps and step % schedule.checkpoint_steps == 0 and step < schedule.steps
        if saves or step % _LOSS_CHECK_STEPS == 0 or step == schedule.steps:
            _check_loss(learner, schedule.steps * state.epoch + step, checkpoints.folder)
        if saves:
            state = state.after_step(step, round(time.monotonic() - began, 3))
            if schedule.is_chief:
                checkpoints.save(learner.variables, state)
        for watcher in watchers:
            watcher.step(state.epoch + 1, step, learner.scores)
    return state


def _end_epoch(
    learner: Learner,
    schedule: TrainingSchedule,
    validation: Iterable[Any],
    checkpoints: Checkpoints,
    state: State,
    watchers: tuple[Watcher, ...],
    began: float,
) -> State:
    trained = learner.scores()
    validated = _validate(learner, schedule, validation) if state.epoch + 1 in schedule.validated else {}
    entry = {
        "epoch": state.epoch + 1,
        **{name: finite_or_none(value) for name, value in trained.items()},
        **{f"val_{name}": finite_or_none(validated.get(name)) for name in trained},
        "learning_rate": learner.learning_rate,
        "seconds": round(time.monotonic() - began, 3),
    }
    state = state.after_epoch(entry, validated.get(learner.score_name, math.nan))
    if schedule.is_chief and (validated or checkpoints.age() >= _CHECKPOINT_SECONDS):
        checkpoints.save(learner.variables, state)
    for watcher in watchers:
        watcher.epoch(entry, learner.predict)
    return state


def _validate(learner: Learner, schedule: TrainingSchedule, validation: Iterable[Any]) -> dict[str, float]:
    learner.reset_scores()
    stream = iter(validation)
    with learner.averaged():
        for _ in range(schedule.validation_steps):
            learner.validate(next(stream))
    return learner.scores()


def _check_loss(learner: Learner, step: int, folder: str) -> None:
    loss = learner.scores()["loss"]
    if not math.isfinite(loss):
        raise SegpipeError(
            f"Trainer: the loss is {loss} at step {step}, expected a finite number; lower training.learning_rate, "
            f"or set training.precision to float32; to train anew with the same settings, remove {folder}"
        )


def _first_line(error: tf.errors.OpError) -> str:
    lines = [line.strip() for line in error.message.splitlines() if "aborted by" in line]
    return lines[0] if lines else type(error).__name__ + ": " + error.message.strip().partition("\n")[0]
