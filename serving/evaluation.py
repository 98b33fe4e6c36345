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
from typing import TYPE_CHECKING, Any

from PIL import Image

from components.class_map import ClassMap
from components.dataset import checks
from components.dataset.checks import Sample
from components.dataset.description import DatasetDescription
from components.dataset.encoded import MAX_PIXELS, Limits
from components.dataset.pairs import DEPTH_MISSING, Pair, find_pairs
from components.errors import DataRejectedError, UsageError
from components.metrics.bootstrap import Interval, Resampled, change_intervals, score_intervals
from components.metrics.confusion import confusion_matrix, decode_mask
from components.metrics.diagnostics import Diagnostics
from components.metrics.scores import SEMANTIC, Scores, accuracy, dice, iou, mean, mean_iou, nested, scores
from components.metrics.tally import Tally
from components.report import pictures
from components.report.comparison_data import ChangedImage, Comparison
from components.report.data import SequenceScore
from serving.predictor import Predictor, batches

if TYPE_CHECKING:
    from components.metrics.depth import DepthTally

_SHOWN = 5  # images that improved most, and as many that worsened most
_SHOWN_SEQUENCES = 10
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """An image scored by two models.

    Attributes:
        sample: the image with its truth.
        metric: name of the score.
        score: the first model's, over the classes in the image's truth.
        baseline_score: the second model's.
        prediction: what the first model returned: class indices, uint8 [H, W], or the outputs for instances.
        baseline: what the second model returned.
    """

    sample: Sample
    metric: str
    score: float
    baseline_score: float
    prediction: Any
    baseline: Any

    @property
    def change(self) -> float:
        """Score of the first model minus that of the second."""
        return self.score - self.baseline_score

    def to_dict(self) -> dict[str, str | float]:
        """Returns names and scores as plain JSON types."""
        pair = self.sample.pair
        return {
            "name": pair.name,
            "sequence": pair.sequence,
            self.metric: self.score,
            f"baseline_{self.metric}": self.baseline_score,
            "change": self.change,
        }


class Changes:
    """Counts the images that got better and worse, and keeps those that changed most.

    Attributes:
        better: number of images whose score is higher than the second model's.
        worse: number of images whose score is lower.
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
        class_map: the classes of all models.
        changes: the images on which two models differ; empty for one model.
    """

    split: str
    frames: int
    models: tuple[str, ...]
    class_map: ClassMap
    changes: Changes

    @property
    @abc.abstractmethod
    def _scores(self) -> list[Scores]:
        """The scores of each model."""

    @property
    @abc.abstractmethod
    def _resampled(self) -> list[Resampled]:
        """The bootstrap samples of each model's scores."""

    @property
    def scores(self) -> Scores:
        """The first model's scores."""
        return self._scores[0]

    @property
    def baseline_scores(self) -> Scores | None:
        """The second model's scores, or None."""
        return self._scores[1] if self.models[1:] else None

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
        # Only one of the models may estimate depth.
        both = {name: values for name, values in candidate.items() if name in baseline}
        return _defined(change_intervals(both, baseline))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        content: dict[str, Any] = {"model": self.models[0], "split": self.split, "frames": self.frames}
        content |= {**nested(self.scores), "intervals": self.intervals}
        if self.baseline_scores is not None:
            content |= {"against": self.models[1], "baseline": nested(self.baseline_scores)}
            content |= {
                "change_intervals": self.change_intervals,
                "better": self.changes.better,
                "worse": self.changes.worse,
                "improved": [image.to_dict() for image in self.changes.improved],
                "worsened": [image.to_dict() for image in self.changes.worsened],
            }
        return content

    @property
    def worst_sequences(self) -> tuple[SequenceScore, ...]:
        """The first model's worst sequences; empty for instances, and for one or too many sequences."""
        return ()

    def comparison(self) -> Comparison:
        """Returns the contents of the report on two models, with its pictures."""
        if self.baseline_scores is None:
            raise ValueError("comparison: one model was evaluated, expected two")
        return Comparison(
            model=self.models[0],
            baseline=self.models[1],
            split=self.split,
            frames=self.frames,
            class_map=self.class_map,
            scores=dict(self.scores),
            baseline_scores=dict(self.baseline_scores),
            intervals=self.intervals,
            change_intervals=self.change_intervals,
            better=self.changes.better,
            worse=self.changes.worse,
            improved=tuple(self._draw(image) for image in self.changes.improved),
            worsened=tuple(self._draw(image) for image in self.changes.worsened),
            sequences=self.worst_sequences,
        )

    def _draw(self, image: ScoredImage) -> ChangedImage:
        pair = image.sample.pair
        photo = pictures.photo(image.sample.image)
        return ChangedImage(
            pair.name,
            pair.sequence,
            image.score,
            image.baseline_score,
            pictures.photo_address(photo),
            *self._predictions(image, photo),
        )

    @abc.abstractmethod
    def _predictions(self, image: ScoredImage, photo: Image.Image) -> tuple[str, str, str]:
        """Returns pictures of the truth and of what the first and the second model predict, as `data:` URLs."""


