"""Settings of the gate: which scores a model must reach before it may be served.

Nothing here imports TensorFlow, so a configuration is checked before anything heavy is loaded.
"""

from __future__ import annotations

import difflib
from typing import Annotated

from pydantic import Field

from components.class_map import ClassMap
from components.errors import UsageError
from components.settings import Settings

Fraction = Annotated[float, Field(ge=0, le=1)]


class GateSettings(Settings):
    """Bounds on the scores over the whole split that the gate judges; all scores are 0 to 1."""

    min_mean_iou: Fraction = Field(0.25, description="lowest mean IoU that is blessed")
    min_class_iou: dict[str, Fraction] = Field(
        default_factory=dict, description="lowest IoU of single classes by name, as pedestrian: 0.1"
    )
    max_class_drop: Fraction = Field(0.05, description="most IoU that any class may lose against the baseline")
    max_mean_drop: Fraction = Field(0.02, description="most mean IoU that may be lost against the baseline")
    significant_drops: bool = Field(
        True, description="count a drop only if its 95 % interval, paired by image, lies below 0"
    )

    def check_classes(self, class_map: ClassMap) -> None:
        """Checks that every bound names a class that is scored.

        Raises:
            UsageError: a name is unknown or belongs to the ignored class.
        """
        for name in self.min_class_iou:
            if name not in class_map.scored_names:
                nearest = difflib.get_close_matches(name, class_map.scored_names, n=3, cutoff=0.4)
                raise UsageError(
                    f"gate.min_class_iou: found class {name!r}, expected one of the scored classes "
                    f"{', '.join(class_map.scored_names)}; write {' or '.join(nearest) if nearest else 'one of them'}"
                )
