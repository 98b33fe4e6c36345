"""Compute the rows of the report's tables: class scores, thresholds in order, the heat map, the lineage.

Templates call these functions by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from components import drawing
from components.class_map import ClassMap, Color
from components.metrics.scores import DEPTH, INSTANCE, LOWER_IS_BETTER, task_scores
from components.metrics.threshold_check import ThresholdCheck
from components.report import wording
from components.report.charts import Chart, curves, finite, last_entries
from components.report.comparison_data import Comparison
from components.report.data import Frame, ReportData

# Average precision of masks over all thresholds, at an IoU of 0.5 and of 0.75, and by size.
PRECISIONS = {
    "mask_ap": "AP",
    "mask_ap50": "AP50",
    "mask_ap75": "AP75",
    "mask_ap_small": "Small",
    "mask_ap_medium": "Medium",
    "mask_ap_large": "Large",
}
_OTHER_FIGURES = (
    "frequency_weighted_iou", "mean_iou_with_void", "mean_boundary_iou", "mask_ap75", "box_ap50", "box_ap75",
)  # fmt: skip
_GROUPS = {"worst": "Worst frames", "best": "Best frames", "random": "Random frames"}


def color(class_map: ClassMap, index: int) -> str:
    """Returns a class's display colour for CSS."""
    return _css(class_map.colors[index])


def error_legend(class_map: ClassMap) -> list[tuple[str, str]]:
    """Returns the meaning of each colour of an error picture, with the colour for CSS."""
    entries = [("wrong", _css(drawing.WRONG))]
    if class_map.ignore_index is not None:
        entries.append(("not scored (hatched)", _css(drawing.IGNORED)))
    return entries


