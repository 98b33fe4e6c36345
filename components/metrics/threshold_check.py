"""One bound of the gate and the value it was compared with, for the console, the summary and the report."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ThresholdCheck:
    """One bound of the gate and the value it was compared with.

    Attributes:
        metric: name of the metric, as in `summary.json`: `mean_iou`, `class_iou/road`.
        kind: `value` if the score itself must reach the bound, `change` if the score minus the
            baseline's must.
        bound: the smallest value that passes, or the largest of an error.
        value: the score or change that was found; NaN, in JSON null, if there was nothing to score.
        passed: the gate's verdict on this bound.
        interval: 95 % interval of a change, for all classes together; None if it is not known.
        counted: the change as the gate counts it: 0 for a drop that is not significant; None counts `value`.
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
        """How far the counted value is on the good side of the bound, negative if it fails; None if undefined."""
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
        """One sentence for a person."""
        if self.margin is None:
            return f"{self.metric} has no value, so its bound of {self.bound:.3f} fails: no evaluated pixel is of it"
        if self.kind == "change":
            what = f"{self.metric} changed by {self.value:+.3f}"
            if self.interval:
                what += f" (95 % interval {self.interval[0]:+.3f} to {self.interval[1]:+.3f})"
            allowed = f"it may rise by {self.bound:.3f}" if self.lower_is_better else f"{-self.bound:.3f} may be lost"
            what += f" against the baseline, {allowed}"
        else:
            limit = "maximum" if self.lower_is_better else "minimum"
            what = f"{self.metric} is {self.value:.3f}, the {limit} is {self.bound:.3f}"
        return what if self.passed else f"{what}: {-self.margin:.3f} {'too high' if self.lower_is_better else 'short'}"
