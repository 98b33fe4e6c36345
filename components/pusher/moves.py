"""The record of releases beside a model's versions: which label moved to which version, when and by whom."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping

from pydantic import AwareDatetime, TypeAdapter

from components.pusher.beside import RecordBeside
from components.settings import Settings
from components.times import now

_KEPT = 50


class Move(Settings):
    """One move of a label.

    Attributes:
        label: the label.
        version: its new version; None if the label was removed.
        when: the time (ISO 8601, in UTC).
        by: USER@HOST, or the pod's name.
    """

    label: str
    version: int | None = None
    when: AwareDatetime
    by: str


_RECORD = RecordBeside(
    "moves.json",
    TypeAdapter(list[Move]),
    '[{"label": "stable", "version": 1790000001, "when": "2026-01-31T12:00:00Z", "by": "ann@desk"}]',
)


def read_moves(base_directory: str) -> list[Move]:
    """Returns the last moves of a model's labels, oldest first; empty without a record.

    Raises:
        SegpipeError: the record is damaged, or cannot be read.
    """
    return _RECORD.read(base_directory)


def newest_moves(base_directory: str) -> dict[str, Move]:
    """Returns the newest move of each label. Raises what `read_moves` raises."""
    return {move.label: move for move in read_moves(base_directory)}


def record_moves(base_directory: str, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Records the labels whose version differs between `before` and `after`, and drops the oldest moves.

    Raises:
        SegpipeError: the record is damaged, or cannot be read or written.
    """
    time, user = now(), _user()
    moves = [
        Move(label=label, version=after.get(label), when=time, by=user)
        for label in sorted({*before, *after})
        if before.get(label) != after.get(label)
    ]
    _RECORD.change(base_directory, lambda known: _shortened([*(each for each in known if each not in moves), *moves]))


def _shortened(moves: list[Move]) -> list[Move]:
    """Returns the last moves and the newest of each label, without which nobody knows what the label names."""
    newest = {move.label: move for move in moves}
    return [*(move for move in moves[:-_KEPT] if newest[move.label] == move), *moves[-_KEPT:]]


def _user() -> str:
    """Returns the host name in a pod, which is the pod's name, else USER@HOST, with the user's id if it has no name."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return socket.gethostname()
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # OSError since Python 3.13
        return f"{os.getuid()}@{socket.gethostname()}"