def _css(rgb: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """A score beside the baseline's, with the 95 % intervals of the score and of its change if they are known."""

    metric: str
    name: str
    value: float | None
    baseline: float | None
    color: str = ""
    interval: tuple[float, float] | None = None
    change_interval: tuple[float, float] | None = None

    @property
    def change(self) -> float | None:
        """The score minus the baseline's, None if either is undefined."""
        return wording.difference(self.value, self.baseline)

    @property
    def lower_is_better(self) -> bool:
        """Whether the score is an error."""
        return self.metric in LOWER_IS_BETTER


def score_row(data: ReportData | Comparison, metric: str, name: str = "", color: str = "") -> ScoreRow:
    """Returns the row of a metric, by default under the metric's name."""
    return ScoreRow(
        metric,
        name or wording.metric_name(metric),
        finite(data.scores.get(metric)),
        finite((data.baseline_scores or {}).get(metric)),
        color,
        data.intervals.get(metric),
        data.change_intervals.get(metric),
    )


def key_figures(data: ReportData | Comparison) -> list[ScoreRow]:
    """Returns the scores of the verdict banner: three of the task, and those of depth."""
    names = (*task_scores(data.scores).listed, *(name for name in DEPTH if name in data.scores))
    return [score_row(data, metric) for metric in names]


def other_figures(data: ReportData) -> list[ScoreRow]:
    """Returns the scores below the banner."""
    return [score_row(data, metric) for metric in _OTHER_FIGURES if metric in data.scores]


def class_rows(data: ReportData | Comparison, family: str) -> list[ScoreRow]:
    """Returns one row for each class with a score of a family, such as `class_iou` or `class_mask_ap`."""
    return [
        score_row(data, f"{family}/{name}", name, color(data.class_map, index))
        for index, name in enumerate(data.class_map.names)
        if f"{family}/{name}" in data.scores
    ]


def class_tables(data: ReportData | Comparison) -> list[tuple[str, list[ScoreRow]]]:
    """Returns heading and rows of each table of class scores."""
    tables = [(title, class_rows(data, family)) for family, title in wording.CLASS_METRICS.items()]
    return [(title, rows) for title, rows in tables if rows]


def precision_rows(data: ReportData) -> list[tuple[str, str, list[float | None]]]:
    """Returns name, colour and average precision of masks of each class and of the mean; empty without instances.

    The columns are those of `PRECISIONS`.
    """
    classes = class_rows(data, INSTANCE.by_class)
    if not classes:
        return []
    rows = [(row.name, row.color, f"class_{{}}/{row.name}") for row in classes]
    return [
        (name, css, [finite(data.scores.get(form.format(metric))) for metric in PRECISIONS])
        for name, css, form in [*rows, ("mean", "", "{}")]
    ]


def ordered_gates(data: ReportData) -> list[ThresholdCheck]:
    """Returns the missed thresholds first, then scores before changes, each by the smallest margin."""

    def key(gate: ThresholdCheck) -> tuple[bool, bool, bool, float]:
        margin = gate.margin
        return gate.passed, gate.kind != "value", margin is not None, margin or 0.0

    return sorted(data.verdict.gates, key=key)


@dataclasses.dataclass(frozen=True)
class HeatCell:
    """A cell of the confusion matrix: its pixels, and their fraction of the row, 0 to 1."""

    truth: str
    predicted: str
    pixels: int
    fraction: float

    @property
    def diagonal(self) -> bool:
        """Whether the prediction is right."""
        return self.truth == self.predicted

    @property
    def shade(self) -> float:
        """The opacity of the cell's colour, 0 to 1."""
        # The exponent lifts small fractions: a confusion of 5 % must be visible beside a diagonal of 90 %.
        return round(self.fraction**0.6, 3)

    @property
    def title(self) -> str:
        """The tooltip of the cell."""
        fraction = wording.percent(self.fraction)
        return f"{self.truth} predicted as {self.predicted}: {self.pixels:,} pixels, {fraction} of {self.truth}"


def heat_map(data: ReportData) -> dict[str, list[HeatCell]]:
    """Returns the confusion matrix by true class, normalised by its rows; a row without pixels is all zeros."""
    names = data.class_map.names
    return {
        truth: [
            HeatCell(truth, predicted, pixels, pixels / max(sum(row), 1))
            for predicted, pixels in zip(names, row, strict=True)
        ]
        for truth, row in zip(names, data.confusion, strict=False)
    }


def largest_confusions(data: ReportData, limit: int = 3) -> list[HeatCell]:
    """Returns the wrong cells with the largest fraction of a scored class, at least 1 %."""
    rows = heat_map(data)
    cells = [cell for name in data.class_map.scored_names for cell in rows[name]] if rows else []
    wrong = [cell for cell in cells if not cell.diagonal and cell.fraction >= 0.01]
    return sorted(wrong, key=lambda cell: -cell.fraction)[:limit]


def frame_groups(data: ReportData) -> list[tuple[str, list[Frame]]]:
    """Returns the groups that have frames, each with its heading."""
    groups = [(title, [frame for frame in data.frames if frame.group == group]) for group, title in _GROUPS.items()]
    return [(title, frames) for title, frames in groups if frames]


def training_charts(data: ReportData) -> list[Chart]:
    """Returns the curves of loss and score that the history holds."""
    history = last_entries(data.history)
    charts = [
        curves("Loss", history, {"train": "loss", "validation": "val_loss"}),
        curves("Mean IoU", history, {"train": "mean_iou", "validation": "val_mean_iou"}),
        curves("Mask AP50", history, {"validation": "val_mask_ap50"}),
    ]
    return [chart for chart in charts if chart]


def best_epoch(data: ReportData) -> tuple[int, float] | None:
    """Returns the first epoch with the highest validation score, which selects epochs, and that score."""
    name = f"val_{task_scores(data.scores).of_epoch}"
    scored = [(int(entry["epoch"]), finite(entry.get(name))) for entry in last_entries(data.history)]
    known = [(epoch, value) for epoch, value in scored if value is not None]
    return max(known, key=lambda pair: pair[1], default=None)


@dataclasses.dataclass(frozen=True)
class FractionRow:
    """The fraction of one class in the pixels of each split."""

    name: str
    color: str
    scored: bool
    fractions: tuple[float | None, ...]


def fraction_rows(data: ReportData) -> list[FractionRow]:
    """Returns one row per class, its fractions in the order of `data.class_shares`."""
    return [
        FractionRow(
            name,
            color(data.class_map, index),
            index != data.class_map.ignore_index,
            tuple(finite(fractions.get(name)) for fractions in data.class_shares.values()),
        )
        for index, name in enumerate(data.class_map.names)
    ]


def largest_fraction(rows: Sequence[FractionRow]) -> float:
    """Returns the largest fraction, for the length of the bars; 1 without any."""
    return max((fraction for row in rows for fraction in row.fractions if fraction), default=1.0)


def total_quarantined(data: ReportData) -> int:
    """Returns the number of quarantined files of all splits."""
    return sum(sum(by_reason.values()) for by_reason in data.quarantined.values())


class LineageRow(NamedTuple):
    """An entry of the lineage; `address` is the report that it links to, relative to this one, or empty."""

    name: str
    text: str
    address: str = ""


def lineage_rows(data: ReportData) -> list[LineageRow]:
    """Returns the entries of the lineage section that are known."""
    lineage = data.lineage
    baseline, predecessor = lineage.baseline_run, lineage.predecessor
    rows = (
        LineageRow("Run", lineage.run_id),
        LineageRow("Created", wording.moment(lineage.created)),
        LineageRow("Model", data.model),
        LineageRow("Pushed to", data.verdict.pushed or ""),
        LineageRow(
            "Baseline", wording.related_run(baseline, lineage.baseline) or "none", (baseline and baseline.report) or ""
        ),
        LineageRow("Version before", wording.related_run(predecessor), (predecessor and predecessor.report) or ""),
        LineageRow("Data hash", lineage.data_hash),
        LineageRow("Code hash", lineage.code_hash),
    )
    return [row for row in rows if row.text]
