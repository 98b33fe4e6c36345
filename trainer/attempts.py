"""Gives each attempt at a training a folder of its own, and the checkpoints of an attempt that was stopped.

On a cluster nothing keeps two runs from training the same network at once, and nobody says that a run was stopped: its
process is killed. So each attempt advances a counter in a file. An attempt whose counter stands still for a while has
ended, and the next one takes its checkpoints over. No clocks of two machines are compared.

Beside the folder `NAME-ATTEMPT` with the checkpoints of one attempt lie `NAME-ATTEMPT.alive`, the counter, and
`NAME-ATTEMPT.taken`, which tells an attempt that was only frozen that it has been taken over. What is guaranteed is in
the documentation of trainer/checkpoints.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

from components import files
from trainer.checkpoints import Checkpoints, State

ALIVE_SECONDS = 5.0  # from one advance of the counter to the next
WATCH_SECONDS = 30.0  # an attempt whose counter stands still for so long has ended
_LOOKS = 30  # at each counter meanwhile

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt at a training.

    Attributes:
        root: folder of all checkpoints.
        name: of the training and the attempt.
    """

    root: str
    name: str

    @property
    def folder(self) -> str:
        """The folder of the attempt's checkpoints."""
        return files.join(self.root, self.name)

    @property
    def _alive(self) -> str:
        return f"{self.folder}.alive"

    @property
    def _taken(self) -> str:
        return f"{self.folder}.taken"

    def is_owner(self) -> bool:
        """Tells whether no other attempt has taken this one's checkpoints over. Raises OSError."""
        return not files.exists(self._taken) and files.exists(self._alive)

    def count(self, number: int) -> None:
        """Writes the counter. Raises OSError."""
        files.write_bytes(self._alive, str(number).encode())

    def counter(self) -> bytes | None:
        """Returns the counter, None if it is missing. Raises OSError."""
        try:
            return files.read_bytes(self._alive)
        except FileNotFoundError:
            return None

    def take(self) -> None:
        """Tells the attempt that it has been taken over. Raises OSError."""
        files.write_bytes(self._taken, b"")

    def remove(self) -> None:
        """Removes all files of the attempt. Raises OSError."""
        Checkpoints(self.folder).remove()
        for name in files.list_names(self.root):
            # What a kill left half written too. `.taken` comes last.
            if name.startswith(f"{self.name}."):
                files.remove(files.join(self.root, name))


@contextlib.contextmanager
def begin(folder: str, execution: str = "") -> Iterator[Checkpoints]:
    """Yields the checkpoints of a new attempt, which hold those of an earlier attempt that has ended.

    If the block ends without an exception, the training has ended: its checkpoints are removed, and so is what is left
    of the attempts that it took over.

    Args:
        folder: as `checkpoints.directory` returns it; the attempts' names begin with it.
        execution: as for `Checkpoints`.

    Raises:
        OSError: the folder of all checkpoints cannot be read or written.
    """
    root, _, training = folder.rpartition("/")
    attempt = Attempt(root, f"{training}-{uuid.uuid4().hex[:12]}")
    others = _attempts(root, training)
    with _counting(attempt):
        ended = _ended(others)
        checkpoints = Checkpoints(attempt.folder, execution, attempt.is_owner)
        _take_over(checkpoints, ended)
        yield checkpoints
    if attempt.is_owner():
        for each in (*ended, attempt):
            each.remove()


def _attempts(root: str, training: str) -> list[Attempt]:
    """Returns the attempts at a training."""
    # Each has a file with a suffix. SeaweedFS still lists folders whose files are gone.
    found = (name.partition(".") for name in files.list_names(root) if name.startswith(f"{training}-"))
    return [Attempt(root, name) for name in sorted({name for name, dot, _ in found if dot})]


@contextlib.contextmanager
def _counting(attempt: Attempt) -> Iterator[None]:
    """Advances the counter while the block runs."""
    attempt.count(0)
    stop = threading.Event()
    thread = threading.Thread(target=_count, args=(attempt, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _count(attempt: Attempt, stop: threading.Event) -> None:
    for number in itertools.count(1):
        if stop.wait(ALIVE_SECONDS):
            return
        try:
            if not attempt.is_owner():
                return
            attempt.count(number)
        except OSError as error:
            # Another attempt may take over meanwhile; the next checkpoint finds out.
            _LOG.warning("%s: cannot be written: %s", attempt.folder, error)


def _ended(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Returns the attempts whose counters stand still."""
    counters = {attempt: attempt.counter() for attempt in attempts}
    until = time.monotonic() + WATCH_SECONDS
    while counters and time.monotonic() < until:
        time.sleep(WATCH_SECONDS / _LOOKS)
        counters = {attempt: old for attempt, old in counters.items() if attempt.counter() == old}
    return list(counters)


def _take_over(checkpoints: Checkpoints, ended: Sequence[Attempt]) -> None:
    """Copies the newest state of the attempts that have ended, then removes theirs."""
    for attempt in ended:
        attempt.take()
    # Only now, as an attempt that was frozen may have written another one until it was told.
    found: list[tuple[State, Checkpoints]] = []
    for attempt in ended:
        theirs = Checkpoints(attempt.folder)
        if state := theirs.read():
            found.append((state, theirs))
    for state, theirs in sorted(found, key=lambda pair: (pair[0].epoch, pair[0].step), reverse=True):
        # An attempt beside this one may have taken the same over and removed it.
        with contextlib.suppress(FileNotFoundError):
            checkpoints.adopt(theirs, state)
            _LOG.info("resuming from %s, which another attempt left in epoch %d", theirs.folder, state.epoch + 1)
            break
    for attempt in ended:
        Checkpoints(attempt.folder).remove()
