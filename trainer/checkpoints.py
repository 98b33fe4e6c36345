"""Saves a training's state, so that a killed training resumes where it stopped, also within an epoch.

Each save writes a new file with the values of all variables and then replaces `state.json`, which names the files in
use. After a kill at any moment, or a crash of a machine with a local disk, the previous checkpoint is still complete.
Keras' `BackupAndRestore` is not used: it overwrites its only file in place, and its weight files lack the states of
dropout and of the metrics.

If several attempts at one training may run at once, each has its own folder (trainer/attempts.py):

- No attempt writes into another's folder, so two never mix, even if one is killed, frozen or cut off from the network.
- The next attempt resumes one whose process is gone: it copies the newest state. If two start at the same time, both
  may copy it, or one starts from scratch.
- A frozen attempt that was taken over stops before its next checkpoint. If it wakes up while writing one, that
  checkpoint stays in its own folder and is never read.
- The disk or store only has to make complete files appear atomically. Locks, atomic creation and a common clock are not
  needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from components import files
from components.errors import SegpipeError

_STATE_FILE = "state.json"
_EXECUTION = "execution"  # in that file


def directory(root: str, *identity: Any) -> str:
    """Returns the folder of a training's checkpoints, named by a hash of everything that identifies the training.

    Args:
        root: folder of all checkpoints.
        identity: plain JSON types: settings, input files, code hash.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return files.join(root, digest[:16])


def execution_of(folder: str) -> str:
    """Returns the id of the execution that last wrote a training's checkpoints; empty if unknown.

    Raises:
        OSError: the folder cannot be read.
    """
    path = files.join(folder, _STATE_FILE)
    if not files.exists(path):
        return ""
    try:
        return str(json.loads(files.read_bytes(path)).get(_EXECUTION, ""))
    except ValueError:
        return ""


@dataclasses.dataclass(frozen=True)
class State:
    """Progress of a training.

    Attributes:
        seed: the seed of shuffling, augmentation and initial weights.
        devices: number of devices; the size of a step depends on it.
        history: one entry per finished epoch.
        step: finished steps of the current epoch.
        seconds: time spent in the current epoch.
        values: file with the newest values of all variables; None before the first checkpoint.
        best_epoch: 1-based epoch with the best validation score; 0 before the first epoch.
        best_score: that score.
        best_values: file with that epoch's values.
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
            entry: the epoch's history entry.
            score: validation score, higher is better; NaN is worse than any number.
        """
        epoch = self.epoch + 1
        values = f"epoch-{epoch:04d}.variables"
        state = dataclasses.replace(self, history=[*self.history, entry], step=0, seconds=0.0, values=values)
        score = float("-inf") if math.isnan(score) else score
        if score > self.best_score or self.best_values is None:
            state = dataclasses.replace(state, best_epoch=epoch, best_score=score, best_values=values)
        return state

    def after_step(self, step: int, seconds: float) -> State:
        """Returns the state after `step` steps of the current epoch, which took `seconds` so far."""
        values = f"epoch-{self.epoch + 1:04d}-step-{step:06d}.variables"
        return dataclasses.replace(self, step=step, seconds=seconds, values=values)


