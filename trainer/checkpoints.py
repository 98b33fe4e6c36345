"""Keeps a training's state on disk, so that a killed one resumes where it was, within an epoch too.

The values of all variables lie in files of their own; `state.json` says which of them count and is
replaced in one step. A kill at any moment, and on a local disk a crash of the machine, leaves the
checkpoint before behind. Keras' own
`BackupAndRestore` is not used: it overwrites its only file in place, and its weight files lack the
states of dropout and of the metrics.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components import files
from components.errors import SegpipeError

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
    """How far a training has come.

    Attributes:
        seed: the seed of shuffling, augmentation and initial weights.
        devices: number of devices that share every batch; what a step is depends on it.
        history: one entry for each finished epoch.
        step: finished steps of the epoch after those.
        seconds: time spent in that epoch.
        values: file name of the newest values of all variables; None before the first checkpoint.
        best_epoch: 1-based epoch of the best validation score; 0 before the first epoch.
        best_score: that score.
        best_values: file name of that epoch's values.
    """

    seed: int
    devices: int = 1
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    step: int = 0
    seconds: float = 0.0
    values: str | None = None
    best_epoch: int = 0
    best_score: float = float("-inf")
    best_values: str | None = None

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    def after_epoch(self, entry: dict[str, Any], score: float) -> State:
        """Returns the state at the end of an epoch.

        Args:
            entry: the epoch's line of history.
            score: validation score; higher is better, and not a number is worse than any.
        """
        epoch = self.epoch + 1
        values = f"epoch-{epoch:04d}.variables"
        state = dataclasses.replace(self, history=[*self.history, entry], step=0, seconds=0.0, values=values)
        score = float("-inf") if math.isnan(score) else score
        if score > self.best_score or self.best_values is None:
            state = dataclasses.replace(state, best_epoch=epoch, best_score=score, best_values=values)
        return state

    def after_step(self, step: int, seconds: float) -> State:
        """Returns the state after some steps of an epoch that took some seconds so far."""
        values = f"epoch-{self.epoch + 1:04d}-step-{step:06d}.variables"
        return dataclasses.replace(self, step=step, seconds=seconds, values=values)


class Checkpoints:
    """The checkpoints of one training in one folder, local or on an object store.

    Of several workers the chief alone writes; all of them read, so the folder must be one they share.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._saved = time.monotonic()

    def age(self) -> float:
        """Returns the seconds since this process last saved a state, or since it began."""
        return time.monotonic() - self._saved

    def read(self) -> State | None:
        """Returns the newest state, or None where there is none."""
        path = self._path(_STATE_FILE)
        if not tf.io.gfile.exists(path):
            return None
        with tf.io.gfile.GFile(path) as file:
            return State(**json.loads(file.read()))

    def save(self, variables: Sequence[Any], state: State) -> None:
        """Writes a state and the values that its variables have now, then removes what it replaces.

        Args:
            variables: Keras variables, in an order that a restart of the training repeats.
            state: the state they belong to.
        """
        tf.io.gfile.makedirs(self.folder)
        with self._durable(str(state.values)) as file:
            for variable in variables:
                np.lib.format.write_array(file, np.asarray(variable.numpy()), allow_pickle=False)
        partial = _STATE_FILE + ".partial"
        with self._durable(partial) as file:
            file.write(json.dumps(dataclasses.asdict(state)).encode())
        tf.io.gfile.rename(self._path(partial), self._path(_STATE_FILE), overwrite=True)
        self._sync_folder()
        self._saved = time.monotonic()
        for name in tf.io.gfile.listdir(self.folder):
            if name not in (_STATE_FILE, state.values, state.best_values):
                tf.io.gfile.remove(self._path(name))

    def restore(self, variables: Sequence[Any], state: State) -> None:
        """Puts the newest values into the variables, in the order in which they were saved.

        Raises:
            SegpipeError: when the file is damaged or belongs to other variables.
        """
        if state.values is not None:
            self._load(variables, state.values)

    def restore_best(self, variables: Sequence[Any], state: State) -> None:
        """Puts the values of the best epoch into the variables. Raises SegpipeError as `restore`."""
        self._load(variables, str(state.best_values))

    def remove(self) -> None:
        """Removes the folder; a training that ended needs it no more."""
        # First, so that a kill in between leaves no state whose values are gone.
        if tf.io.gfile.exists(self._path(_STATE_FILE)):
            tf.io.gfile.remove(self._path(_STATE_FILE))
        if tf.io.gfile.exists(self.folder):
            tf.io.gfile.rmtree(self.folder)

    def _load(self, variables: Sequence[Any], name: str) -> None:
        try:
            with self._open(name, "rb") as file:
                for variable in variables:
                    variable.assign(self._next_value(file, name, tuple(variable.shape)))
        except (FileNotFoundError, tf.errors.NotFoundError) as error:
            raise self._damaged(name, "no such file", "the values that its state.json names") from error

    def _next_value(self, file: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            value = np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise self._damaged(
                name, f"a file that ends early or is damaged ({error})", f"values of {shape}"
            ) from error
        if value.shape != shape:
            raise self._damaged(name, f"values of {value.shape}", f"{shape}")
        return value

    def _damaged(self, name: str, found: str, expected: str) -> SegpipeError:
        return SegpipeError(
            f"checkpoint {self._path(name)}: found {found}, expected {expected}; remove {self.folder} to train anew"
        )

    @contextlib.contextmanager
    def _durable(self, name: str) -> Iterator[Any]:
        """Opens a file to write bytes; after the block they are on the disk, not in its cache alone."""
        with self._open(name, "wb") as file:
            yield file
            if not files.is_remote(self.folder):
                file.flush()
                os.fsync(file.fileno())

    def _sync_folder(self) -> None:
        """Puts the names of the folder's files on the disk."""
        if files.is_remote(self.folder):
            return
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open(self, name: str, mode: str) -> Any:
        path = self._path(name)
        # Python's own file takes arrays without a copy, which halves the time of a checkpoint.
        return tf.io.gfile.GFile(path, mode) if files.is_remote(path) else open(path, mode)

    def _path(self, name: str) -> str:
        return files.join(self.folder, name)
