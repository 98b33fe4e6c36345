"""Average precision as TensorFlow Model Analysis metrics.

The label is the run-length encoded masks of the raw features, the prediction the boxes, scores and masks of the
signature `evaluation`. Each image is decoded and matched once, and all metrics read the matches.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_model_analysis as tfma

from components import features
from components.class_map import ClassMap
from components.instances import Instances, decode_runs
from components.metrics import tfma_base
from components.metrics.average_precision import AveragePrecision, ImageMatches, match
from components.metrics.bootstrap import Resampled
from components.metrics.detections import Detections
from components.metrics.scores import INSTANCE
from components.metrics.tally import MAX_SEQUENCES
from components.metrics.tfma_base import SEQUENCE_NAMES, one_feature

SEQUENCE_SCORES = "sequence_scores"
SELECTION = "selection"


@dataclasses.dataclass
class InstanceTally:
    """The matches of images.

    Attributes:
        things: names of the classes that have instances.
        images: those that the gate judges.
        selection: those of the split that chose the epoch; empty if the gate judges that split.
    """

    things: tuple[str, ...]
    images: list[ImageMatches] = dataclasses.field(default_factory=list)
    selection: list[ImageMatches] = dataclasses.field(default_factory=list)

    def add(self, counted: tuple[ImageMatches, bool]) -> None:
        """Adds an image, with whether it is of the split that chose the epoch."""
        image, selects = counted
        (self.selection if selects else self.images).append(image)

    def merge(self, other: InstanceTally) -> None:
        """Adds the images of another tally."""
        self.images += other.images
        self.selection += other.selection

    # Several metrics ask for these, once all images are there.
    @functools.cached_property
    def scores(self) -> dict[str, float]:
        """The scores by metric name; NaN if undefined."""
        return AveragePrecision(self.images, self.things).flat()

    @functools.cached_property
    def _resampled(self) -> Resampled:
        return AveragePrecision(self.images, self.things).resampled()

    def flat(self) -> dict[str, float]:
        """Returns the scores by metric name; NaN if undefined."""
        return self.scores

    def resampled(self) -> Resampled:
        """Returns the average precision of masks of every bootstrap resample."""
        return self._resampled


class _MatchInstances(tfma.metrics.Preprocessor):
    """Matches one example's detections with its instances."""

    def __init__(self, thing_indices: tuple[int, ...], selection_split: str, model_name: str, output_name: str) -> None:
        super().__init__(name=f"match_instances_{model_name}_{output_name}")
        self._thing_indices = thing_indices
        self._selection_split = selection_split
        self._model_name = model_name
        self._output_name = output_name

    def process(self, extracts: dict[str, Any]) -> Iterator[tuple[ImageMatches, bool]]:
        outputs = tfma.metrics.StandardMetricInputs(extracts).get_predictions(self._model_name, self._output_name)
        image, sequence = (one_feature(extracts, name) for name in (features.IMAGE, features.SEQUENCE))
        truth = true_instances(extracts[tfma.FEATURES_KEY])
        found = Detections.of_outputs(outputs, truth.masks.shape[1:])
        selects = tfma_base.is_selection(extracts, self._selection_split)
        yield match(truth, found, self._thing_indices, image, sequence.decode()), selects


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
    """Returns a feature's values, int64 [N]; TFMA has None or an empty array of any type for a feature without any."""
    return np.asarray([] if value is None else value).ravel().astype(np.int64)


class InstanceMetric(tfma_base.TallyMetric):
    """Base of the metrics of instances."""

    def computation(
        self, class_map: ClassMap, things: tuple[str, ...], selection_split: str, model_name: str, output_name: str
    ) -> tfma_base.Computation:
        """Returns how instances are matched."""
        indices = tuple(map(class_map.index, things))
        preprocessor = _MatchInstances(indices, selection_split, model_name, output_name)
        return tfma_base.Computation(preprocessor, functools.partial(InstanceTally, things), InstanceTally.add)


class InstanceScores(InstanceMetric):
    """Average precision of masks and boxes, and of each class, named as in `class_mask_ap/car`."""

    metric = "average_precision"

    def derive(self, tally: InstanceTally) -> Mapping[str, Any]:
        """Returns the scores."""
        return tally.scores


class SequenceScores(InstanceMetric):
    """The average precision of masks by sequence, float64 [sequences]."""

    metric = SEQUENCE_SCORES

    def derive(self, tally: InstanceTally) -> Mapping[str, Any]:
        """Returns the scores and, beside them, the sequences' names; nothing if there are too many sequences."""
        names = sorted({image.sequence for image in tally.images})
        if not 0 < len(names) <= MAX_SEQUENCES:
            return {}
        groups = ([image for image in tally.images if image.sequence == name] for name in names)
        values = [AveragePrecision(group, tally.things).mask_ap for group in groups]
        return {SEQUENCE_NAMES: np.array(names), self.metric: np.array(values)}


class SelectionScores(InstanceMetric):
    """The average precision of masks in the selection split, named as in `selection/mask_ap`."""

    metric = SELECTION

    def derive(self, tally: InstanceTally) -> Mapping[str, Any]:
        """Returns the mean and one value a class; nothing if the gate judges that split."""
        if not tally.selection:
            return {}
        found = AveragePrecision(tally.selection, tally.things).flat()
        families = INSTANCE.main, INSTANCE.by_class
        return {f"{self.metric}/{name}": value for name, value in found.items() if name.split("/")[0] in families}


class InstanceScoreInterval(tfma_base.ScoreInterval, InstanceMetric):
    """The intervals of the average precision of masks."""


class InstancePairedChange(tfma_base.PairedChange, InstanceMetric):
    """The changes of the average precision of masks."""


METRIC_CLASSES: tuple[type[InstanceMetric], ...] = (
    InstanceScores,
    SequenceScores,
    SelectionScores,
    InstanceScoreInterval,
    InstancePairedChange,
)
