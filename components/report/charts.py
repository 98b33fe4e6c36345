"""Geometry of the report's curves: axes with round numbers and lines as percentages of the plot.

The template stretches these percentages over whatever width the page has, so labels keep their size.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from components.metrics.calibration import ReliabilityBin

# Below this an axis would only show rounding errors.
_SMALLEST_SPAN = 1e-6


@dataclasses.dataclass(frozen=True)
class Tick:
    """A labelled position on an axis, in percent from the left or from the top."""

    position: float
    label: str


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: runs of points without a gap, each `x,y x,y ...` in percent, and its last value if that matters."""

    name: str
    runs: tuple[str, ...]
    last: float | None


@dataclasses.dataclass(frozen=True)
class Chart:
    """Everything the template needs to draw one figure of curves over epochs, or over `x_name`."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_name: str = "epoch"


def round_step(span: float, ticks: int) -> float:
    """Returns the smallest of 1, 2, 2.5 and 5 times a power of ten that covers a span in so many steps."""
    rough = span / ticks
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * (1 - 1e-9))


def finite(value: Any) -> float | None:
    """Returns a number as a float, or None for None, NaN, an infinity and anything that is no number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def last_entries(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns one entry an epoch in order; of an epoch that a resumed training ran twice, the later one."""
    by_epoch = {int(entry["epoch"]): entry for entry in history}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def resumed_epochs(history: Sequence[dict[str, Any]]) -> list[int]:
    """Returns the epochs at which the history steps back, which is where a training was resumed."""
    epochs = [int(entry["epoch"]) for entry in history]
    return [now for before, now in itertools.pairwise(epochs) if now <= before]


def curves(title: str, history: Sequence[dict[str, Any]], keys: dict[str, str]) -> Chart | None:
    """Draws some of a training history's values over its epochs.

    Args:
        title: the figure's title.
        history: one entry an epoch, ascending.
        keys: the key in an entry by the curve's name.

    Returns:
        The figure, its vertical axis from 0 or the round number below the smallest value, or None
        when no entry holds a number under any of the keys.
    """
    series = {name: [finite(entry.get(key)) for entry in history] for name, key in keys.items()}
    series = {name: values for name, values in series.items() if any(value is not None for value in values)}
    if not series:
        return None
    epochs = [int(entry["epoch"]) for entry in history]
    known = [value for values in series.values() for value in values if value is not None]
    low, high = min(0.0, *known), max(0.0, *known)
    step = round_step(max(high - low, _SMALLEST_SPAN), 4)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    high = max(high, low + step)

    def y(value: float) -> float:
        return 100 * (high - value) / (high - low)

    xs = [_x(epoch, epochs) for epoch in epochs]
    lines = tuple(
        Line(name, tuple(_runs(xs, [None if v is None else y(v) for v in values])), _last(values))
        for name, values in series.items()
    )
    y_ticks = [low + i * step for i in range(round((high - low) / step) + 1)]
    decimals = max(0, 1 - math.floor(math.log10(step))) if step < 1 else 1 if step % 1 else 0
    return Chart(
        title,
        lines,
        tuple(Tick(_x(epoch, epochs), str(epoch)) for epoch in _epoch_ticks(epochs)),
        tuple(Tick(round(y(value), 2), f"{value:.{decimals}f}") for value in y_ticks),
    )


def reliability_diagram(bins: Sequence[ReliabilityBin]) -> Chart | None:
    """Draws how often a model is right over how sure it is, beside the diagonal of a calibrated model.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, figure 1.

    Args:
        bins: the least confident first; one without pixels is left out.

    Returns:
        The figure, both axes from 0 to 1, or None without a pixel.
    """
    known = [(each.confidence, each.accuracy) for each in bins if each.confidence is not None]
    if not known:
        return None
    xs, ys = zip(*known, strict=True)
    model = Line("model", tuple(_runs([round(100 * x, 2) for x in xs], [100 * (1 - y) for y in ys])), None)
    ticks = [(20 * place, f"{place / 5:.1f}") for place in range(6)]
    return Chart(
        "Accuracy",
        (Line("calibrated", ("0,100 100,0",), None), model),
        tuple(Tick(position, label) for position, label in ticks),
        tuple(Tick(100 - position, label) for position, label in ticks),
        x_name="confidence",
    )


def _x(epoch: int, epochs: list[int]) -> float:
    """Places an epoch between the first (0 %) and the last (100 %); a lone epoch sits in the middle."""
    first, last = epochs[0], epochs[-1]
    return 50.0 if first == last else round(100 * (epoch - first) / (last - first), 2)


def _epoch_ticks(epochs: list[int]) -> list[int]:
    """Chooses at most seven epochs to label: evenly spaced whole numbers, the first one included."""
    first, last = epochs[0], epochs[-1]
    step = max(1, math.ceil(round_step(max(last - first, 1), 6)))
    return list(range(first, last + 1, step))


def _runs(xs: list[float], ys: list[float | None]) -> list[str]:
    """Splits a curve where values are missing; a lone point becomes a run of length zero, drawn as a dot."""
    runs: list[list[str]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            runs.append([])
        else:
            runs[-1].append(f"{x:g},{y:.2f}")
    return [" ".join(run if len(run) > 1 else run * 2) for run in runs if run]


def _last(values: list[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)
