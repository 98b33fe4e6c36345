"""Keeps a training's state on disk, so that a killed one resumes where it was, within an epoch too.

The values of all variables lie in files of their own; `state.json` says which of them count and is
replaced in one step. A kill at any moment, and on a local disk a crash of the machine, leaves the
checkpoint before behind. Keras' own
`BackupAndRestore` is not used: it overwrites its only file in place, and its weight files lack the
states of dropout and of the metrics.

Where several attempts at one training may run at once, each has a folder of its own (trainer/attempts.py):

- No attempt writes into another's folder, so two never mix, whatever is killed, frozen or cut off from the network.
- An attempt whose process is gone is resumed by the next one, which copies its newest state. If two begin at the same
  time, both may copy it, or one begins anew.
- An attempt that was only frozen stops before its next checkpoint once another has taken over. If it wakes while it
  writes one, that checkpoint remains in its own folder, and nobody reads it.
- Nothing but whole files that appear under their names at once is asked of the disk or store: no locks, no atomic
  creation, no common time.
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
    """Returns the folder of one training's checkpoints, named by a hash of what makes the training what it is.

    Args:
        root: folder of all checkpoints.
        identity: plain JSON types: settings, input files, code hash. Another value is another training.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return files.join(root, digest[:16])


def execution_of(folder: str) -> str:
    """Returns the id of the execution that wrote a training's checkpoints last; empty if they do not say.

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

    Attributes:
        folder: the folder.
        execution: ML Metadata's id of the execution that trains, which `state.json` keeps: see `execution_of`.
    """

    def __init__(self, folder: str, execution: str = "", is_owner: Callable[[], bool] = lambda: True) -> None:
        """Takes a folder, an execution, and a function that tells whether this process may still write there."""
        self.folder = folder
        self.execution = execution
        self._is_owner = is_owner
        self._saved = time.monotonic()

    def age(self) -> float:
        """Returns the seconds since this process last saved a state, or since it began."""
        return time.monotonic() - self._saved

    def read(self) -> State | None:
        """Returns the newest state, or None where there is none."""
        path = self._path(_STATE_FILE)
        if not files.exists(path):
            return None
        content = json.loads(files.read_bytes(path))
        content.pop(_EXECUTION, None)
        return State(**content)

    def save(self, variables: Sequence[Any], state: State) -> None:
        """Writes a state and the values that its variables have now, then removes what it replaces.

        Args:
            variables: Keras variables, in an order that a restart of the training repeats.
            state: the state they belong to.

        Raises:
            SegpipeError: another attempt has taken the training over.
        """
        self._require_owner()
        with self._durable(str(state.values)) as file:
            for variable in variables:
                np.lib.format.write_array(file, np.asarray(variable.numpy()), allow_pickle=False)
        self._write_state(state)
        self._saved = time.monotonic()
        # Another attempt that takes over from now on reads this state and needs nothing that is removed here.
        self._require_owner()
        for name in files.list_names(self.folder):
            if name not in (_STATE_FILE, state.values, state.best_values):
                files.remove(self._path(name))

    def adopt(self, other: Checkpoints, state: State) -> None:
        """Copies a state of other checkpoints and the values that it names.

        Raises:
            FileNotFoundError: the other checkpoints are being removed.
        """
        for name in sorted({name for name in (state.values, state.best_values) if name}):
            with self._durable(name) as file:
                file.writelines(files.chunks(other._path(name)))
        self._write_state(state)

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
        """Removes the folder, unless another attempt has taken it over; a training that ended needs it no more."""
        if not self._is_owner():
            return
        # First, so that a kill in between leaves no state whose values are gone.
        files.remove(self._path(_STATE_FILE))
        files.remove_folder(self.folder)

    def _require_owner(self) -> None:
        if not self._is_owner():
            raise SegpipeError(
                f"checkpoint {self.folder}: found that another run with the same settings has resumed this training, "
                "expected no other run, unless this process stands still. The other run trains on, and this one stops"
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
        with files.created(self._path(name)) as file:
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

    def _path(self, name: str) -> str:
        return files.join(self.folder, name)
