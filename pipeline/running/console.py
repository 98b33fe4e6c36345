"""Shows the progress of a run: one line for each component, with state, time and main figure, and the training.

On a terminal, lines are updated in place. Otherwise each line is printed once, and at most nine epochs of a training.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_MARKS = {"ran": ("✓", "green"), "cached": ("=", "cyan"), "failed": ("✗", "red"), "interrupted": ("✗", "red")}


class RunConsole(logging.Handler):
    """Shows a run's progress. It handles the logger `segpipe.progress`, which components report to."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(level=logging.INFO)
        self.console = Console(file=stream, highlight=False)
        self._lines: list[tuple[str, str, float, str]] = []
        self._running: tuple[str, float] | None = None
        self._progress: dict[str, Any] = {}
        self._eighth = 0  # of the training, at the last printed epoch
        # The process's output goes to the log file; Live would redirect it to the console again.
        self._live = Live(
            get_renderable=self._render,
            console=self.console,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> RunConsole:
        logging.getLogger("segpipe.progress").addHandler(self)
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Stops updating the lines; later output is printed below them."""
        logging.getLogger("segpipe.progress").removeHandler(self)
        self._running = None
        if self._live.is_started:
            self._live.stop()

    def start(self, name: str) -> None:
        """Shows that a component, or the start-up, has started."""
        self._running = (name, time.monotonic())
        self._progress = {}

    def end(self, name: str, state: str, seconds: float, figure: str) -> None:
        """Shows that a component has ended, with its main figure."""
        self._running = None
        line = (name, state, seconds, figure)
        self._lines.append(line)
        if not self._live.is_started:
            self.console.print(_table([line]))

    def emit(self, record: logging.LogRecord) -> None:
        """Shows what a component reports below its line, or prints it: epoch 1, and a validated one of each eighth."""
        progress = getattr(record, "progress", {})
        if progress.get("epochs"):
            eighth = 8 * progress["epoch"] // progress["epochs"]
            validated = any(value is not None for name, value in progress.items() if name.startswith("val_"))
            due = progress["epoch"] == 1 or (validated and eighth > self._eighth)
            if progress["epoch_ended"] and due and not self._live.is_started:
                self._eighth = eighth
                self.console.print(Text("    " + record.getMessage(), style="dim"), soft_wrap=True)
            self._progress = {**progress, "message": record.getMessage()}

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [_table(self._lines)]
        if self._running:
            name, started = self._running
            parts.append(Spinner("dots", Text(f"{name}  {_duration(time.monotonic() - started)}", style="bold")))
        if self._running and self._progress:
            parts.append(_training(self._progress))
        return Group(*parts)


def _table(lines: list[tuple[str, str, float, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for width in (1, 20, 7, 8):
        grid.add_column(min_width=width, justify="right" if width == 8 else "left")
    grid.add_column()
    for name, state, seconds, figure in lines:
        mark, style = _MARKS[state]
        grid.add_row(Text(mark, style=style), name, Text(state, style=style), _duration(seconds), Text(figure))
    return grid


def _training(progress: dict[str, Any]) -> RenderableType:
    done = (progress["epoch"] - 1) * progress["steps"] + progress["step"]
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        "   ", ProgressBar(total=progress["epochs"] * progress["steps"], completed=done, width=30), progress["message"]
    )
    return grid


def _duration(seconds: float) -> str:
    """Returns a duration such as 4.2 s or 3:07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
