"""The tables that close a run or an evaluation on the console."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from components.class_map import ClassMap
from components.metrics.bootstrap import Interval
from components.metrics.scores import Scores, difference, metric_name

if TYPE_CHECKING:
    from components.metrics.results import Evaluation
    from components.report.data import SequenceScore
    from serving.evaluation import ScoredImage


def score_table(
    candidate: Scores,
    baseline: Scores | None,
    class_map: ClassMap,
    intervals: Mapping[str, Interval],
    change_intervals: Mapping[str, Interval] | None = None,
) -> Table:
    """Returns IoU and Dice per class and their means, beside the baseline's.

    Args:
        candidate: the scores to show.
        baseline: those to compare with, or None.
        class_map: the classes of both.
        intervals: 95 % intervals of the candidate's scores by metric name.
        change_intervals: those of the changes against the baseline.
    """
    table = Table(box=None, padding=(0, 1), show_header=True, header_style="bold")
    table.add_column("class")
    for column in ("IoU", "95 %", "Dice", *(("IoU before", "change", "95 %") if baseline else ())):
        table.add_column(column, justify="right")
    rows = [(name, metric_name("class_iou", name), metric_name("class_dice", name)) for name in class_map.scored_names]
    after, before = candidate.flat(), baseline.flat() if baseline else {}
    for name, iou, dice in (*rows, ("mean", "mean_iou", "mean_dice")):
        cells = [_number(after[iou]), _interval(intervals.get(iou), "{:.3f}"), _number(after[dice])]
        if baseline:
            changed = _interval((change_intervals or {}).get(iou), "{:+.3f}")
            cells += [_number(before[iou]), _change(difference(after[iou], before[iou])), changed]
        table.add_row(name, *cells, style="bold" if iou == "mean_iou" else None)
    return table


def sequence_table(sequences: Sequence[SequenceScore]) -> Table:
    """Returns the mean IoU of sequences, beside the baseline's if there is one."""
    compared = any(row.baseline_mean_iou is not None for row in sequences)
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("worst sequences")
    for column in ("mean IoU", *(("before", "change") if compared else ())):
        table.add_column(column, justify="right")
    for row in sequences:
        before = row.baseline_mean_iou
        cells = [_number(before), _change(difference(row.mean_iou, before))] if compared else []
        table.add_row(Text(row.name), _number(row.mean_iou), *cells)
    return table


def changed_images_table(heading: str, images: Sequence[ScoredImage]) -> Table:
    """Returns the mean IoU of images before and after a change of the model."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column(heading)
    for column in ("mean IoU", "before", "change"):
        table.add_column(column, justify="right")
    for image in images:
        numbers = (_number(image.mean_iou), _number(image.baseline_mean_iou), _change(image.change))
        table.add_row(Text(image.sample.pair.name), *numbers)
    return table


def failure_table(evaluation: Evaluation) -> Table:
    """Returns which bound of the gate failed, by how much."""
    table = Table(box=None, padding=(0, 2), header_style="bold", title="Thresholds not met", title_justify="left")
    for column in ("score", "kind", "bound", "found", "margin"):
        table.add_column(column, justify="left" if column in ("score", "kind") else "right")
    for failure in evaluation.failures:
        numbers = (_number(value) for value in (failure.bound, failure.value, failure.margin))
        table.add_row(failure.metric, failure.kind, *numbers)
    return table


def _change(change: float) -> Text:
    style = "green" if change > 0.0005 else "red" if change < -0.0005 else "dim"
    return Text("" if math.isnan(change) else f"{change:+.3f}", style=style)


def _interval(bounds: Interval | None, form: str) -> Text:
    return Text("" if bounds is None else " ".join(form.format(bound) for bound in bounds), style="dim")


def _number(value: float | None) -> Text:
    """Returns a score with three decimals; a class without a true pixel has none."""
    return Text("absent", style="dim") if value is None or value != value else Text(f"{value:.3f}")
