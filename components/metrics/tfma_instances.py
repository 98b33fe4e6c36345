"""Compute average precision as a TensorFlow Model Analysis metric.

The label is the run-length encoded masks of the raw features, the prediction the boxes, scores and masks of the
signature `evaluation`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from components import features
from components.instances import Instances, decode_runs
from components.metrics import tfma_base
from components.metrics.average_precision import AveragePrecision, ImageMatches, match
from components.metrics.bootstrap import Resampled
from components.metrics.detections import Detections
from components.metrics.scores import INSTANCE
from components.metrics.tally import MAX_SEQUENCES
from components.metrics.tfma_base import one_bytes

SEQUENCE_SCORES = "sequence_scores"
SELECTION = "selection"


@dataclasses.dataclass
class InstanceTally:
    """The matches of images.

    Attributes:
        things: names of the classes that have instances.
        images: matches of the images that the gate judges.
        selection: matches of the split that selected the epoch; empty if the gate judges that split.
    """

    things: tuple[str, ...]
    images: list[ImageMatches] = dataclasses.field(default_factory=list)
    selection: list[ImageMatches] = dataclasses.field(default_factory=list)

    def add(self, image: ImageMatches, selects: bool) -> None:
        """Adds an image; `selects` if it is in the split that selected the epoch."""
        (self.selection if selects else self.images).append(image)

    def merge(self, other: InstanceTally) -> None:
        """Adds the images of another tally."""
        self.images += other.images
        self.selection += other.selection

    def flat(self) -> dict[str, float]:
        """Returns the scores by metric name; NaN if undefined."""
        return self._scores

    def resampled(self) -> Resampled:
        """Returns the average precision of masks of every bootstrap resample."""
        return self._resampled

    # Called several times after the last image, and slow.
    @functools.cached_property
    def _scores(self) -> dict[str, float]:
        return AveragePrecision(self.images, self.things).flat()

    @functools.cached_property
    def _resampled(self) -> Resampled:
        return AveragePrecision(self.images, self.things).resampled()


class InstanceMetric(tfma_base.TallyMetric):
    """Average precision of masks and boxes, and of each class, named as in `class_mask_ap/car`."""

    metric = "average_precision"

    def empty_tally(self) -> InstanceTally:
        """Returns the tally of no image."""
        return InstanceTally(tuple(self.settings.things))

    def count(self, raw: Mapping[str, Any], label: Any, outputs: Any) -> Iterator[tuple[Any, ...]]:
        """Yields the matches of one example, and whether it is in the split that selected the epoch."""
        del label
        image, sequence = (one_bytes(raw[name], name) for name in (features.IMAGE, features.SEQUENCE))
        truth = true_instances(raw)
        found = Detections.of_outputs(outputs, truth.masks.shape[1:])
        indices = [self.class_map.index(name) for name in self.settings.things]
        yield match(truth, found, indices, image, sequence.decode()), self.selects(raw)

    def derive(self, tally: InstanceTally) -> dict[str, Any]:
        """Returns the AP of masks by sequence, float64 [sequences], and in the selection split, as `selection/mask_ap`.

        Too many sequences leave out theirs.
        """
        values: dict[str, Any] = {}
        names = sorted({image.sequence for image in tally.images})
        if 0 < len(names) <= MAX_SEQUENCES:
            groups = ([image for image in tally.images if image.sequence == name] for name in names)
            values[tfma_base.SEQUENCE_NAMES] = np.array(names)
            values[SEQUENCE_SCORES] = np.array([AveragePrecision(group, tally.things).mask_ap for group in groups])
        if tally.selection:
            for name, value in AveragePrecision(tally.selection, tally.things).flat().items():
                if name.split("/")[0] in (INSTANCE.main, INSTANCE.by_class):
                    values[f"{SELECTION}/{name}"] = value
        return values


def true_instances(example: Mapping[str, Any]) -> Instances:
    """Returns the instances of an example from its raw features by name.

    Raises:
        ValueError: a feature is missing, or the runs do not fit the image.
    """
    missing = [name for name in (features.HEIGHT, features.WIDTH, features.INSTANCE_CLASS) if name not in example]
    if missing:
        raise ValueError(
            f"evaluation: found no feature {', '.join(missing)} in an example, expected the raw features of a data set "
            "with instances; name its `things` in the description of the data set"
        )
    height, width = (int(_integers(example[name])[0]) for name in (features.HEIGHT, features.WIDTH))
    classes, crowd, num_runs, runs = (_integers(example[name]) for name in features.INSTANCE_FEATURES)
    return Instances(decode_runs(num_runs, runs, height, width), classes, crowd.astype(bool))


def _integers(value: Any) -> np.ndarray:
    """Returns a feature's values, int64 [N]; TFMA gives None or an empty array of any type for an empty feature."""
    return np.asarray([] if value is None else value).ravel().astype(np.int64)
