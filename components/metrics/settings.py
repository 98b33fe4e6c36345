"""Settings of the gate: which scores a model must reach before it may be served.

Nothing here imports TensorFlow, so a configuration is checked before anything heavy is loaded.
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
    """Bounds on the scores over the whole split that the gate judges; all scores but those of depth are 0 to 1."""

    min_mean_iou: Fraction = Field(0.25, description="lowest mean IoU that is blessed")
    min_class_iou: dict[str, Fraction] = Field(
        default_factory=dict, description="lowest IoU of single classes by name, as pedestrian: 0.1"
    )
    min_mask_ap: Fraction = Field(0.1, description="task instance: lowest average precision of masks that is blessed")
    min_class_ap: dict[str, Fraction] = Field(
        default_factory=dict,
        description="task instance: lowest average precision of masks of single classes by name, as car: 0.1",
    )
    max_class_drop: Fraction = Field(
        0.05, description="most IoU or average precision that any class may lose against the baseline"
    )
    max_mean_drop: Fraction = Field(
        0.02, description="most mean IoU or average precision that may be lost against the baseline"
    )
    max_abs_rel: float = Field(
        0.5, gt=0, description="model.depth: highest absolute relative error of depth that is blessed"
    )
    max_abs_rel_rise: float = Field(
        0.02, ge=0, description="model.depth: most that the absolute relative error may rise against the baseline"
    )
    best_of: int = Field(
        5,
        ge=1,
        description="versions among which the best on the same gate data is the baseline, the served one included; 1"
        " takes the served one",
    )
    significant_drops: bool = Field(
        True, description="count a drop only if its 95 % interval, paired by image, lies below 0"
    )

    def check_classes(self, class_map: ClassMap, things: Sequence[str] = ()) -> None:
        """Checks that every bound names a class that is scored.

        Args:
            class_map: the classes.
            things: names of the classes that have instances; none for the task semantic.

        Raises:
            UsageError: a name is unknown, belongs to the ignored class, or to one without instances.
        """
        _check_names("min_class_iou", self.min_class_iou, "the scored classes", class_map.scored_names)
        _check_names("min_class_ap", self.min_class_ap, "the classes with instances in a run of task instance", things)


def _check_names(setting: str, names: Iterable[str], what: str, known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise UsageError(
                f"gate.{setting}: found class {name!r}, expected one of {what} {', '.join(known) or '(none)'}; "
                f"write {' or '.join(nearest) if nearest else 'one of them'}"
            )
