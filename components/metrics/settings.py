"""Settings of the gate: the scores that a model must reach before it is served.

The module does not import TensorFlow, so a configuration is checked before anything slow is loaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from components.class_map import ClassMap
from components.errors import UsageError
from components.settings import Settings

Fraction = Annotated[float, Field(ge=0, le=1)]


class GateSettings(Settings):
    """Bounds on the scores over the whole split that the gate judges, 0 to 1 except for depth."""

    min_mean_iou: Fraction = Field(0.25, description="minimum mean IoU")
    min_class_iou: dict[str, Fraction] = Field(
        default_factory=dict, description="minimum IoU of classes by name, for example pedestrian: 0.1"
    )
    min_mask_ap: Fraction = Field(0.1, description="task instance: minimum average precision of masks")
    min_class_ap: dict[str, Fraction] = Field(
        default_factory=dict,
        description="task instance: minimum average precision of masks of classes by name, for example car: 0.1",
    )
    max_class_drop: Fraction = Field(
        0.05, description="maximum drop of the IoU or average precision of a class against the baseline"
    )
    max_mean_drop: Fraction = Field(
        0.02, description="maximum drop of the mean IoU or average precision against the baseline"
    )
    max_abs_rel: float = Field(0.5, gt=0, description="model.depth: maximum absolute relative error of depth")
    max_abs_rel_rise: float = Field(
        0.02, ge=0, description="model.depth: maximum rise of the absolute relative error against the baseline"
    )
    best_of: int = Field(
        5,
        ge=1,
        description="number of newest versions, the served one included; the best of them on the same gate data is the"
        " baseline. 1 takes the served version",
    )
    significant_drops: bool = Field(
        True, description="count a drop only if its 95 % interval, paired by image, is below 0"
    )

    def check_classes(self, class_map: ClassMap, things: Sequence[str] = ()) -> None:
        """Checks that every bound names a scored class.

        Args:
            class_map: the classes.
            things: names of the classes that have instances; empty for the task semantic.

        Raises:
            UsageError: a class is unknown, ignored or, for average precision, has no instances.
        """
        _check_names("min_class_iou", self.min_class_iou, "the scored classes", class_map.scored_names)
        _check_names("min_class_ap", self.min_class_ap, "the classes with instances in a run of task instance", things)


def _check_names(setting: str, names: Iterable[str], what: str, known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            action = f"write {' or '.join(nearest) or 'one of them'}" if known else "remove it"
            raise UsageError(
                f"gate.{setting}: found class {name!r}, expected one of {what} {', '.join(known) or '(none)'}; {action}"
            )
