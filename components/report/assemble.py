"""Read the outputs of the pipeline's components, and assemble them into the data of a report."""

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
from components.metrics.results import Evaluation, load_evaluation
from components.metrics.scores import task_scores
from components.report.data import Lineage, ReportData, SequenceScore, Verdict
from components.report.frames import choose_frames

_STATISTICS_FILE = "FeatureStats.pb"
_QUARANTINE_ROWS = 50


def assemble(
    *,
    examples: str,
    statistics: str,
    quarantine: str,
    model: str,
    model_run: str,
    evaluation: str,
    class_map: ClassMap,
    gate_split: str,
    selection_split: str,
    lineage: Lineage,
    blessed: bool,
    pushed: str | None,
    max_frames: int = 200,
) -> ReportData:
    """Returns a report's data without the timings, which are known after the run.

    Args:
        examples: directory of the raw examples, one folder `Split-<name>` per split.
        statistics: directory of the statistics of the examples, in the same folders.
        quarantine: directory of the files that ExampleGen rejected.
        model: the SavedModel, the folder that holds `saved_model.pb`.
        model_run: the folder of the training's `history.json`, which may be missing.
        evaluation: directory of the Evaluator's result.
        class_map: the classes of masks and model.
        gate_split: the split that the gate judged, and that the frames come from.
        selection_split: the split that selected the epoch and the variant, which may be the same.
        lineage: the model's data, code and configuration.
        blessed: the Evaluator's verdict.
        pushed: the version directory that the model was pushed to, or None.
        max_frames: maximum number of frames to predict.

    Raises:
        ValueError: the evaluation holds no scores over the whole split.
        OSError: a file is missing.
    """
    result = load_evaluation(evaluation, class_map)
    candidate, diagnostics = result.candidate, result.candidate.diagnostics
    frames, frames_scored = choose_frames(
        example_files(examples, gate_split), model, class_map, max_frames, things=candidate.things
    )
    counts, issues = read_counts(quarantine), read_issues(quarantine)
    return ReportData(
        model=artifact_files.read_model_metadata(model)["model"],
        class_map=class_map,
        gate_split=gate_split,
        verdict=Verdict(blessed, pushed, result.checks),
        scores=dict(candidate.flat(class_map)),
        baseline_scores=dict(result.baseline.flat(class_map)) if result.baseline else None,
        intervals=candidate.intervals,
        change_intervals=result.change_intervals,
        confusion=tuple(tuple(int(pixels) for pixels in row) for row in candidate.matrix),
        sequences=sequence_scores(result),
        frames=frames,
        frames_scored=frames_scored,
        history=read_history(model_run),
        class_shares=read_class_shares(statistics, list(counts["examples"]), class_map),
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
    """Returns the scores of each sequence beside the baseline's: the lowest main score first, NaN last."""
    before = evaluation.baseline.sequences if evaluation.baseline else {}
    rows = []
    for name, found in evaluation.candidate.sequences.items():
        main = task_scores(found).main
        baseline = {f"baseline_{main}": before.get(name, {}).get(main)}
        rows.append((found[main], SequenceScore(name, **found, **baseline)))
    return tuple(row for _, row in sorted(rows, key=lambda item: (math.isnan(item[0]), item[0])))


def read_history(model_run: str) -> tuple[dict[str, Any], ...]:
    """Returns a training's epochs; empty if the trainer recorded none."""
    path = files.join(model_run, artifact_files.HISTORY)
    return tuple(json.loads(files.read_bytes(path))) if tf.io.gfile.exists(path) else ()


def read_class_shares(statistics: str, splits: list[str], class_map: ClassMap) -> dict[str, dict[str, float]]:
    """Returns each class's mean fraction of a mask's pixels, 0 to 1, by split and class name."""
    wanted = {features.class_share(name): name for name in class_map.names}
    fractions: dict[str, dict[str, float]] = {}
    for split in splits:
        path = files.join(statistics, f"Split-{split}", _STATISTICS_FILE)
        if tf.io.gfile.exists(path):
            found = tfdv.load_stats_binary(path).datasets[0].features
            means = {feature.path.step[0]: feature.num_stats.mean for feature in found}
            fractions[split] = {name: means[key] for key, name in wanted.items() if key in means}
    return fractions
