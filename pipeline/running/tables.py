"""Console tables of scores, shown at the end of a run or an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from components.metrics.bootstrap import Interval
from components.metrics.scores import INSTANCE, difference, task_scores
from components.report.wording import gate_name

if TYPE_CHECKING:
    from components.metrics.results import Evaluation
    from components.report.data import SequenceScore
    from serving.evaluation import ScoredImage


def score_table(
    candidate: Mapping[str, float],
    baseline: Mapping[str, float] | None,
    intervals: Mapping[str, Interval],
    change_intervals: Mapping[str, Interval] | None = None,
) -> Table:
    """Returns two scores for each class and their means, with the baseline's: IoU and Dice, or mask AP and box AP.

    Args:
        candidate: the scores to show, by metric name.
        baseline: the scores to compare with, or None.
        intervals: 95 % intervals of the candidate's scores by metric name.
        change_intervals: 95 % intervals of the changes against the baseline.
    """
    before = baseline or {}
    task = task_scores(candidate)
    headings, means, families = (
        (("AP", "box AP"), ("mask_ap", "box_ap"), ("class_mask_ap", "class_box_ap"))
        if task is INSTANCE
        else (("IoU", "Dice"), ("mean_iou", "mean_dice"), ("class_iou", "class_dice"))
    )
    compared = (f"{headings[0]} before", "change", "95 %") if baseline else ()
    table = _table("class", headings[0], "95 %", headings[1], *compared)
    names = [name.partition("/")[2] for name in candidate if name.startswith(f"{task.by_class}/")]
    for name, main, other in (
        *((name, *(f"{family}/{name}" for family in families)) for name in names),
        ("mean", *means),
    ):
        cells = [_number(candidate[main]), _interval(intervals.get(main), "{:.3f}"), _number(candidate[other])]
        if baseline:
            changed = _interval((change_intervals or {}).get(main), "{:+.3f}")
            cells += [_number(before[main]), _change(difference(candidate[main], before[main])), changed]
        table.add_row(name, *cells, style="bold" if main == task.main else None)
    return table


def depth_line(scores: Mapping[str, float]) -> str:
    """Returns the depth scores in one line."""
    return "depth: absolute relative error {abs_rel:.3f}, RMSE {rmse:.2f} m, within 25 % {delta_1:.3f}".format(**scores)


def sequence_table(sequences: Sequence[SequenceScore]) -> Table:
    """Returns the mean IoU of sequences, with the baseline's if there is one."""
    compared = any(row.baseline_mean_iou is not None for row in sequences)
    table = _table("worst sequences", "mean IoU", *(("before", "change") if compared else ()))
    for row in sequences:
        before = row.baseline_mean_iou
        cells = [_number(before), _change(difference(row.mean_iou, before))] if compared else []
        table.add_row(Text(row.name), _number(row.mean_iou), *cells)
    return table


def changed_images_table(heading: str, images: Sequence[ScoredImage]) -> Table:
    """Returns the main score of images, at least one, before and after a change of the model."""
    table = _table(heading, "AP" if images[0].metric == INSTANCE.main else "mean IoU", "before", "change")
    for image in images:
        numbers = (_number(image.score), _number(image.baseline_score), _change(image.change))
        table.add_row(Text(image.sample.pair.name), *numbers)
    return table


def failure_table(evaluation: Evaluation) -> Table:
    """Returns the thresholds of the gate that were not met, and by how much."""
    table = Table(box=None, padding=(0, 2), header_style="bold", title="Thresholds not met", title_justify="left")
    for column in ("score", "bound", "found", "margin"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for failure in evaluation.failures:
        numbers = (_number(value) for value in (failure.bound, failure.value, failure.margin))
        table.add_row(gate_name(failure), *numbers)
    return table


def _table(heading: str, *numbers: str) -> Table:
    """Returns an empty table with a column of names and columns of numbers."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column(heading)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _change(change: float) -> Text:
    style = "green" if change > 0.0005 else "red" if change < -0.0005 else "dim"
    return Text("" if math.isnan(change) else f"{change:+.3f}", style=style)


def _interval(bounds: Interval | None, form: str) -> Text:
    return Text("" if bounds is None else " ".join(form.format(bound) for bound in bounds), style="dim")


def _number(value: float | None) -> Text:
    """Returns a score with three decimals; `absent` for a class without pixels in the masks."""
    return Text("absent", style="dim") if value is None or value != value else Text(f"{value:.3f}")
