"""Report data survives JSON, and a gate's margin says how far a value is from its bound."""

from __future__ import annotations

import dataclasses
import json

import pydantic
import pytest

from components.metrics.threshold_check import ThresholdCheck
from components.report.data import DATA_FILE, ReportData, Verdict, load


def test_json_gives_the_same_report_back_but_for_nan(report):
    restored = ReportData.from_json(report.to_json())

    without_nan = {name: None if value != value else value for name, value in report.scores.items()}
    without_baseline_nan = {name: None if value != value else value for name, value in report.baseline_scores.items()}
    assert restored == dataclasses.replace(report, scores=without_nan, baseline_scores=without_baseline_nan)


def test_json_writes_an_undefined_score_as_null(report):
    document = json.loads(report.to_json())

    assert document["scores"]["class_iou/traffic light / sign symbol"] is None
    assert document["class_map"] == report.class_map.to_dict()


def test_minimal_report_survives_json(minimal_report):
    assert ReportData.from_json(minimal_report.to_json()) == minimal_report


def test_load_reads_a_reports_folder(report, tmp_path):
    (tmp_path / DATA_FILE).write_text(report.to_json(), encoding="utf-8")

    assert load(str(tmp_path)).confusion == report.confusion


def test_broken_json_names_the_field():
    with pytest.raises(pydantic.ValidationError, match="class_map"):
        ReportData.from_json('{"model": "fcn8", "gate_split": "val"}')


@pytest.mark.parametrize(
    ("gate", "margin"),
    [
        (ThresholdCheck("mean_iou", "value", 0.4, 0.5, True), 0.1),
        (ThresholdCheck("mean_iou", "value", 0.4, 0.25, False), -0.15),
        (ThresholdCheck("mean_iou", "change", -0.05, -0.07, False), -0.02),
    ],
)
def test_margin_is_value_minus_bound(gate, margin):
    assert gate.margin == pytest.approx(margin)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_margin_of_an_undefined_value_is_none(value):
    assert ThresholdCheck("class_iou/tram", "value", 0.1, value, False).margin is None


def test_failures_are_the_missed_gates():
    missed = ThresholdCheck("mean_iou", "value", 0.4, 0.25, False)

    assert Verdict(False, gates=(ThresholdCheck("mean_dice", "value", 0.1, 0.2, True), missed)).failures == (missed,)
