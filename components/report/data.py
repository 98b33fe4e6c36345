"""Everything that the report page shows, as frozen dataclasses that read and write JSON.

The page is a function of these values alone, so it can be drawn again from `report.json`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from pydantic import TypeAdapter

from components import artifact_files, files
from components.baseline.reasons import Reason
from components.class_map import ClassMap
from components.metrics.calibration import ReliabilityBin
from components.metrics.object_sizes import SizeScore
from components.metrics.threshold_check import ThresholdCheck

DATA_FILE = artifact_files.REPORT_DATA
PAGE_FILE = "report.html"

# A score is None, or NaN in memory, if it is undefined, such as that of a class without a true pixel.
Score = float | None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The gate's verdict, and where the model was pushed.

    Attributes:
        blessed: whether every threshold is met.
        pushed: the version directory the model was pushed to, or None.
        gates: all thresholds that were checked.
    """

    blessed: bool
    pushed: str | None = None
    gates: tuple[ThresholdCheck, ...] = ()

    @property
    def failures(self) -> tuple[ThresholdCheck, ...]:
        """The thresholds that are not met."""
        return tuple(gate for gate in self.gates if not gate.passed)


@dataclasses.dataclass(frozen=True)
class SequenceScore:
    """The scores over all frames of one video sequence; None without a baseline, and for scores of another task."""

    name: str
    mean_iou: Score = None
    mean_dice: Score = None
    pixel_accuracy: Score = None
    baseline_mean_iou: Score = None
    mask_ap: Score = None
    baseline_mask_ap: Score = None

    @property
    def score(self) -> Score:
        """The task's main score."""
        return self.mean_iou if self.mask_ap is None else self.mask_ap

    @property
    def baseline(self) -> Score:
        """The baseline's main score."""
        return self.baseline_mean_iou if self.mask_ap is None else self.baseline_mask_ap


@dataclasses.dataclass(frozen=True)
class Frame:
    """One evaluated frame in pictures, each the `data:` URL of a JPEG or PNG.

    `mask_ap` is the score of the task instance, whose mean IoU is None. The pictures of depth are empty without depth.
    """

    group: Literal["best", "worst", "random"]
    name: str
    mean_iou: Score
    image: str
    truth: str
    prediction: str
    error: str
    sequence: str = ""
    mask_ap: Score = None
    depth_truth: str = ""
    depth_prediction: str = ""
    depth_error: str = ""

    @property
    def score(self) -> Score:
        """The task's main score."""
        return self.mean_iou if self.mask_ap is None else self.mask_ap


@dataclasses.dataclass(frozen=True)
class Timing:
    """Duration of one component in seconds, and whether it ran."""

    component: str
    seconds: float
    state: Literal["ran", "cached", "failed"] = "ran"


@dataclasses.dataclass(frozen=True)
class RelatedRun:
    """Another model: its run, its version if it was pushed, and its report's address, relative to this report.

    `why` is the reason for a baseline: it is the served version, or an earlier and better one.
    """

    run_id: str | None = None
    version: int | None = None
    report: str | None = None
    why: Reason = ""


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The model's data, code, configuration, packages and baseline.

    `baseline_run` is the run of the baseline, `predecessor` the version before the pushed one. Both are None for a
    first model, and in a report that was written without the metadata.
    """

    run_id: str = ""
    created: str = ""
    data_hash: str = ""
    code_hash: str = ""
    baseline: str | None = None
    baseline_run: RelatedRun | None = None
    predecessor: RelatedRun | None = None
    configuration: dict[str, Any] = dataclasses.field(default_factory=dict)
    packages: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ReportData:
    """One run's report.

    Attributes:
        model: the architecture's name, for example `fcn8`.
        class_map: the classes of the confusion matrix, in its order.
        gate_split: the split that the gate judges; the scores, the matrix, the sequences and the frames are of it.
        verdict: blessed or not, and why.
        scores: the candidate's scores by metric name, `class_iou/<class name>` and those that do not gate included.
        baseline_scores: the baseline's, or None without one.
        intervals: 95 % intervals of the candidate's scores by metric name, over the choice of images.
        change_intervals: the same of the scores' change against the baseline, paired by image.
        confusion: pixel counts, int [num_classes, num_classes], rows truth, columns prediction.
        sequences: scores by video sequence, the worst first; empty if there are too many sequences to list.
        frames: the best, the worst and random frames.
        frames_scored: number of frames that `frames` were chosen from.
        history: one entry per epoch with `epoch` (from 1), `loss`, `mean_iou`, `val_loss`, `val_mean_iou`,
            `learning_rate` and `seconds`. A resumed training may hold an epoch twice; the later entry counts.
        class_shares: mean fraction of the pixels, 0 to 1, by split and class name.
        examples: number of examples by split.
        quarantined: number of quarantined files by split and reason.
        quarantine_rows: the first quarantined files: split, name, file, reason, found, expected, action.
        timings: durations of the components in the order in which they ran; empty if unknown.
        lineage: the model's data, code and configuration.
        selection_split: the split that selected the epoch and the variant; empty if unknown.
        selection_scores: the main score and those of the classes on it; empty if the gate judges it.
        reliability: bins of the reliability diagram, the least confident first; empty without confidence.
        object_sizes: recall by object size, small to large; empty if unknown.
        class_object_sizes: recall by class name and object size.
    """

    model: str
    class_map: ClassMap
    gate_split: str
    verdict: Verdict
    scores: dict[str, Score]
    baseline_scores: dict[str, Score] | None = None
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    change_intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()
    sequences: tuple[SequenceScore, ...] = ()
    frames: tuple[Frame, ...] = ()
    frames_scored: int = 0
    history: tuple[dict[str, Any], ...] = ()
    class_shares: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    examples: dict[str, int] = dataclasses.field(default_factory=dict)
    quarantined: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    quarantine_rows: tuple[dict[str, Any], ...] = ()
    timings: tuple[Timing, ...] = ()
    lineage: Lineage = dataclasses.field(default_factory=Lineage)
    selection_split: str = ""
    selection_scores: dict[str, Score] = dataclasses.field(default_factory=dict)
    reliability: tuple[ReliabilityBin, ...] = ()
    object_sizes: dict[str, SizeScore] = dataclasses.field(default_factory=dict)
    class_object_sizes: dict[str, dict[str, SizeScore]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the report as JSON; a score that is NaN becomes null."""
        return _ADAPTER.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> ReportData:
        """Reads what `to_json` returned. Raises pydantic.ValidationError naming the fields that do not fit."""
        return _ADAPTER.validate_json(text)


_ADAPTER: TypeAdapter[ReportData] = TypeAdapter(ReportData)


def load(report_dir: str) -> ReportData:
    """Reads `report.json` from a report's folder, local or on an object store.

    Raises:
        OSError: the file cannot be read.
        pydantic.ValidationError: it is not a report.
    """
    return ReportData.from_json(files.read_bytes(files.join(report_dir, DATA_FILE)))
