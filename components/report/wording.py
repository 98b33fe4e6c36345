"""How the report writes numbers and sentences: scores, changes, shares, durations and the verdict.

Plain functions from values to text, shared by the page's template and the code that prepares its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from components.baseline.reasons import REASON_TEXTS
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
    """Writes a metric's name for people: `class_iou/road` becomes `IoU of road`."""
    family, _, class_name = metric.partition("/")
    if class_name and family in CLASS_METRICS:
        return f"{CLASS_METRICS[family]} of {class_name}"
    return _METRIC_NAMES.get(metric, metric)


def score(value: Any, missing: str = ABSENT) -> str:
    """Writes a score with three decimals; a word where it is undefined."""
    number = finite(value)
    return missing if number is None else f"{number:.3f}".replace("-", MINUS)


def change(value: Any) -> str:
    """Writes a difference of scores with its sign; nothing where it is undefined."""
    number = finite(value)
    if number is None:
        return ""
    text = f"{number:+.3f}"
    return "±0.000" if text in ("+0.000", "-0.000") else text.replace("-", MINUS)


def interval(bounds: tuple[float, float] | None, write: Callable[[Any], str] = score) -> str:
    """Writes a 95 % interval, as scores or with `change` as differences; nothing if it is not known."""
    return "" if bounds is None else f"{write(bounds[0])} to {write(bounds[1])}"


def change_interval(bounds: tuple[float, float] | None) -> str:
    """Writes the 95 % interval of a difference."""
    return interval(bounds, change)


def difference(value: Any, baseline: Any) -> float | None:
    """Returns value minus baseline, or None where either is undefined."""
    number, reference = finite(value), finite(baseline)
    return None if number is None or reference is None else number - reference


def direction(value: Any) -> str:
    """Names the direction of a change as it is written: `up`, `down` or `same`."""
    text = change(value)
    return "up" if text.startswith("+") else "down" if text.startswith(MINUS) else "same"


def percent(share: Any) -> str:
    """Writes a share of 0 to 1 as a percentage, with a decimal below ten."""
    number = finite(share)
    if number is None:
        return "–"
    value = 100 * number
    if 0 < value < 0.05:
        return "<0.1" + PERCENT
    return (f"{value:.1f}" if value < 9.95 and value else f"{value:.0f}") + PERCENT


def seconds(value: Any) -> str:
    """Writes a duration in seconds the way a person reads it: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
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
    """Returns a number as it is and anything undefined as 0, for the length of a bar."""
    return finite(value) or 0.0


def count(value: int, noun: str) -> str:
    """Writes a number with its noun, in the plural where it is not one: `1 frame`, `1,204 frames`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def verdict_title(verdict: Verdict) -> str:
    """Returns the verdict in three words or fewer."""
    if not verdict.blessed:
        return "Not blessed"
    return "Blessed and pushed" if verdict.pushed else "Blessed, not pushed"


def verdict_reason(data: ReportData) -> str:
    """Says in one sentence why the model was blessed, or which threshold it misses by most."""
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
    """Says which split the gate judges and what chose the model, with the gap between the two; empty if not known.

    An epoch is chosen unless the last is kept, a variant only if variants are built.
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
    failures = sorted(verdict.failures, key=lambda gate: gate.margin if gate.margin is not None else float("-inf"))
    if not failures:
        return "The evaluation did not bless this model."
    worst, others = failures[0], len(failures) - 1
    text = _shortfall(worst)
    if others:
        text += f"; {others} more threshold{' is' if others == 1 else 's are'} missed"
    return text + "."


def _shortfall(gate: ThresholdCheck) -> str:
    """Says by how much a gate is missed."""
    name = metric_name(gate.metric)
    if gate.margin is None:
        return (
            f"{name} is undefined, as the split has no pixel to score it on, so its bound of {gate.bound:.3f} is missed"
        )
    short_by = f"{-gate.margin:.3f}"
    side, limit = ("above", "maximum") if gate.lower_is_better else ("below", "minimum")
    if gate.kind == "value":
        return f"{name} is {score(gate.value)}, {short_by} {side} its {limit} of {score(gate.bound)}"
    return (
        f"{name} changed by {change(gate.value)} "
        + (f"(95 % interval {change_interval(gate.interval)}) " if gate.interval else "")
        + "against the baseline, "
        + f"{short_by} {side} the {change(gate.bound)} allowed"
    )


def timing_summary(data: ReportData) -> str:
    """Says how long the run took, where most of the time went and what came from the cache."""
    longest = max(data.timings, key=lambda timing: timing.seconds)
    text = f"{seconds(sum(timing.seconds for timing in data.timings))} in all"
    if len(data.timings) > 1:
        text += f", {seconds(longest.seconds)} of it in {longest.component}"
    cached = sum(timing.state == "cached" for timing in data.timings)
    if cached:
        text += f"; {cached} of {count(len(data.timings), 'component')} came from the cache"
    return text + "."


def gate_bound(gate: ThresholdCheck) -> str:
    """Writes a bound as a score or as a change."""
    bound = score(gate.bound) if gate.kind == "value" else change(gate.bound)
    return f"at most {bound}" if gate.lower_is_better else bound


def gate_value(gate: ThresholdCheck) -> str:
    """Writes what was found as a score or as a change."""
    if finite(gate.value) is None:
        return "undefined"
    return score(gate.value) if gate.kind == "value" else change(gate.value)


def gate_name(gate: ThresholdCheck, within: bool = False) -> str:
    """Names a gate by its metric and, where it is one, as a change from the baseline."""
    name = metric_name(gate.metric)
    if within and not name.startswith(("IoU", "Dice")):
        name = in_sentence(name)
    return f"{name}, change from the baseline" if gate.kind == "change" else name


def in_sentence(name: str) -> str:
    """Writes a metric's name within a sentence: `mean IoU`."""
    return name[0].lower() + name[1:]


def moment(time: str) -> str:
    """Writes a time, ISO 8601 in UTC, to the minute; one of a report of an earlier version as it is."""
    return f"{time[:10]} {time[11:16]} UTC" if time.endswith("Z") else time


def related_run(run: RelatedRun | None, name: str | None = None) -> str:
    """Writes another model: `unet of execution 12, run 20260131-120000-unet, version 3`; nothing if unknown."""
    parts = [name] if name else []
    if run and run.run_id:
        parts.append(f"run {run.run_id}")
    if run and run.version is not None:
        parts.append(f"version {run.version}")
    if run and run.why:
        parts.append(REASON_TEXTS[run.why])
    return ", ".join(parts)
