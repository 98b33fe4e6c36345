"""Turns a report's data into the rows the page shows: gates in order, class scores, the heat map, time bars.

Everything is computed here, so the template only places values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from components import drawing
from components.class_map import ClassMap, Color
from components.metrics.object_sizes import SizeScore
from components.metrics.scores import DEPTH, INSTANCE, LOWER_IS_BETTER, task_scores
from components.metrics.threshold_check import ThresholdCheck
from components.report import wording
from components.report.charts import Chart, curves, finite, last_entries
from components.report.data import Frame, ReportData, Timing

# Average precision of masks over all thresholds, at an IoU of 0.5 and of 0.75, and by size.
PRECISIONS = {
    "mask_ap": "AP",
    "mask_ap50": "AP50",
    "mask_ap75": "AP75",
    "mask_ap_small": "Small",
    "mask_ap_medium": "Medium",
    "mask_ap_large": "Large",
}
_GROUPS = {"worst": "Worst frames", "best": "Best frames", "random": "Random frames"}


def color(class_map: ClassMap, index: int) -> str:
    """Returns a class's display colour for CSS."""
    return _css(class_map.colors[index])


def error_legend(class_map: ClassMap) -> list[tuple[str, str]]:
    """Returns what the colours of an error picture mean, with each colour for CSS."""
    entries = [("wrong", _css(drawing.WRONG))]
    if class_map.ignore_index is not None:
        entries.append(("not scored (hatched)", _css(drawing.IGNORED)))
    return entries


