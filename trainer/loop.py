"""The training loop: epochs of steps, validation, checkpoints and callbacks.

Every worker runs the same loop, but only the chief writes. It starts at any saved state, also within an epoch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from components.errors import SegpipeError
from trainer import cluster, distribution
from trainer.callbacks import finite_or_none
from trainer.checkpoints import Checkpoints, State
from trainer.config import TrainingSettings
from trainer.learner import Learner

# Steps between two checks of the loss. Reading it makes the GPU wait, and a NaN or infinite loss stays so.
_LOSS_CHECK_STEPS = 10

# After an epoch without validation, save a checkpoint only if the last one is older than this. On a GPU an epoch can
# take less time than its checkpoint.
_CHECKPOINT_SECONDS = 30

# Errors of a collective operation when another worker is lost.
_LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Callback(Protocol):
    """Receives the progress of a training."""

    def step(self, epoch: int, step: int, scores: Callable[[], dict[str, float]]) -> None:
        """Receives a finished step, 1-based like the epoch; `scores` computes the epoch's scores so far."""

    def epoch(self, entry: dict[str, Any], predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Receives the history entry of a finished epoch; `predict` returns the class indices of images."""


@dataclasses.dataclass(frozen=True)
class TrainingLoop:
    """Trains a learner.

    Attributes:
        learner: the network with its optimizer.
        settings: `epochs`, `validate_every` and `checkpoint_steps`.
        steps: steps per epoch.
        validation_steps: steps per validation.
        batches: training batches of all remaining epochs.
        validation: batches of one validation; iterated anew for each.
        checkpoints: where states are saved.
        callbacks: receive every step and epoch.
    """

    learner: Learner
    settings: TrainingSettings
    steps: int
    validation_steps: int
    batches: Iterable[Any]
    validation: Iterable[Any]
    checkpoints: Checkpoints
    callbacks: Sequence[Callback] = ()

    def run(self, state: State) -> State:
        """Trains from a state to the end of the last epoch and returns the final state.

        No worker returns before the last checkpoint is written.

        Raises:
            SegpipeError: the loss is NaN or infinite, or another worker is lost.
        """
        batches, workers = iter(self.batches), cluster.this_worker().workers
        try:
            while state.epoch < self.settings.epochs:
                began = time.monotonic() - state.seconds
                state = self._train_epoch(batches, state, began)
                state = self._end_epoch(state, began)
            if workers > 1:
                # A worker that exits with 0 is not restarted. If the last checkpoint were missing then, the chief would
                # wait for it forever.
                distribution.agree(self.learner.strategy, [state.epoch])
        except _LOST_WORKER as error:
            if workers == 1:
                raise
            epoch = min(state.epoch + 1, self.settings.epochs)
            raise SegpipeError(
                f"Trainer: another worker was lost in epoch {epoch} ({_first_line(error)}); restart all workers with "
                f"the same TF_CONFIG to resume from the checkpoint in {self.checkpoints.folder}"
            ) from error
        return state

    def _train_epoch(self, batches: Iterator[Any], state: State, began: float) -> State:
        epoch, interval = state.epoch + 1, self.settings.checkpoint_steps
        if not state.step:
            self.learner.reset_scores()
        for step in range(state.step + 1, self.steps + 1):
            self.learner.train(next(batches))
            saves = interval and step % interval == 0 and step < self.steps
            if saves or step % _LOSS_CHECK_STEPS == 0 or step == self.steps:
                self._check_loss(self.steps * state.epoch + step)
            if saves:
                state = state.after_step(step, round(time.monotonic() - began, 3))
                self._save(state)
            for callback in self.callbacks:
                callback.step(epoch, step, self.learner.scores)
        return state

    def _end_epoch(self, state: State, began: float) -> State:
        epoch, trained = state.epoch + 1, self.learner.scores()
        validates = epoch % self.settings.validate_every == 0 or epoch == self.settings.epochs
        validated = self._validate() if validates else {}
        entry = {
            "epoch": epoch,
            **{name: finite_or_none(value) for name, value in trained.items()},
            **{f"val_{name}": finite_or_none(validated.get(name)) for name in trained},
            "learning_rate": self.learner.learning_rate,
            "seconds": round(time.monotonic() - began, 3),
        }
        state = state.after_epoch(entry, validated.get(self.learner.score_name, math.nan))
        if validated or self.checkpoints.age() >= _CHECKPOINT_SECONDS:
            self._save(state)
        for callback in self.callbacks:
            callback.epoch(entry, self.learner.predict)
        return state

    def _validate(self) -> dict[str, float]:
        self.learner.reset_scores()
        batches = iter(self.validation)
        with self.learner.averaged():
            for _ in range(self.validation_steps):
                self.learner.validate(next(batches))
        return self.learner.scores()

    def _save(self, state: State) -> None:
        if cluster.this_worker().is_chief:
            self.checkpoints.save(self.learner.variables, state)

    def _check_loss(self, step: int) -> None:
        loss = self.learner.scores()["loss"]
        if not math.isfinite(loss):
            raise SegpipeError(
                f"Trainer: the loss is {loss} at step {step}, expected a finite number; lower training.learning_rate, "
                "or set training.precision to float32; to restart with the same settings, remove "
                f"{self.checkpoints.folder}"
            )


def _first_line(error: tf.errors.OpError) -> str:
    lines = [line.strip() for line in error.message.splitlines() if "aborted by" in line]
    return lines[0] if lines else type(error).__name__ + ": " + error.message.strip().partition("\n")[0]
