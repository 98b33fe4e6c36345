"""Compute the geometry of the report's charts: axes with round ticks, and curves in percent of the plot.

The template draws them as SVG in the page's CSS colours, and stretches them to the width of the page, so labels keep
their size. One chart takes 2.5 kB and no package. Matplotlib adds 62 MB, 15 kB a chart and fixed colours, so no dark
theme; pygal adds 1.4 MB, 50 kB a chart and a script from its own site. Both charts would have no accessible name.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from components.metrics.calibration import ReliabilityBin

# A shorter axis would only show rounding errors.
_MIN_SPAN = 1e-6


@dataclasses.dataclass(frozen=True)
class Tick:
    """A labelled position on an axis, in percent from the left or from the top."""

    position: float
    label: str


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve: runs of points without a gap, each `x,y x,y ...` in percent, and the last value or None."""

    name: str
    runs: tuple[str, ...]
    last: float | None


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves over epochs, or over `x_name`."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_name: str = "epoch"


def round_step(span: float, ticks: int) -> float:
    """Returns the smallest of 1, 2, 2.5 and 5 times a power of ten that covers a span in a number of steps."""
    rough = span / ticks
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * (1 - 1e-9))


def finite(value: Any) -> float | None:
    """Returns a finite number as a float; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def last_entries(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns one entry per epoch in order; of an epoch that a resumed training repeated, the later one."""
    by_epoch = {int(entry["epoch"]): entry for entry in history}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def resumed_epochs(history: Sequence[dict[str, Any]]) -> list[int]:
    """Returns the epochs at which a training was resumed: the history steps back to them."""
    epochs = [int(entry["epoch"]) for entry in history]
    return [now for before, now in itertools.pairwise(epochs) if now <= before]


def curves(title: str, history: Sequence[dict[str, Any]], keys: Mapping[str, str]) -> Chart | None:
    """Draws values of a training history over its epochs.

    Args:
        title: the chart's title.
        history: one entry per epoch, ascending.
        keys: the key in an entry by the curve's name.

    Returns:
        The chart, or None if no entry has a number under any key. Its vertical axis includes 0.
    """
    series = {name: [finite(entry.get(key)) for entry in history] for name, key in keys.items()}
    known = {name: [value for value in values if value is not None] for name, values in series.items()}
    values = list(itertools.chain.from_iterable(known.values()))
    if not values:
        return None
    low, high = min(0.0, *values), max(0.0, *values)
    step = round_step(max(high - low, _MIN_SPAN), 4)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    high = max(high, low + step)
    decimals = max(0, 1 - math.floor(math.log10(step))) if step < 1 else 1 if step % 1 else 0
    epochs = [int(entry["epoch"]) for entry in history]
    first, last = epochs[0], epochs[-1]
    every = max(1, math.ceil(round_step(max(last - first, 1), 6)))

    def x(epoch: int) -> float:
        return 50.0 if first == last else round(100 * (epoch - first) / (last - first), 2)

    def y(value: float) -> float:
        return 100 * (high - value) / (high - low)

    lines = []
    for name, own in series.items():
        if known[name]:
            points = [(x(e), None if value is None else y(value)) for e, value in zip(epochs, own, strict=True)]
            lines.append(Line(name, _runs(points), known[name][-1]))
    x_ticks = [Tick(x(epoch), str(epoch)) for epoch in range(first, last + 1, every)]
    heights = [low + place * step for place in range(round((high - low) / step) + 1)]
    y_ticks = [Tick(round(y(height), 2), f"{height:.{decimals}f}") for height in heights]
    return Chart(title, tuple(lines), tuple(x_ticks), tuple(y_ticks))


def reliability_diagram(bins: Sequence[ReliabilityBin]) -> Chart | None:
    """Draws a model's accuracy over its confidence, beside the diagonal of a calibrated model.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, figure 1.

    Args:
        bins: the least confident first; bins without pixels are left out.

    Returns:
        The chart, both axes from 0 to 1, or None without a pixel.
    """
    points = [
        (round(100 * each.confidence, 2), 100 * (1 - each.accuracy))
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    ]
    if not points:
        return None
    lines = Line("calibrated", ("0,100 100,0",), None), Line("model", _runs(points), None)
    x_ticks = tuple(Tick(20 * place, f"{place / 5:.1f}") for place in range(6))
    y_ticks = tuple(Tick(100 - tick.position, tick.label) for tick in x_ticks)
    return Chart("Accuracy", lines, x_ticks, y_ticks, x_name="confidence")


def _runs(points: Sequence[tuple[float, float | None]]) -> tuple[str, ...]:
    """Splits a curve at missing values; a lone point becomes a run of length zero, drawn as a dot."""
    known = itertools.groupby(points, key=lambda point: point[1] is not None)
    runs = [[f"{x:g},{y:.2f}" for x, y in group] for is_known, group in known if is_known]
    return tuple(" ".join(run if len(run) > 1 else run * 2) for run in runs)
