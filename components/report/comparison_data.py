"""Everything that the page of `segpipe evaluate --against --report` shows, as frozen dataclasses."""

from __future__ import annotations

import dataclasses

from components.class_map import ClassMap
from components.metrics.bootstrap import Interval
from components.metrics.scores import INSTANCE, task_scores
from components.report.data import Score, SequenceScore


@dataclasses.dataclass(frozen=True)
class ChangedImage:
    """An image on which the models differ, in four pictures of the same size, each a `data:` URL.

    Attributes:
        name: its pair's name.
        sequence: its sequence.
        score: the model's main score of its task, over the classes in the image's truth.
        baseline_score: the baseline's.
        image: the photo.
        truth: the true mask, or instances.
        prediction: the model's mask, or instances.
        baseline: the baseline's.
    """

    name: str
    sequence: str
    score: float
    baseline_score: float
    image: str
    truth: str
    prediction: str
    baseline: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on one split; see `ReportData` for the scores and intervals.

    Attributes:
        model: path of the model.
        baseline: path of the baseline.
        split: the split that they were scored on.
        frames: number of its images.
        class_map: the classes of both models.
        scores: the model's scores.
        baseline_scores: the baseline's scores.
        intervals: 95 % intervals of the model's scores.
        change_intervals: 95 % intervals of the changes, paired by image.
        better: number of images whose score is higher than the baseline's.
        worse: number of images whose score is lower.
        improved: the images that improved most, the most improved first.
        worsened: the images that worsened most, the most worsened first.
        sequences: the worst sequences, the worst first; empty if there is one, or too many to score each, and for
            instances.
    """

    model: str
    baseline: str
    split: str
    frames: int
    class_map: ClassMap
    scores: dict[str, Score]
    baseline_scores: dict[str, Score]
    intervals: dict[str, Interval]
    change_intervals: dict[str, Interval]
    better: int
    worse: int
    improved: tuple[ChangedImage, ...]
    worsened: tuple[ChangedImage, ...]
    sequences: tuple[SequenceScore, ...]

    @property
    def equal(self) -> int:
        """Number of images with the same score, or without a scored class in their truth."""
        return self.frames - self.better - self.worse

    @property
    def main(self) -> str:
        """Name of the main score of the models' task."""
        return task_scores(self.scores).main

    @property
    def of_instances(self) -> bool:
        """Whether the models find instances."""
        return task_scores(self.scores) is INSTANCE