class Checkpoints:
    """The checkpoints of one training in one folder, local or on an object store.

    Only the chief writes, but all workers read, so they must share the folder.

    Attributes:
        folder: the folder.
        execution: ML Metadata's id of the execution that trains, stored in `state.json`; see `execution_of`.
    """

    def __init__(self, folder: str, execution: str = "", is_owner: Callable[[], bool] = lambda: True) -> None:
        """Creates nothing yet; `is_owner` tells whether this process may still write to the folder."""
        self.folder = folder
        self.execution = execution
        self._is_owner = is_owner
        self._saved = time.monotonic()

    def age(self) -> float:
        """Returns the seconds since this process last saved a state, or since it started."""
        return time.monotonic() - self._saved

    def read(self) -> State | None:
        """Returns the newest state, or None."""
        path = self._path(_STATE_FILE)
        if not files.exists(path):
            return None
        content = json.loads(files.read_bytes(path))
        content.pop(_EXECUTION, None)
        return State(**content)

    def save(self, variables: Sequence[Any], state: State) -> None:
        """Writes a state and the current values of the variables, then removes the files that it replaces.

        Args:
            variables: Keras variables, in the same order after every restart.
            state: the state that the values belong to.

        Raises:
            SegpipeError: another attempt has taken over the training.
        """
        self._require_owner()
        with self._durable(str(state.values)) as file:
            for variable in variables:
                np.lib.format.write_array(file, np.asarray(variable.numpy()), allow_pickle=False)
        self._write_state(state)
        self._saved = time.monotonic()
        # An attempt that takes over from now on reads this state and does not need the removed files.
        self._require_owner()
        for name in files.list_names(self.folder):
            if name not in (_STATE_FILE, state.values, state.best_values):
                files.remove(self._path(name))

    def adopt(self, other: Checkpoints, state: State) -> None:
        """Copies a state from other checkpoints, with its values.

        Raises:
            FileNotFoundError: the other checkpoints are being removed.
        """
        for name in sorted({name for name in (state.values, state.best_values) if name}):
            with self._durable(name) as file:
                file.writelines(files.chunks(other._path(name)))
        self._write_state(state)

    def restore(self, variables: Sequence[Any], state: State) -> None:
        """Assigns the newest values to the variables, in the order of `save`.

        Raises:
            SegpipeError: the file is damaged or belongs to other variables.
        """
        if state.values is not None:
            self._load(variables, state.values)

    def restore_best(self, variables: Sequence[Any], state: State) -> None:
        """Assigns the values of the best epoch to the variables. Raises SegpipeError like `restore`."""
        self._load(variables, str(state.best_values))

    def remove(self) -> None:
        """Removes the folder, unless another attempt has taken it over."""
        if not self._is_owner():
            return
        # The state goes first, so that a kill never leaves a state without its values.
        files.remove(self._path(_STATE_FILE))
        files.remove_folder(self.folder)

    def _require_owner(self) -> None:
        if not self._is_owner():
            raise SegpipeError(
                f"checkpoint {self.folder}: found that another run with the same settings has resumed this training, "
                "expected no other run while this one is alive. The other run continues, and this one stops"
            )

    def _write_state(self, state: State) -> None:
        with self._durable(_STATE_FILE) as file:
            file.write(json.dumps({**dataclasses.asdict(state), _EXECUTION: self.execution}).encode())
        self._sync_folder()

    def _load(self, variables: Sequence[Any], name: str) -> None:
        try:
            with files.opened(self._path(name)) as file:
                for variable in variables:
                    variable.assign(self._next_value(file, name, tuple(variable.shape)))
        except FileNotFoundError as error:
            raise self._damaged(name, "no such file", "the values named in state.json") from error

    def _next_value(self, file: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            value = np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise self._damaged(name, f"a truncated or damaged file ({error})", f"values of {shape}") from error
        if value.shape != shape:
            raise self._damaged(name, f"values of {value.shape}", f"{shape}")
        return value

    def _damaged(self, name: str, found: str, expected: str) -> SegpipeError:
        return SegpipeError(
            f"checkpoint {self._path(name)}: found {found}, expected {expected}; remove {self.folder} to restart"
        )

    @contextlib.contextmanager
    def _durable(self, name: str) -> Iterator[Any]:
        """Opens a file to write bytes, and flushes them to the disk after the block."""
        with files.created(self._path(name)) as file:
            yield file
            if not files.is_remote(self.folder):
                file.flush()
                os.fsync(file.fileno())

    def _sync_folder(self) -> None:
        """Flushes the folder's entries to the disk."""
        if files.is_remote(self.folder):
            return
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, name: str) -> str:
        return files.join(self.folder, name)
