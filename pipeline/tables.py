"""The tables that close a run or an evaluation on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from components.class_map import ClassMap
from components.metrics.scores import Scores

if TYPE_CHECKING:
    from components.metrics.results import Evaluation


def score_table(candidate: Scores, baseline: Scores | None, class_map: ClassMap) -> Table:
    """Returns IoU and Dice per class and their means, beside the baseline's."""
    table = Table(box=None, padding=(0, 2), show_header=True, header_style="bold")
    table.add_column("class")
    for column in ("IoU", "Dice", *(("IoU before", "change") if baseline else ())):
        table.add_column(column, justify="right")
    for name in class_map.scored_names:
        before = baseline.class_iou[name] if baseline else None
        table.add_row(name, *_cells(candidate.class_iou[name], candidate.class_dice[name], before))
    before = baseline.mean_iou if baseline else None
    table.add_row("mean", *_cells(candidate.mean_iou, candidate.mean_dice, before), style="bold")
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


def _cells(iou: float, dice: float, before: float | None) -> list[Text]:
    cells = [_number(iou), _number(dice)]
    if before is not None:
        change = iou - before
        style = "green" if change > 0.0005 else "red" if change < -0.0005 else "dim"
        cells += [_number(before), Text("" if change != change else f"{change:+.3f}", style=style)]
    return cells


def _number(value: float | None) -> Text:
    """Returns a score with three decimals; a class that is absent has none."""
    return Text("absent", style="dim") if value is None or value != value else Text(f"{value:.3f}")
