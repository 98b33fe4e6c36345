"""One bound of the gate and the value that it was compared with, for the console, the summary and the report."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ThresholdCheck:
    """One bound of the gate and the value that it was compared with.

    Attributes:
        metric: name of the metric, as in `summary.json`: `mean_iou`, `class_iou/road`.
        kind: `value` for a bound on the score itself, `change` for one on the score minus the baseline's.
        bound: the lowest value that passes; the highest if `lower_is_better`.
        value: the score or change; NaN, null in JSON, if undefined.
        passed: the gate's verdict on this bound.
        interval: 95 % interval of a change, for all classes together; None if unknown.
        counted: the change that the gate counts: 0 for a drop that is not significant; None if it counts `value`.
        lower_is_better: whether the metric is an error.
    """

    metric: str
    kind: Literal["value", "change"]
    bound: float
    value: float | None
    passed: bool
    interval: tuple[float, float] | None = None
    counted: float | None = None
    lower_is_better: bool = False

    @property
    def margin(self) -> float | None:
        """The distance of the counted value from the bound, negative if it fails; None if undefined."""
        if self.value is None or math.isnan(self.value):
            return None
        margin = (self.value if self.counted is None else self.counted) - self.bound
        return -margin if self.lower_is_better else margin

    @property
    def ignored(self) -> bool:
        """Whether the change is a drop that does not count, because it is not significant."""
        return self.margin is not None and self.counted is not None and self.counted != self.value

    @property
    def reason(self) -> str:
        """Why the bound is missed, as a sentence."""
        return f"{self.metric} {self.shortfall}"

    @property
    def shortfall(self) -> str:
        """By how much the bound is missed, as a sentence without the name of the metric."""
        if self.margin is None:
            return f"is undefined, so its bound of {self.bound:.3f} is missed: the split has nothing to score it on"
        missed_by = f"{-self.margin:.3f} {'above' if self.lower_is_better else 'below'}"
        if self.kind == "value":
            limit = "maximum" if self.lower_is_better else "minimum"
            return f"is {self.value:.3f}, {missed_by} its {limit} of {self.bound:.3f}"
        interval = f" (95 % interval {self.interval[0]:+.3f} to {self.interval[1]:+.3f})" if self.interval else ""
        return f"changed by {self.value:+.3f}{interval} against the baseline, {missed_by} the {self.bound:+.3f} allowed"
