"""One bound of the gate and what was held against it: what the console, the summary and the report tell of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ThresholdCheck:
    """One bound of the gate and what was held against it.

    Attributes:
        metric: name of the metric, as in `summary.json`: `mean_iou`, `class_iou/road`.
        kind: `value` where the score itself must reach the bound, `change` where the score minus
            the baseline's must.
        bound: the smallest value that passes.
        value: the score or change that was found; NaN, in JSON null, where there was nothing to score.
        passed: the gate's verdict on this bound.
    """

    metric: str
    kind: Literal["value", "change"]
    bound: float
    value: float | None
    passed: bool

    @property
    def margin(self) -> float | None:
        """The value minus the bound, negative by how much it falls short; None where the value is undefined."""
        return None if self.value is None or math.isnan(self.value) else self.value - self.bound

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        if self.margin is None:
            return f"{self.metric} has no value, so its bound of {self.bound:.3f} fails: no evaluated pixel is of it"
        if self.kind == "change":
            what = f"{self.metric} changed by {self.value:+.3f} against the baseline, {-self.bound:.3f} may be lost"
        else:
            what = f"{self.metric} is {self.value:.3f}, the minimum is {self.bound:.3f}"
        return what if self.passed else f"{what}: {-self.margin:.3f} short"
