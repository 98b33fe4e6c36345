"""Prints the output of commands: lines, tables, JSON and progress bars."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from components.times import utc_text

_WIDTH_IN_A_PIPE = 1000


def console(stderr: bool = False) -> Console:
    """Returns a console that prints names and paths as they are, square brackets and colons included.

    In a pipe or a file, lines of tables are not cut or wrapped, unless the variable COLUMNS sets a width.
    """
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _WIDTH_IN_A_PIPE
    return made


def say(*parts: Any, stderr: bool = False, style: str | None = None) -> None:
    """Prints one line, unwrapped."""
    console(stderr).print(*parts, soft_wrap=True, style=style)


def table(*columns: str, right: Collection[str] = (), fold: Collection[str] = (), **settings: Any) -> Table:
    """Returns an empty table without lines.

    Args:
        columns: headings.
        right: columns that are aligned to the right.
        fold: columns whose cells wrap. In other columns, a cell that does not fit is cut off.
        settings: arguments of `rich.table.Table`.
    """
    made = Table(box=None, header_style="bold", **{"padding": (0, 2), **settings})
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in fold,
            overflow="fold" if column in fold else "ellipsis",
        )
    return made


def print_json(value: Any) -> None:
    """Prints a value as JSON; times as ISO 8601 in UTC."""
    print(json.dumps(value, indent=2, default=utc_text))


class _Speed(ProgressColumn):
    """Steps per second; rich's own column shows them only while the total is unknown."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {self._unit}/s")


@contextlib.contextmanager
def progress_bar(text: str, unit: str = "") -> Iterator[Callable[[float, float | None], None]]:
    """Shows a progress bar on standard error. Yields a function that takes the steps done and the total, or None.

    Args:
        text: what is done.
        unit: what a step is, to show steps per second; empty for no speed.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=not unit),
        *([_Speed(unit)] if unit else []),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
