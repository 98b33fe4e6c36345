"""Keeps a training's state on disk after every epoch, so that a killed one resumes where it was.

Weights lie in files of their own; `state.json` says which of them count and is replaced in one
step. A kill at any moment leaves the last finished epoch behind. Keras' own `BackupAndRestore` is
not used: it overwrites its only weights file in place and forgets the states of dropout.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import keras
import tensorflow as tf

from components import files

_STATE_FILE = "state.json"


def directory(root: str, *identity: Any) -> str:
    """Returns the folder of one training's checkpoints, named by a hash of what makes the training what it is.

    Args:
        root: folder of all checkpoints.
        identity: plain JSON types: settings, input files, code hash. Another value is another training.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return files.join(root, digest[:16])


@dataclasses.dataclass(frozen=True)
class State:
    """What is known after some finished epochs.

    Attributes:
        seed: the seed of shuffling, augmentation and initial weights.
        history: one entry an epoch.
        weights: file name of the newest weights, with the optimizer's state; None before the first epoch.
        random_states: counters of the model's random layers.
        best_epoch: 1-based epoch of the best validation score; 0 before the first epoch.
        best_score: that score.
        best_weights: file name of that epoch's weights.
    """

    seed: int
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    weights: str | None = None
    random_states: list[list[int]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_score: float = float("-inf")
    best_weights: str | None = None

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)


class Checkpoints:
    """The checkpoints of one training in one folder, local or on an object store."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def read(self) -> State | None:
        """Returns the newest state, or None where there is none."""
        path = self._path(_STATE_FILE)
        if not tf.io.gfile.exists(path):
            return None
        with tf.io.gfile.GFile(path) as file:
            return State(**json.loads(file.read()))

    def save(self, model: keras.Model, state: State, entry: dict[str, Any], score: float) -> State:
        """Writes a finished epoch and returns the state that includes it.

        Args:
            model: the compiled model in training.
            state: the state before this epoch.
            entry: the epoch's line of history.
            score: validation score; higher is better, and not a number is worse than any.
        """
        score = float("-inf") if math.isnan(score) else score
        epoch = state.epoch + 1
        weights = f"epoch-{epoch:04d}.weights.h5"
        tf.io.gfile.makedirs(self._folder)
        model.save_weights(self._path(weights), overwrite=True)
        state = dataclasses.replace(
            state,
            history=[*state.history, entry],
            weights=weights,
            random_states=[variable.numpy().tolist() for variable in _random_states(model)],
        )
        if score > state.best_score or state.best_weights is None:
            state = dataclasses.replace(state, best_epoch=epoch, best_score=score, best_weights=weights)
        self._commit(state)
        return state

    def restore(self, model: keras.Model, state: State) -> None:
        """Puts the newest weights, the optimizer's state and the random states into a compiled model.

        The optimizer must be built: Keras silently skips the state of one that is not.
        """
        if state.weights is None:
            return
        model.load_weights(self._path(state.weights))
        for variable, value in zip(_random_states(model), state.random_states, strict=True):
            variable.assign(value)

    def load_best(self, model: keras.Model, state: State) -> None:
        """Puts the weights of the best epoch into a compiled model."""
        model.load_weights(self._path(str(state.best_weights)))

    def remove(self) -> None:
        """Removes the folder; a training that ended needs it no more."""
        if tf.io.gfile.exists(self._folder):
            tf.io.gfile.rmtree(self._folder)

    def _commit(self, state: State) -> None:
        partial = self._path(_STATE_FILE + ".partial")
        with tf.io.gfile.GFile(partial, "w") as file:
            file.write(json.dumps(dataclasses.asdict(state)))
        tf.io.gfile.rename(partial, self._path(_STATE_FILE), overwrite=True)
        for name in tf.io.gfile.listdir(self._folder):
            if name not in (_STATE_FILE, state.weights, state.best_weights):
                tf.io.gfile.remove(self._path(name))

    def _path(self, name: str) -> str:
        return files.join(self._folder, name)


def _random_states(model: keras.Model) -> list[Any]:
    """Returns the counters of dropout and its like, which `save_weights` leaves out."""
    return [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]
