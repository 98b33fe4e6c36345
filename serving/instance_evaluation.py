"""Scores one or two exported models of instances on a split: average precision as COCO defines it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from components.dataset.description import DatasetDescription
from components.dataset.encoded import MAX_PIXELS, Limits
from components.dataset.pairs import Pair
from components.errors import DataRejectedError
from components.metrics.average_precision import AveragePrecision, ImageMatches, match
from components.metrics.bootstrap import Interval, Resampled, change_intervals, score_intervals
from components.metrics.detections import Detections
from components.metrics.results import InstanceScores
from serving.client.results import InstanceLimits
from serving.evaluation import defined, read_sample
from serving.predictor import Predictor, batches

_BATCH = 8


@dataclasses.dataclass(frozen=True)
class InstanceEvaluation:
    """What one or two models of instances scored on a split.

    Attributes:
        split: its name.
        frames: number of its images.
        models: where each model is.
        precisions: the average precision of each.
    """

    split: str
    frames: int
    models: tuple[str, ...]
    precisions: tuple[AveragePrecision, ...]

    @property
    def scores(self) -> InstanceScores:
        """The first model's scores."""
        return InstanceScores(self.precisions[0].flat())

    @property
    def baseline_scores(self) -> InstanceScores | None:
        """The second model's scores, None if there is one model."""
        return InstanceScores(self.precisions[1].flat()) if self.precisions[1:] else None

    @property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of the first model's scores by metric name, without those that are undefined."""
        return defined(score_intervals(self._resampled[0]))

    @property
    def change_intervals(self) -> dict[str, Interval]:
        """95 % intervals of the changes, the first model minus the second, paired by image; empty for one model."""
        if not self.precisions[1:]:
            return {}
        candidate, baseline = self._resampled
        return defined(change_intervals(candidate, baseline))

    @functools.cached_property
    def _resampled(self) -> list[Resampled]:
        return [each.resampled() for each in self.precisions]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        about = {"model": self.models[0], "split": self.split, "frames": self.frames, **self.scores.to_dict()}
        about["intervals"] = self.intervals
        if self.baseline_scores is None:
            return about
        baseline = {"against": self.models[1], "baseline": self.baseline_scores.to_dict()}
        return {**about, **baseline, "change_intervals": self.change_intervals}


def evaluate(
    predictors: Sequence[Predictor], data: str, pairs: Iterable[Pair], description: DatasetDescription, split: str
) -> InstanceEvaluation:
    """Scores models of instances on the pairs of a split; arguments and errors are those of `evaluation.evaluate`.

    Raises:
        DataRejectedError: a pair is bad, or no pair has an instance.
    """
    matches: list[list[ImageMatches]] = [[] for _ in predictors]
    things = description.thing_indices
    limits = Limits(max_pixels=min(predictor.metadata.get("max_pixels", MAX_PIXELS) for predictor in predictors))
    for batch in batches((read_sample(data, pair, description, limits) for pair in pairs), _BATCH):
        images = [sample.image for sample in batch]
        inputs = InstanceLimits().inputs(len(images))
        for own, predictor in zip(matches, predictors, strict=True):
            for sample, outputs in zip(batch, predictor.find_instances(images, inputs), strict=True):
                assert sample.instances is not None, "the description has things"
                found = Detections.of_outputs(outputs, (sample.height, sample.width))
                own.append(match(sample.instances, found, things, sample.image, sample.pair.sequence))
    if not any(image.truths.any() for image in matches[0]):
        raise DataRejectedError(
            f"--split {split}: found no instance of {', '.join(description.things)} in {data}; expected some to score. "
            "Name another split"
        )
    scored = tuple(AveragePrecision(each, description.things) for each in matches)
    return InstanceEvaluation(split, len(matches[0]), tuple(each.directory for each in predictors), scored)