def _css(rgb: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """One score beside the baseline's, with the 95 % intervals of the score and of its change if they are known."""

    name: str
    value: float | None
    baseline: float | None
    color: str = ""
    interval: tuple[float, float] | None = None
    change_interval: tuple[float, float] | None = None
    lower_is_better: bool = False

    @property
    def change(self) -> float | None:
        """The score minus the baseline's, None if either is undefined."""
        return wording.difference(self.value, self.baseline)


class Scored(Protocol):
    """What a page's tables of scores are made of; see `ReportData`."""

    @property
    def class_map(self) -> ClassMap:
        """The classes."""

    @property
    def scores(self) -> Mapping[str, float | None]:
        """Scores by metric name."""

    @property
    def baseline_scores(self) -> Mapping[str, float | None] | None:
        """Those of the model to compare with, or None."""

    @property
    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """95 % intervals of the scores."""

    @property
    def change_intervals(self) -> Mapping[str, tuple[float, float]]:
        """95 % intervals of the changes."""


def score_row(data: Scored, metric: str, name: str, color: str = "") -> ScoreRow:
    """Looks one metric up in the candidate's scores and the baseline's."""
    baseline = (data.baseline_scores or {}).get(metric)
    return ScoreRow(
        name,
        finite(data.scores.get(metric)),
        finite(baseline),
        color,
        data.intervals.get(metric),
        data.change_intervals.get(metric),
        metric in LOWER_IS_BETTER,
    )


def key_figures(data: Scored) -> list[ScoreRow]:
    """Returns the figures of the verdict banner: the task's three, and those of depth."""
    names = (*task_scores(data.scores).listed, *(name for name in DEPTH if name in data.scores))
    return [score_row(data, metric, wording.metric_name(metric)) for metric in names]


def class_rows(data: Scored, family: str) -> list[ScoreRow]:
    """Returns one row for each class that has a score of a family, such as `class_iou` or `class_mask_ap`."""
    return [
        score_row(data, f"{family}/{name}", name, color(data.class_map, index))
        for index, name in enumerate(data.class_map.names)
        if f"{family}/{name}" in data.scores
    ]


def precision_rows(data: ReportData) -> list[tuple[str, str, list[float | None]]]:
    """Returns name, colour and average precision of masks of each class and of the mean; none without instances.

    The columns are those of `PRECISIONS`.
    """
    names = [row.name for row in class_rows(data, INSTANCE.by_class)]
    if not names:
        return []
    rows = [(name, color(data.class_map, data.class_map.index(name)), f"class_{{}}/{name}") for name in names]
    return [
        (name, css, [finite(data.scores.get(form.format(metric))) for metric in PRECISIONS])
        for name, css, form in [*rows, ("mean", "", "{}")]
    ]


@dataclasses.dataclass(frozen=True)
class GapRow:
    """One main score of two splits: of the one that the gate judges, and of the one that chose the epoch."""

    name: str
    value: float | None
    selection: float | None
    color: str = ""

    @property
    def gap(self) -> float | None:
        """The selection split's minus the gate's, None if either is undefined."""
        return wording.difference(self.selection, self.value)


def gap_rows(data: ReportData) -> list[GapRow]:
    """Returns one row a scored class and the mean; none if one split did both."""
    if not data.selection_scores:
        return []
    task = task_scores(data.scores)
    classes = [(f"{task.by_class}/{row.name}", row.name, row.color) for row in class_rows(data, task.by_class)]
    metrics = [*classes, (task.main, "mean", "")]
    return [
        GapRow(name, finite(data.scores.get(metric)), finite(data.selection_scores.get(metric)), css)
        for metric, name, css in metrics
    ]


@dataclasses.dataclass(frozen=True)
class SizeRow:
    """One class's scores by object size, small to large."""

    name: str
    color: str
    sizes: tuple[SizeScore, ...]


def size_rows(data: ReportData) -> list[SizeRow]:
    """Returns one row a class that has objects."""
    return [
        SizeRow(name, color(data.class_map, data.class_map.index(name)), tuple(sizes.values()))
        for name, sizes in data.class_object_sizes.items()
        if any(score.objects for score in sizes.values())
    ]


def ordered_gates(data: ReportData) -> list[ThresholdCheck]:
    """Returns the missed thresholds first, then scores before changes, each by the smallest margin."""

    def key(gate: ThresholdCheck) -> tuple[bool, bool, bool, float]:
        margin = gate.margin
        return gate.passed, gate.kind != "value", margin is not None, margin or 0.0

    return sorted(data.verdict.gates, key=key)


@dataclasses.dataclass(frozen=True)
class HeatCell:
    """One cell of the confusion matrix; `share` is of its row, `shade` the opacity of its colour, 0 to 1."""

    truth: str
    predicted: str
    share: float
    shade: float
    text: str
    title: str
    diagonal: bool


@dataclasses.dataclass(frozen=True)
class HeatRow:
    """One true class of the confusion matrix."""

    name: str
    color: str
    scored: bool
    pixels: int
    cells: tuple[HeatCell, ...]


def heat_map(data: ReportData) -> list[HeatRow]:
    """Normalises the confusion matrix by its rows; a row without pixels is all zeros."""
    names = data.class_map.names
    rows = []
    for truth, counts in enumerate(data.confusion):
        total = sum(counts)
        cells = tuple(
            _heat_cell(names[truth], names[predicted], pixels, pixels / total if total else 0.0, truth == predicted)
            for predicted, pixels in enumerate(counts)
        )
        scored = truth != data.class_map.ignore_index
        rows.append(HeatRow(names[truth], color(data.class_map, truth), scored, total, cells))
    return rows


def _heat_cell(truth: str, predicted: str, pixels: int, share: float, diagonal: bool) -> HeatCell:
    # The exponent lifts small shares: a confusion of 5 % must be seen beside a diagonal of 90 %.
    shade = round(share**0.6, 3)
    text = "" if share < 0.005 else f"{100 * share:.0f}"
    verb = "found as" if diagonal else "taken for"
    title = f"{truth} {verb} {predicted}: {pixels:,} pixels, {wording.percent(share)} of {truth}"
    return HeatCell(truth, predicted, share, shade, text, title, diagonal)


def largest_confusions(rows: list[HeatRow], limit: int = 3) -> list[HeatCell]:
    """Returns the cells beside the diagonal that take the largest share of a scored class."""
    cells = [cell for row in rows if row.scored for cell in row.cells if not cell.diagonal and cell.share >= 0.01]
    return sorted(cells, key=lambda cell: -cell.share)[:limit]


def frame_groups(data: ReportData) -> list[tuple[str, list[Frame]]]:
    """Returns the groups of frames that hold any, each with its heading."""
    groups = [(title, [frame for frame in data.frames if frame.group == group]) for group, title in _GROUPS.items()]
    return [(title, frames) for title, frames in groups if frames]


def training_charts(data: ReportData) -> list[Chart]:
    """Returns the curves of loss and score, those that the history holds."""
    history = last_entries(data.history)
    charts = [
        curves("Loss", history, {"train": "loss", "validation": "val_loss"}),
        curves("Mean IoU", history, {"train": "mean_iou", "validation": "val_mean_iou"}),
        curves("Mask AP50", history, {"validation": "val_mask_ap50"}),
    ]
    return [chart for chart in charts if chart]


def best_epoch(data: ReportData) -> tuple[int, float] | None:
    """Returns the epoch of the highest validation score, by which epochs are chosen, and its value."""
    name = f"val_{task_scores(data.scores).of_epoch}"
    scored = [(finite(entry.get(name)), int(entry["epoch"])) for entry in last_entries(data.history)]
    known = [(value, -epoch) for value, epoch in scored if value is not None]
    if not known:
        return None
    value, negative_epoch = max(known)
    return -negative_epoch, value


@dataclasses.dataclass(frozen=True)
class SplitRow:
    """How many examples a split holds and how many pairs were kept out of it."""

    name: str
    examples: int
    quarantined: int
    reasons: str


def split_rows(data: ReportData) -> list[SplitRow]:
    """Returns one row a split that has examples or quarantined pairs."""
    rows = []
    for name in dict.fromkeys([*data.examples, *data.quarantined]):
        reasons = data.quarantined.get(name, {})
        listed = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))
        rows.append(SplitRow(name, data.examples.get(name, 0), sum(reasons.values()), listed))
    return rows


