"""The pipeline component that writes a run's report from the outputs of the other components."""

import dataclasses
import json
import math
import time
from typing import Any

from tfx.utils import path_utils  # where a Model artifact keeps its SavedModel; no public alias
from tfx.v1.dsl.components import InputArtifact, OutputArtifact, Parameter, component
from tfx.v1.dsl.io import fileio
from tfx.v1.types.standard_artifacts import (
    Examples,
    ExampleStatistics,
    Model,
    ModelBlessing,
    ModelEvaluation,
    ModelRun,
    PushedModel,
)

from components import files
from components.artifact_files import read_model_metadata
from components.class_map import ClassMap
from components.example_gen.artifacts import Quarantine
from components.metrics.scores import task_scores
from components.report import artifacts
from components.report.assemble import assemble
from components.report.data import DATA_FILE, PAGE_FILE, Lineage, ReportData
from components.report.render import render
from components.times import utc_text

# TFX reads the annotations of a component's function as objects, so this file has no
# `from __future__ import annotations`.

# Custom properties that TFX's ExampleGen, Evaluator and Pusher set on their artifacts.
_FINGERPRINT = "input_fingerprint"
_BLESSED = "blessed"
_BASELINE = "baseline_model"
_PUSHED = "pushed"
_PUSHED_DESTINATION = "pushed_destination"


@component
def Report(  # TFX's naming: a component is a noun
    report: OutputArtifact[artifacts.Report],
    examples: InputArtifact[Examples],
    statistics: InputArtifact[ExampleStatistics],
    quarantine: InputArtifact[Quarantine],
    model: InputArtifact[Model],
    model_run: InputArtifact[ModelRun],
    evaluation: InputArtifact[ModelEvaluation],
    blessing: InputArtifact[ModelBlessing],
    class_map: Parameter[str],
    configuration: Parameter[str],
    lineage: Parameter[str],
    gate_split: Parameter[str],
    selection_split: Parameter[str],
    max_frames: Parameter[int],
    code: Parameter[str],
    pushed_model: InputArtifact[PushedModel] = None,
) -> None:
    """Writes `report.json` and `report.html`; the main scores become custom properties of the artifact.

    `class_map`, `configuration` and `lineage` are JSON; `lineage` may hold any field of
    `components.report.data.Lineage`. `code` is the hash of the source, part of the cache key.
    """
    del code
    data = assemble(
        examples=examples.uri,
        statistics=statistics.uri,
        quarantine=quarantine.uri,
        model=path_utils.serving_model_path(model.uri),
        model_run=model_run.uri,
        evaluation=evaluation.uri,
        class_map=ClassMap.from_json(class_map),
        gate_split=gate_split,
        selection_split=selection_split,
        lineage=_complete_lineage(json.loads(lineage), json.loads(configuration), examples, blessing),
        blessed=blessing.get_int_custom_property(_BLESSED) == 1,
        pushed=_pushed_to(pushed_model),
        max_frames=max_frames,
    )
    write(data, report.uri)
    # A list of runs reads these from the metadata store without opening files.
    for metric in task_scores(data.scores).listed:
        value = data.scores[metric]
        if value is not None and not math.isnan(value):
            report.set_float_custom_property(metric, value)


def _complete_lineage(known: dict[str, Any], configuration: dict[str, Any], examples: Any, blessing: Any) -> Lineage:
    """Returns the lineage with the configuration, the time, the hash of the data and the baseline.

    Args:
        known: fields of `Lineage` by name, which take precedence.
        configuration: the run's configuration.
        examples: the artifact of the raw examples, which has the data's fingerprint.
        blessing: the artifact of the blessing, which has the baseline's directory.
    """
    baseline_uri = blessing.get_string_custom_property(_BASELINE)
    found = Lineage(
        created=utc_text(time.time()),
        configuration=configuration,
        data_hash=examples.get_string_custom_property(_FINGERPRINT),
        baseline=describe_baseline(baseline_uri) if baseline_uri else None,
    )
    return dataclasses.replace(found, **known)


def describe_baseline(model_uri: str) -> str:
    """Returns the architecture of a baseline and the execution that wrote it."""
    name = read_model_metadata(path_utils.serving_model_path(model_uri))["model"]
    return f"{name} of execution {model_uri.rstrip('/').rsplit('/', 1)[-1]}"


def _pushed_to(pushed_model: Any) -> str | None:
    """Returns the version directory of a pushed model, None if nothing was pushed."""
    if pushed_model is None or pushed_model.get_int_custom_property(_PUSHED) != 1:
        return None
    return pushed_model.get_string_custom_property(_PUSHED_DESTINATION)


def write(data: ReportData, report_dir: str) -> None:
    """Writes the page and its data into a folder, local or on an object store."""
    fileio.makedirs(report_dir)
    for name, text in ((DATA_FILE, data.to_json()), (PAGE_FILE, render(data))):
        with fileio.open(files.join(report_dir, name), "wb") as file:
            file.write(text.encode())
