"""Write the report's numbers and sentences: scores, changes, fractions, durations and the verdict.

Templates call these functions by name, and use them as filters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from components.baseline.reasons import REASON_TEXTS
from components.metrics import scores
from components.metrics.scores import task_scores
from components.metrics.threshold_check import ThresholdCheck
from components.report.charts import finite
from components.report.data import RelatedRun, ReportData, Verdict

ABSENT = "absent"
MINUS = "\N{MINUS SIGN}"
PERCENT = "\N{NARROW NO-BREAK SPACE}%"

_METRIC_NAMES = {
    "mean_iou": "Mean IoU",
    "mean_dice": "Mean Dice",
    "pixel_accuracy": "Pixel accuracy",
    "frequency_weighted_iou": "Frequency-weighted IoU",
    "mean_iou_with_void": "Mean IoU with void",
    "mean_boundary_iou": "Mean boundary IoU",
    "mask_ap": "Mask AP",
    "mask_ap50": "Mask AP50",
    "mask_ap75": "Mask AP75",
    "box_ap": "Box AP",
    "box_ap50": "Box AP50",
    "box_ap75": "Box AP75",
    "abs_rel": "Relative error of depth",
    "rmse": "RMSE of depth in metres",
    "delta_1": "Depth within 25 %",
}
CLASS_METRICS = {
    "class_iou": "IoU",
    "class_boundary_iou": "Boundary IoU",
    "class_dice": "Dice",
    "class_mask_ap": "Mask AP",
    "class_box_ap": "Box AP",
}


def metric_name(metric: str) -> str:
    """Returns the display name of a metric: `class_iou/road` becomes `IoU of road`."""
    family, _, class_name = metric.partition("/")
    if class_name and family in CLASS_METRICS:
        return f"{CLASS_METRICS[family]} of {class_name}"
    return _METRIC_NAMES.get(metric, metric)


def score(value: Any, missing: str = ABSENT) -> str:
    """Writes a score with three decimals; `missing` if it is undefined."""
    number = finite(value)
    return missing if number is None else f"{number:.3f}".replace("-", MINUS)


def change(value: Any) -> str:
    """Writes a difference of scores with its sign; nothing if it is undefined."""
    number = finite(value)
    if number is None:
        return ""
    text = f"{number:+.3f}"
    return "±0.000" if text in ("+0.000", "-0.000") else text.replace("-", MINUS)


def interval(bounds: tuple[float, float] | None, write: Callable[[Any], str] = score) -> str:
    """Writes a 95 % interval of a score, or of a difference if `write` is `change`; nothing if it is unknown."""
    return "" if bounds is None else f"{write(bounds[0])} to {write(bounds[1])}"


def difference(value: Any, baseline: Any) -> float | None:
    """Returns value minus baseline, or None if either is undefined."""
    return finite(scores.difference(finite(value), finite(baseline)))


def direction(value: Any) -> str:
    """Returns the direction of a change as it is written: `up`, `down` or `same`."""
    text = change(value)
    return "up" if text.startswith("+") else "down" if text.startswith(MINUS) else "same"


def percent(fraction: Any) -> str:
    """Writes a fraction of 0 to 1 as a percentage, with a decimal below 10 %."""
    number = finite(fraction)
    if number is None:
        return "–"
    value = 100 * number
    if 0 < value < 0.05:
        return "<0.1" + PERCENT
    return (f"{value:.1f}" if value < 9.95 and value else f"{value:.0f}") + PERCENT


def seconds(value: Any) -> str:
    """Writes a duration in seconds: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    number = finite(value)
    if number is None:
        return "–"
    if number < 9.95:
        return f"{number:.1f} s"
    whole = round(number)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(value: Any) -> str:
    """Writes a learning rate with three significant digits."""
    known = finite(value)
    return "–" if known is None else f"{known:.3g}".replace("-", MINUS)


def number(value: Any) -> float:
    """Returns a number, or 0 if it is undefined, for the length of a bar."""
    return finite(value) or 0.0