@dataclasses.dataclass(frozen=True)
class ShareRow:
    """One class's share of the pixels in each split."""

    name: str
    color: str
    scored: bool
    shares: tuple[float | None, ...]


def share_rows(data: ReportData) -> list[ShareRow]:
    """Returns one row a class, its shares in the order of `data.class_shares`."""
    class_map = data.class_map
    return [
        ShareRow(
            name,
            color(class_map, index),
            index != class_map.ignore_index,
            tuple(finite(shares.get(name)) for shares in data.class_shares.values()),
        )
        for index, name in enumerate(class_map.names)
    ]


@dataclasses.dataclass(frozen=True)
class TimeRow:
    """One component's duration; `width` is its bar in percent of the longest."""

    timing: Timing
    width: float


def time_rows(data: ReportData) -> list[TimeRow]:
    """Returns one row a component, in the order they ran."""
    longest = max((timing.seconds for timing in data.timings), default=0) or 1
    return [TimeRow(timing, round(100 * timing.seconds / longest, 2)) for timing in data.timings]


@dataclasses.dataclass(frozen=True)
class LineageRow:
    """One entry of the lineage; `address` is the report that it leads to, relative to this one, or empty."""

    name: str
    text: str
    address: str = ""


def lineage_rows(data: ReportData) -> list[LineageRow]:
    """Returns what the lineage section lists, leaving out what is not known."""
    lineage = data.lineage
    related = {"Baseline": lineage.baseline_run, "Version before": lineage.predecessor}
    rows = {
        "Run": lineage.run_id,
        "Created": wording.moment(lineage.created),
        "Model": data.model,
        "Pushed to": data.verdict.pushed,
        "Baseline": wording.related_run(lineage.baseline_run, lineage.baseline) or "none",
        "Version before": wording.related_run(lineage.predecessor),
        "Data hash": lineage.data_hash,
        "Code hash": lineage.code_hash,
    }
    addresses = {name: run.report or "" for name, run in related.items() if run}
    return [LineageRow(name, text, addresses.get(name, "")) for name, text in rows.items() if text]
