"""Scores one or two exported instance segmentation models on a split with COCO's average precision."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

from PIL import Image

from components.dataset.description import DatasetDescription
from components.dataset.pairs import Pair
from components.errors import DataRejectedError
from components.metrics.average_precision import AveragePrecision, ImageMatches, match
from components.metrics.bootstrap import Resampled
from components.metrics.detections import Detections
from components.metrics.scores import INSTANCE, Scores
from serving.client.results import InstanceLimits
from serving.evaluation import Changes, ScoredImage, SplitEvaluation, read_batches
from serving.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class InstanceEvaluation(SplitEvaluation):
    """Scores of one or two models of instance segmentation.

    Attributes:
        precisions: the average precision of each model.
    """

    precisions: tuple[AveragePrecision, ...]

    @functools.cached_property
    def _scores(self) -> list[Scores]:
        return [each.flat() for each in self.precisions]

    @functools.cached_property
    def _resampled(self) -> list[Resampled]:
        return [each.resampled() for each in self.precisions]

    def _predictions(self, image: ScoredImage, photo: Image.Image) -> tuple[str, str, str]:
        from components.report.frames import draw_instances  # imports TFMA, slow

        sample = image.sample
        assert sample.instances is not None, "the description has things"
        found = [
            Detections.of_outputs(each, (sample.height, sample.width)) for each in (image.prediction, image.baseline)
        ]
        after, before = (draw_instances(sample.instances, each, self.class_map, photo) for each in found)
        return after["truth"], after["prediction"], before["prediction"]


def evaluate(
    predictors: Sequence[Predictor], data: str, pairs: Iterable[Pair], description: DatasetDescription, split: str
) -> InstanceEvaluation:
    """Scores models of instance segmentation on the pairs of a split; arguments as in `evaluation.evaluate`.

    Raises:
        DataRejectedError: a pair is bad, or no pair has an instance.
    """
    matches: list[list[ImageMatches]] = [[] for _ in predictors]
    things, changes = description.thing_indices, Changes()
    for batch in read_batches(predictors, data, pairs, description):
        images = [sample.image for sample in batch]
        inputs = InstanceLimits().inputs(len(images))
        for sample, *outputs in zip(batch, *(each.find_instances(images, inputs) for each in predictors), strict=True):
            assert sample.instances is not None, "the description has things"
            for own, each in zip(matches, outputs, strict=True):
                found = Detections.of_outputs(each, (sample.height, sample.width))
                own.append(match(sample.instances, found, things, sample.image, sample.pair.sequence))
            if outputs[1:]:
                after, before = (AveragePrecision([own[-1]], description.things).mask_ap for own in matches)
                changes.add(ScoredImage(sample, INSTANCE.main, after, before, *outputs))
    if not any(image.truths.any() for image in matches[0]):
        raise DataRejectedError(
            f"--split {split}: found no instance of {', '.join(description.things)} in {data}, expected at least one. "
            "Choose another split"
        )
    scored = tuple(AveragePrecision(each, description.things) for each in matches)
    models = tuple(each.directory for each in predictors)
    return InstanceEvaluation(split, len(matches[0]), models, predictors[0].class_map, changes, scored)