def count(value: int, noun: str) -> str:
    """Writes a number with its noun: `1 frame`, `1,204 frames`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def verdict_title(verdict: Verdict) -> str:
    """Returns the heading of the verdict."""
    if not verdict.blessed:
        return "Not blessed"
    return "Blessed and pushed" if verdict.pushed else "Blessed, not pushed"


def verdict_reason(data: ReportData) -> str:
    """Explains the verdict in one sentence: the closest threshold, or the one missed by most."""
    verdict = data.verdict
    if not verdict.blessed:
        return _failure_reason(verdict)
    if not verdict.gates:
        return "No threshold was recorded for this model."
    met = "The only threshold is met" if len(verdict.gates) == 1 else f"All {len(verdict.gates)} thresholds are met"
    margins = [(gate.margin, gate) for gate in verdict.gates if gate.margin is not None]
    if not margins:
        return met + "."
    margin, closest = min(margins, key=lambda pair: pair[0])
    what = "" if len(verdict.gates) == 1 else f" ({gate_name(closest, within=True)})"
    closely = "with" if len(verdict.gates) == 1 else "the closest with"
    return f"{met}, {closely} {margin:.3f} to spare{what}."


def split_note(data: ReportData) -> str:
    """Explains which split the gate uses and which selected the model, with their gap; empty if unknown.

    A split selects an epoch unless the last is kept, and a variant only if variants are built.
    """
    gate, selection = data.gate_split, data.selection_split
    if not selection:
        return ""
    settings = data.lineage.configuration
    choices = (
        ("the epoch", settings.get("training", {}).get("keep", "best") == "best"),
        ("the variant", bool(settings.get("export", {}).get("variants"))),
    )
    chosen = " and ".join(what for what, chooses in choices if chooses)
    if gate == selection:
        if not chosen:
            return (
                f"The gate uses split {gate}, which selected nothing: the last epoch is kept, and no variant is built."
            )
        return (
            f"Split {gate} also selected {chosen}, so the gate's scores on it are slightly too high. For unbiased "
            "scores, add a split test to the data set, or set data.held_out_fraction."
        )
    main = task_scores(data.scores).main
    found = data.selection_scores.get(main)
    gap = change(difference(found, data.scores.get(main)))
    where, causes = (f"{selection}, which selected {chosen},", "that selection and ") if chosen else (selection, "")
    return (
        f"The gate uses split {gate}, which selected nothing. On split {where} {in_sentence(metric_name(main))} is "
        f"{score(found)}: a gap of {gap}, from {causes}differences between the splits."
    )


def _failure_reason(verdict: Verdict) -> str:
    if not verdict.failures:
        return "The evaluation did not bless this model."
    worst = min(verdict.failures, key=lambda gate: -math.inf if gate.margin is None else gate.margin)
    others = len(verdict.failures) - 1
    text = f"{metric_name(worst.metric)} {worst.shortfall.replace('-', MINUS)}"
    if others:
        text += f"; {others} more threshold{' is' if others == 1 else 's are'} missed"
    return text + "."


def timing_summary(data: ReportData) -> str:
    """Summarises the duration of the run, its slowest component and the use of the cache."""
    longest = max(data.timings, key=lambda timing: timing.seconds)
    text = f"{seconds(sum(timing.seconds for timing in data.timings))} in all"
    if len(data.timings) > 1:
        text += f", {seconds(longest.seconds)} of it in {longest.component}"
    cached = sum(timing.state == "cached" for timing in data.timings)
    if cached:
        text += f"; {cached} of {count(len(data.timings), 'component')} came from the cache"
    return text + "."


def gate_bound(gate: ThresholdCheck) -> str:
    """Writes the bound of a gate as a score or as a change."""
    bound = score(gate.bound) if gate.kind == "value" else change(gate.bound)
    return f"at most {bound}" if gate.lower_is_better else bound


def gate_value(gate: ThresholdCheck) -> str:
    """Writes the value of a gate as a score or as a change."""
    if finite(gate.value) is None:
        return "undefined"
    return score(gate.value) if gate.kind == "value" else change(gate.value)


def gate_name(gate: ThresholdCheck, within: bool = False) -> str:
    """Returns the display name of a gate; `within` a sentence, it starts in lower case."""
    name = metric_name(gate.metric)
    if within and not name.startswith(("IoU", "Dice")):
        name = in_sentence(name)
    return f"{name}, change from the baseline" if gate.kind == "change" else name


def in_sentence(name: str) -> str:
    """Writes a metric's name within a sentence: `mean IoU`."""
    return name[0].lower() + name[1:]


def moment(time: str) -> str:
    """Writes a time, ISO 8601 in UTC, to the minute; reports of an earlier version hold other formats, kept as is."""
    return f"{time[:10]} {time[11:16]} UTC" if time.endswith("Z") else time


def related_run(run: RelatedRun | None, name: str | None = None) -> str:
    """Describes another model: `unet of execution 12, run 20260131-120000-unet, version 3`; empty if unknown."""
    parts = [name] if name else []
    if run and run.run_id:
        parts.append(f"run {run.run_id}")
    if run and run.version is not None:
        parts.append(f"version {run.version}")
    if run and run.why:
        parts.append(REASON_TEXTS[run.why])
    return ", ".join(parts)


def reasons(quarantined: Mapping[str, int]) -> str:
    """Lists numbers of quarantined files by reason, the most frequent first."""
    listed = sorted(quarantined.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason} {number:,}" for reason, number in listed)
