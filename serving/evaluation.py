"""Scores one or two exported models on a split in one pass, and keeps the images on which they differ most.

Memory holds one batch of images, and the `_SHOWN` images that improved and worsened most.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import heapq
import math
import operator
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from components.class_map import ClassMap
from components.dataset import checks
from components.dataset.checks import Sample
from components.dataset.description import DatasetDescription
from components.dataset.encoded import MAX_PIXELS, Limits
from components.dataset.pairs import Pair, find_pairs
from components.errors import DataRejectedError, UsageError
from components.metrics.bootstrap import Interval, Resampled, change_intervals, score_intervals
from components.metrics.confusion import confusion_matrix, decode_mask
from components.metrics.diagnostics import Diagnostics
from components.metrics.scores import Scores, accuracy, dice, iou, mean, mean_iou, scores
from components.metrics.tally import Tally
from components.report import pictures
from components.report.comparison import ChangedImage, Comparison
from components.report.data import SequenceScore
from serving.predictor import Predictor, batches

_SHOWN = 5  # images that improved most, and as many that worsened most
_SHOWN_SEQUENCES = 10
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """An image scored by two models.

    Attributes:
        sample: the image with its truth.
        mean_iou: of the first model, over the classes in the image's truth.
        baseline_mean_iou: of the second model.
        prediction: the first model's class indices, uint8 [H, W].
        baseline: the second model's.
    """

    sample: Sample
    mean_iou: float
    baseline_mean_iou: float
    prediction: np.ndarray
    baseline: np.ndarray

    @property
    def change(self) -> float:
        """Mean IoU of the first model minus that of the second."""
        return self.mean_iou - self.baseline_mean_iou

    def to_dict(self) -> dict[str, str | float]:
        """Returns names and scores as plain JSON types."""
        pair = self.sample.pair
        return {
            "name": pair.name,
            "sequence": pair.sequence,
            "mean_iou": self.mean_iou,
            "baseline_mean_iou": self.baseline_mean_iou,
            "change": self.change,
        }


class Changes:
    """Counts the images that got better and worse, and keeps those that changed most.

    Attributes:
        better: number of images whose mean IoU is higher than the second model's.
        worse: number of images whose mean IoU is lower.
        improved: the `_SHOWN` images that improved most, the most improved first.
        worsened: the `_SHOWN` images that worsened most, the most worsened first.
    """

    def __init__(self) -> None:
        self.better = 0
        self.worse = 0
        self.improved: list[ScoredImage] = []
        self.worsened: list[ScoredImage] = []

    def add(self, image: ScoredImage) -> None:
        """Adds an image; of equal changes, the first ones are kept. Ignores a change of NaN (no scored class)."""
        change = operator.attrgetter("change")
        if image.change > 0:
            self.better += 1
            self.improved = heapq.nlargest(_SHOWN, [*self.improved, image], key=change)
        elif image.change < 0:
            self.worse += 1
            self.worsened = heapq.nsmallest(_SHOWN, [*self.worsened, image], key=change)


@dataclasses.dataclass(frozen=True)
class SplitEvaluation(abc.ABC):
    """Scores of one or two models on a split, for any task.

    Attributes:
        split: its name.
        frames: number of its images.
        models: directory of each model.
    """

    split: str
    frames: int
    models: tuple[str, ...]

    @property
    @abc.abstractmethod
    def _resampled(self) -> list[Resampled]:
        """The bootstrap samples of each model's scores."""

    @property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of the first model's scores by metric name, without undefined ones."""
        return _defined(score_intervals(self._resampled[0]))

    @property
    def change_intervals(self) -> dict[str, Interval]:
        """95 % intervals of the changes, the first model minus the second, paired by image; empty for one model."""
        if len(self.models) < 2:
            return {}
        candidate, baseline = self._resampled
        return _defined(change_intervals(candidate, baseline))


