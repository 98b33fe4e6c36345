"""Reads what the pipeline's components wrote and puts it together as a report's data.

Each function reads one artifact's directory, so a report can be assembled from any run's outputs.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import tensorflow as tf
import tensorflow_data_validation as tfdv

from components import artifact_files, features, files
from components.class_map import ClassMap
from components.example_gen.quarantine import read_counts, read_issues
from components.examples import example_files
from components.metrics.results import Evaluation, SequenceResult, load_evaluation
from components.report.data import Lineage, ReportData, SequenceScore, Verdict
from components.report.frames import choose_frames

_STATISTICS_FILE = "FeatureStats.pb"
_QUARANTINE_ROWS = 50


@dataclasses.dataclass(frozen=True)
class Sources:
    """The directories a report is read from.

    Attributes:
        examples: raw examples, one folder `Split-<name>` a split.
        statistics: their statistics, the same way.
        quarantine: what ExampleGen left out.
        model: the SavedModel itself, the folder that holds `saved_model.pb`.
        model_run: the training's `history.json`; a missing file means no history.
        evaluation: the Evaluator's result.
    """

    examples: str
    statistics: str
    quarantine: str
    model: str
    model_run: str
    evaluation: str


def assemble(
    sources: Sources,
    class_map: ClassMap,
    gate_split: str,
    selection_split: str,
    lineage: Lineage,
    blessed: bool,
    pushed: str | None,
    max_frames: int = 200,
) -> ReportData:
    """Builds a report's data, all but the timings, which no component knows.

    Args:
        sources: where to read from.
        class_map: the classes of masks and model.
        gate_split: the split that the gate judged; the frames come from it.
        selection_split: the split that chose the epoch and the variant, which may be the same.
        lineage: what the model was made of.
        blessed: the Evaluator's verdict.
        pushed: the version directory the model was pushed to, or None.
        max_frames: largest number of frames to predict when choosing some to show.

    Raises:
        ValueError: the evaluation holds no scores over the whole split.
        OSError: a file is missing.
    """
    evaluation = load_evaluation(sources.evaluation, class_map)
    candidate, diagnostics = evaluation.candidate, evaluation.candidate.diagnostics
    frames, frames_scored = choose_frames(
        example_files(sources.examples, gate_split), sources.model, class_map, max_frames, things=candidate.things
    )
    counts, issues = read_counts(sources.quarantine), read_issues(sources.quarantine)
    return ReportData(
        model=read_model_name(sources.model),
        class_map=class_map,
        gate_split=gate_split,
        verdict=Verdict(blessed, pushed, evaluation.checks),
        scores=candidate.flat(class_map),
        baseline_scores=evaluation.baseline.flat(class_map) if evaluation.baseline else None,
        intervals=candidate.intervals,
        change_intervals=evaluation.change_intervals,
        confusion=tuple(tuple(int(pixels) for pixels in row) for row in candidate.matrix),
        sequences=sequence_scores(evaluation),
        frames=frames,
        frames_scored=frames_scored,
        history=read_history(sources.model_run),
        class_shares=read_class_shares(sources.statistics, list(counts["examples"]), class_map),
        examples=counts["examples"],
        quarantined=counts["quarantined"],
        quarantine_rows=tuple(dataclasses.asdict(issue) for issue in issues[:_QUARANTINE_ROWS]),
        lineage=lineage,
        selection_split=selection_split,
        selection_scores=candidate.selection,
        reliability=diagnostics.reliability if diagnostics else (),
        object_sizes=diagnostics.sizes if diagnostics else {},
        class_object_sizes=diagnostics.class_sizes(class_map) if diagnostics else {},
    )


def sequence_scores(evaluation: Evaluation) -> tuple[SequenceScore, ...]:
    """Returns the scores of each video sequence, the baseline's beside them: the lowest main score first, NaN last."""
    baseline = evaluation.baseline.sequences if evaluation.baseline else {}
    rows = []
    for name, result in evaluation.candidate.sequences.items():
        before = baseline.get(name, SequenceResult())
        compared = {"baseline_mean_iou": before.mean_iou, "baseline_mask_ap": before.mask_ap}
        rows.append((result.main, SequenceScore(name, **dataclasses.asdict(result), **compared)))
    return tuple(row for _, row in sorted(rows, key=lambda item: (math.isnan(item[0]), item[0])))


def read_history(model_run: str) -> tuple[dict[str, Any], ...]:
    """Returns a training's epochs, none where the trainer recorded none."""
    path = files.join(model_run, artifact_files.HISTORY)
    return tuple(json.loads(files.read_bytes(path))) if tf.io.gfile.exists(path) else ()


def read_model_name(model_dir: str) -> str:
    """Returns the architecture's name from an exported model. Raises OSError where it carries none."""
    return artifact_files.read_model_metadata(model_dir)["model"]


def read_class_shares(statistics: str, splits: list[str], class_map: ClassMap) -> dict[str, dict[str, float]]:
    """Returns each class's mean share of a mask's pixels, 0 to 1, by split and class name."""
    wanted = {features.class_share(name): name for name in class_map.names}
    shares: dict[str, dict[str, float]] = {}
    for split in splits:
        path = files.join(statistics, f"Split-{split}", _STATISTICS_FILE)
        if not tf.io.gfile.exists(path):
            continue
        found = tfdv.load_stats_binary(path).datasets[0].features
        means = {feature.path.step[0]: feature.num_stats.mean for feature in found}
        shares[split] = {name: means[key] for key, name in wanted.items() if key in means}
    return shares
