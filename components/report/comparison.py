"""Draw the page of `segpipe evaluate --against --report`: two models on the same images of one split."""

from __future__ import annotations

import dataclasses

from components.class_map import ClassMap
from components.metrics.bootstrap import Interval
from components.metrics.scores import INSTANCE, task_scores
from components.report import views, wording
from components.report.data import Score, SequenceScore
from components.report.render import compile_template


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


def render(data: Comparison) -> str:
    """Returns the page as HTML, to be written as UTF-8."""
    return compile_template("comparison.html").render(
        data=data,
        title=title(data),
        verdict={1: "good", 0: "", -1: "bad"}[clear_change(data)],
        image_groups=[("Most improved", data.improved), ("Most worsened", data.worsened)],
    )


def clear_change(data: Comparison) -> int:
    """Returns 1 or -1 if the interval of the main score's change is above or below 0, else 0."""
    bounds = data.change_intervals.get(data.main)
    return 0 if bounds is None else int(bounds[0] > 0) - int(bounds[1] < 0)


def title(data: Comparison) -> str:
    """Returns the heading of the result."""
    change, name = views.score_row(data, data.main).change, wording.metric_name(data.main)
    direction = {1: "higher", -1: "lower"}.get(clear_change(data))
    if change is None:
        return f"No {wording.in_sentence(name)} to compare"
    if not direction:
        return f"No clear change of {wording.in_sentence(name)}"
    return f"{name} {direction} by {wording.score(abs(change))}"