@dataclasses.dataclass(frozen=True)
class Evaluation(SplitEvaluation):
    """Scores of one or two models of semantic segmentation.

    Attributes:
        tallies: the sums of each model over the images.
        changes: the images on which two models differ; empty for one model.
    """

    tallies: tuple[Tally, ...]
    changes: Changes

    @property
    def class_map(self) -> ClassMap:
        """The classes of all models."""
        return self.tallies[0].class_map

    @property
    def scores(self) -> Scores:
        """The first model's scores."""
        return scores(self.tallies[0].matrix, self.class_map)

    @property
    def baseline_scores(self) -> Scores | None:
        """The second model's scores, or None."""
        return scores(self.tallies[1].matrix, self.class_map) if self.tallies[1:] else None

    @functools.cached_property
    def _resampled(self) -> list[Resampled]:
        return [tally.resampled() for tally in self.tallies]

    @property
    def worst_sequences(self) -> tuple[SequenceScore, ...]:
        """The first model's worst sequences, at most `_SHOWN_SEQUENCES`; empty for one or too many sequences."""
        own, *others = (tally.sequences for tally in self.tallies)
        if not own or len(own) < 2:
            return ()
        found = []
        for name, sums in own.items():
            baseline = [float(mean(iou(*other[name]))) for other in others if other]
            found.append(
                SequenceScore(name, float(mean(iou(*sums))), float(mean(dice(*sums))), accuracy(*sums), *baseline)
            )
        scored = (row for row in found if row.mean_iou is not None and not math.isnan(row.mean_iou))
        return tuple(heapq.nsmallest(_SHOWN_SEQUENCES, scored, key=lambda row: row.mean_iou or 0.0))

    def comparison(self) -> Comparison:
        """Returns the contents of the report on two models, with its pictures."""
        if not self.baseline_scores:
            raise ValueError("comparison: one model was evaluated, expected two")
        return Comparison(
            model=self.models[0],
            baseline=self.models[1],
            split=self.split,
            frames=self.frames,
            class_map=self.class_map,
            scores=self.scores.flat(),
            baseline_scores=self.baseline_scores.flat(),
            intervals=self.intervals,
            change_intervals=self.change_intervals,
            better=self.changes.better,
            worse=self.changes.worse,
            improved=tuple(_draw(image, self.class_map) for image in self.changes.improved),
            worsened=tuple(_draw(image, self.class_map) for image in self.changes.worsened),
            sequences=self.worst_sequences,
        )


def _defined(intervals: dict[str, Interval]) -> dict[str, Interval]:
    return {name: bounds for name, bounds in intervals.items() if not math.isnan(bounds[0])}


def _draw(image: ScoredImage, class_map: ClassMap) -> ChangedImage:
    masks = (decode_mask(image.sample.mask), image.prediction, image.baseline)
    truth, prediction, baseline = (pictures.mask_address(pictures.mask(mask), class_map) for mask in masks)
    pair = image.sample.pair
    photo = pictures.photo_address(pictures.photo(image.sample.image))
    return ChangedImage(
        pair.name, pair.sequence, image.mean_iou, image.baseline_mean_iou, photo, truth, prediction, baseline
    )


def split_pairs(data: str, description: DatasetDescription, split: str) -> list[Pair]:
    """Returns the pairs of a split. Raises UsageError if there are no pairs."""
    pairs, _ = find_pairs(data, description)
    chosen = [pair for pair in pairs if pair.split == split]
    if not chosen:
        known = ", ".join(sorted({pair.split for pair in pairs})) or "none"
        raise UsageError(f"--split {split}: no pair in {data}; splits found: {known}")
    return chosen


def evaluate(
    predictors: Sequence[Predictor], data: str, pairs: Iterable[Pair], description: DatasetDescription, split: str
) -> Evaluation:
    """Scores models on the pairs of a split.

    Args:
        predictors: one model, or two to compare, with the same classes as the description.
        data: the data root, local or remote.
        pairs: from `split_pairs`.
        description: of the data set.
        split: the split's name.

    Raises:
        DataRejectedError: a pair is bad.
    """
    class_map = predictors[0].class_map
    tallies = tuple(Tally.empty(class_map) for _ in predictors)
    changes, frames = Changes(), 0
    for batch in read_batches(predictors, data, pairs, description):
        images = [sample.image for sample in batch]
        for sample, *found in zip(batch, *(predictor.evaluate(images) for predictor in predictors), strict=True):
            truth, masks = decode_mask(sample.mask), [mask for mask, _ in found]
            matrices = [confusion_matrix(truth, mask, class_map.num_classes) for mask in masks]
            for tally, matrix, (mask, confidence) in zip(tallies, matrices, found, strict=True):
                diagnostics = Diagnostics.of_image(truth, mask, class_map, confidence)
                tally.add(matrix, sample.image, sample.pair.sequence, diagnostics)
            if matrices[1:]:
                after, before = (mean_iou(matrix, class_map) for matrix in matrices)
                changes.add(ScoredImage(sample, after, before, *masks))
            frames += 1
    return Evaluation(split, frames, tuple(predictor.directory for predictor in predictors), tallies, changes)


def read_batches(
    predictors: Sequence[Predictor], data: str, pairs: Iterable[Pair], description: DatasetDescription
) -> Iterator[list[Sample]]:
    """Reads the pairs in batches, within the size limits of all models. Raises DataRejectedError for a bad pair."""
    limits = Limits(max_pixels=min(predictor.metadata.get("max_pixels", MAX_PIXELS) for predictor in predictors))
    return batches((_read_sample(data, pair, description, limits) for pair in pairs), _BATCH)


def _read_sample(data: str, pair: Pair, description: DatasetDescription, limits: Limits) -> Sample:
    sample = checks.read_pair(data, pair, description, limits)
    if not isinstance(sample, Sample):
        raise DataRejectedError(
            f"{sample.file}: {sample.reason}; found {sample.found}, expected {sample.expected}. {sample.action}"
        )
    return sample
