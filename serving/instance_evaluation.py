"""Scores one or two exported instance segmentation models on a split with COCO's average precision."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from components.dataset.description import DatasetDescription
from components.dataset.pairs import Pair
from components.errors import DataRejectedError
from components.metrics.average_precision import AveragePrecision, ImageMatches, match
from components.metrics.bootstrap import Resampled
from components.metrics.detections import Detections
from components.metrics.scores import Scores
from serving.client.results import InstanceLimits
from serving.evaluation import SplitEvaluation, read_batches
from serving.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class InstanceEvaluation(SplitEvaluation):
    """Scores of one or two models of instance segmentation.

    Attributes:
        precisions: the average precision of each model.
    """

    precisions: tuple[AveragePrecision, ...]

    @property
    def scores(self) -> Scores:
        """The first model's scores."""
        return Scores(self.precisions[0].flat())

    @property
    def baseline_scores(self) -> Scores | None:
        """The second model's scores, or None."""
        return Scores(self.precisions[1].flat()) if self.precisions[1:] else None

    @functools.cached_property
    def _resampled(self) -> list[Resampled]:
        return [each.resampled() for each in self.precisions]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        content: dict[str, Any] = {"model": self.models[0], "split": self.split, "frames": self.frames}
        content |= {**self.scores.to_dict(), "intervals": self.intervals}
        if self.baseline_scores is not None:
            content |= {"against": self.models[1], "baseline": self.baseline_scores.to_dict()}
            content["change_intervals"] = self.change_intervals
        return content


def evaluate(
    predictors: Sequence[Predictor], data: str, pairs: Iterable[Pair], description: DatasetDescription, split: str
) -> InstanceEvaluation:
    """Scores models of instance segmentation on the pairs of a split; arguments as in `evaluation.evaluate`.

    Raises:
        DataRejectedError: a pair is bad, or no pair has an instance.
    """
    matches: list[list[ImageMatches]] = [[] for _ in predictors]
    things = description.thing_indices
    for batch in read_batches(predictors, data, pairs, description):
        images = [sample.image for sample in batch]
        inputs = InstanceLimits().inputs(len(images))
        for own, predictor in zip(matches, predictors, strict=True):
            for sample, outputs in zip(batch, predictor.find_instances(images, inputs), strict=True):
                assert sample.instances is not None, "the description has things"
                found = Detections.of_outputs(outputs, (sample.height, sample.width))
                own.append(match(sample.instances, found, things, sample.image, sample.pair.sequence))
    if not any(image.truths.any() for image in matches[0]):
        raise DataRejectedError(
            f"--split {split}: found no instance of {', '.join(description.things)} in {data}, expected at least one. "
            "Choose another split"
        )
    scored = tuple(AveragePrecision(each, description.things) for each in matches)
    return InstanceEvaluation(split, len(matches[0]), tuple(each.directory for each in predictors), scored)