@dataclasses.dataclass(frozen=True)
class Evaluation(SplitEvaluation):
    """Scores of one or two models of semantic segmentation.

    Attributes:
        tallies: the sums of each model over the images.
        depths: the sums of each model's errors of depth; None for a model or images without depth.
    """

    tallies: tuple[Tally, ...]
    depths: tuple[DepthTally | None, ...]

    @functools.cached_property
    def _scores(self) -> list[Scores]:
        pairs = zip(self.tallies, self.depths, strict=True)
        return [scores(tally.matrix, self.class_map) | (depth.flat() if depth else {}) for tally, depth in pairs]

    @functools.cached_property
    def _resampled(self) -> list[Resampled]:
        pairs = zip(self.tallies, self.depths, strict=True)
        return [tally.resampled() | (depth.resampled() if depth else {}) for tally, depth in pairs]

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

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        diagnostics = [tally.diagnostics.to_dict(self.class_map) for tally in self.tallies]
        worst = [dataclasses.asdict(row) for row in self.worst_sequences]
        content = {**super().to_dict(), "diagnostics": diagnostics[0], "worst_sequences": worst}
        if self.baseline_scores is not None:
            content["baseline_diagnostics"] = diagnostics[1]
        return content

    def _predictions(self, image: ScoredImage, photo: Image.Image) -> tuple[str, str, str]:
        masks = (decode_mask(image.sample.mask), image.prediction, image.baseline)
        truth, after, before = (pictures.mask_address(pictures.mask(mask), self.class_map) for mask in masks)
        return truth, after, before


def _defined(intervals: dict[str, Interval]) -> dict[str, Interval]:
    return {name: bounds for name, bounds in intervals.items() if not math.isnan(bounds[0])}


def split_pairs(data: str, description: DatasetDescription, split: str) -> list[Pair]:
    """Returns the pairs of a split, also those without a depth map. Raises UsageError if there are no pairs."""
    pairs, issues = find_pairs(data, description)
    chosen = [pair for pair in pairs if pair.split == split]
    # The masks of images without a depth map are scored too.
    images = {issue.file for issue in issues if issue.split == split and issue.reason == DEPTH_MISSING}
    if images:
        plain, _ = find_pairs(data, description.without_depth())
        chosen = sorted([*chosen, *(pair for pair in plain if pair.image in images)], key=lambda pair: pair.name)
    if not chosen:
        known = ", ".join(sorted({pair.split for pair in pairs})) or "none"
        raise UsageError(f"--split {split}: no pair in {data}; splits found: {known}")
    return chosen


def evaluate(
    predictors: Sequence[Predictor], data: str, pairs: Iterable[Pair], description: DatasetDescription, split: str
) -> Evaluation:
    """Scores models on the pairs of a split; those that estimate depth also against the depth maps.

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
    depths = tuple(_depth_tally(predictor, description) for predictor in predictors)
    changes, frames = Changes(), 0
    for batch in read_batches(predictors, data, pairs, description):
        images = [sample.image for sample in batch]
        for sample, *found in zip(batch, *(predictor.evaluate(images) for predictor in predictors), strict=True):
            truth, masks = decode_mask(sample.mask), [each.mask for each in found]
            matrices = [confusion_matrix(truth, mask, class_map.num_classes) for mask in masks]
            for tally, matrix, each in zip(tallies, matrices, found, strict=True):
                diagnostics = Diagnostics.of_image(truth, each.mask, class_map, each.confidence)
                tally.add(matrix, sample.image, sample.pair.sequence, diagnostics)
            for depth, predictor, each in zip(depths, predictors, found, strict=True):
                if depth and sample.depth:
                    model_scale = predictor.metadata["depth_scale"]
                    _add_depth(depth, sample, each.depth_png, description.depth_scale, model_scale)
            if matrices[1:]:
                after, before = (mean_iou(matrix, class_map) for matrix in matrices)
                changes.add(ScoredImage(sample, SEMANTIC.main, after, before, *masks))
            frames += 1
    models = tuple(predictor.directory for predictor in predictors)
    return Evaluation(split, frames, models, class_map, changes, tallies, depths)


def _depth_tally(predictor: Predictor, description: DatasetDescription) -> DepthTally | None:
    if description.layout.depth is None or not predictor.metadata.get("depth_scale"):
        return None
    from components.metrics.depth import DepthTally  # imports TFMA, slow

    return DepthTally()


def _add_depth(
    tally: DepthTally, sample: Sample, estimate_png: bytes | None, data_scale: float, model_scale: float
) -> None:
    """Adds the errors of an image.

    Args:
        tally: the sums to add to.
        sample: the image with its depth map.
        estimate_png: the estimated depth map.
        data_scale: value of the data set's depth maps at 1 metre.
        model_scale: value of the estimate at 1 metre.
    """
    from components.metrics.depth import decode_depth, error_sums

    assert estimate_png is not None, "a model with depth_scale returns depth"
    estimate = decode_depth(estimate_png) * (data_scale / model_scale)
    tally.add(error_sums(decode_depth(sample.depth), estimate, data_scale), sample.image)


def read_batches(
    predictors: Sequence[Predictor], data: str, pairs: Iterable[Pair], description: DatasetDescription
) -> Iterator[list[Sample]]:
    """Reads the pairs in batches, within the size limits of all models. Raises DataRejectedError for a bad pair."""
    limits = Limits(max_pixels=min(predictor.metadata.get("max_pixels", MAX_PIXELS) for predictor in predictors))
    return batches((read_sample(data, pair, description, limits) for pair in pairs), _BATCH)


def read_sample(data: str, pair: Pair, description: DatasetDescription, limits: Limits | None = None) -> Sample:
    """Reads one pair. Raises DataRejectedError for a bad pair."""
    sample = checks.read_pair(data, pair, description, limits)
    if not isinstance(sample, Sample):
        raise DataRejectedError(
            f"{sample.file}: {sample.reason}; found {sample.found}, expected {sample.expected}. {sample.action}"
        )
    return sample
