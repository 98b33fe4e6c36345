"""Gives each attempt at a training its own folder, and lets it resume an attempt that was killed.

On a cluster two runs may train the same network at once, and a killed run leaves no message. So each attempt advances a
counter in a file. If the counter stands still for a while, the attempt has ended and the next one takes over its
checkpoints. This compares no clocks of different machines.

Beside the folder `NAME-ATTEMPT` with an attempt's checkpoints are `NAME-ATTEMPT.alive`, the counter, and
`NAME-ATTEMPT.taken`, which tells a frozen attempt that it was taken over. trainer/checkpoints.py lists the guarantees.
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

ALIVE_SECONDS = 5.0  # between two advances of the counter
WATCH_SECONDS = 30.0  # an attempt whose counter stands still this long has ended
_CHECKS = 30  # of each counter in this time

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt at a training.

    Attributes:
        root: folder of all checkpoints.
        name: the training's and the attempt's name.
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
        """Tells whether no other attempt has taken over this one's checkpoints. Raises OSError."""
        return not files.exists(self._taken) and files.exists(self._alive)

    def count(self, number: int) -> None:
        """Writes the counter. Raises OSError."""
        files.write_bytes(self._alive, str(number).encode())

    def counter(self) -> bytes | None:
        """Returns the counter, or None if it is missing. Raises OSError."""
        try:
            return files.read_bytes(self._alive)
        except FileNotFoundError:
            return None

    def take(self) -> None:
        """Marks the attempt as taken over. Raises OSError."""
        files.write_bytes(self._taken, b"")

    def remove(self) -> None:
        """Removes all files of the attempt. Raises OSError."""
        Checkpoints(self.folder).remove()
        for name in files.list_names(self.root):
            # Includes files that a kill left half written. `.taken` comes last.
            if name.startswith(f"{self.name}."):
                files.remove(files.join(self.root, name))


@contextlib.contextmanager
def begin(folder: str, execution: str = "") -> Iterator[Checkpoints]:
    """Yields the checkpoints of a new attempt, with the newest state of an attempt that has ended.

    If the block ends without an exception, removes the checkpoints and the rest of the attempts that it took over.

    Args:
        folder: as `checkpoints.directory` returns it; prefix of the attempts' names.
        execution: see `Checkpoints`.

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
    # Each attempt has a file with a suffix. Folders do not count: SeaweedFS still lists those whose files are gone.
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
            # Another attempt may take over in the meantime; the next checkpoint detects that.
            _LOG.warning("%s.alive: cannot be written: %s", attempt.folder, error)


def _ended(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Returns the attempts whose counters stand still for `WATCH_SECONDS`."""
    counters = {attempt: attempt.counter() for attempt in attempts}
    until = time.monotonic() + WATCH_SECONDS
    while counters and time.monotonic() < until:
        time.sleep(WATCH_SECONDS / _CHECKS)
        counters = {attempt: old for attempt, old in counters.items() if attempt.counter() == old}
    return list(counters)


def _take_over(checkpoints: Checkpoints, ended: Sequence[Attempt]) -> None:
    """Copies the newest state of the ended attempts, then removes their checkpoints."""
    for attempt in ended:
        attempt.take()
    # Read only now: a frozen attempt may have written another checkpoint before it was marked.
    found: list[tuple[State, Checkpoints]] = []
    for attempt in ended:
        theirs = Checkpoints(attempt.folder)
        if state := theirs.read():
            found.append((state, theirs))
    for state, theirs in sorted(found, key=lambda pair: (pair[0].epoch, pair[0].step), reverse=True):
        # A concurrent attempt may have taken over the same one and removed it.
        with contextlib.suppress(FileNotFoundError):
            checkpoints.adopt(theirs, state)
            _LOG.info("resuming from %s, epoch %d", theirs.folder, state.epoch + 1)
            break
    for attempt in ended:
        Checkpoints(attempt.folder).remove()
