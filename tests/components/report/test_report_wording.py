"""Numbers and sentences of the report, as a person reads them."""

from __future__ import annotations

import dataclasses

import pytest

from components.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.61249, "0.612"), (1, "1.000"), (-0.25, "−0.250"), (None, "absent"), (float("nan"), "absent")],
)
def test_score(value, text):
    assert wording.score(value) == text


@pytest.mark.parametrize(
    ("value", "text", "direction"),
    [
        (0.0312, "+0.031", "up"),
        (-0.0712, "−0.071", "down"),
        (0.0, "±0.000", "same"),
        (-0.0004, "±0.000", "same"),
        (None, "", "same"),
    ],
)
def test_change_and_its_direction_agree(value, text, direction):
    assert wording.change(value) == text
    assert wording.direction(value) == direction


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0001, "<0.1 %"), (0.0042, "0.4 %"), (0.0994, "9.9 %"), (0.0996, "10 %"), (1, "100 %"), (None, "–")],
)
def test_percent(share, text):
    assert wording.percent(share).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.0 s"),
        (7.44, "7.4 s"),
        (9.97, "10 s"),
        (59.6, "1 min 00 s"),
        (1103, "18 min 23 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_seconds(value, text):
    assert wording.seconds(value) == text


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("mean_iou", "Mean IoU"),
        ("class_iou/traffic light / sign symbol", "IoU of traffic light / sign symbol"),
        ("class_dice/road", "Dice of road"),
        ("boundary_f1", "boundary_f1"),
    ],
)
def test_metric_name(metric, name):
    assert wording.metric_name(metric) == name


def test_count_uses_the_plural_except_for_one():
    assert wording.count(1, "frame") == "1 frame"
    assert wording.count(1204, "frame") == "1,204 frames"


@pytest.mark.parametrize(
    ("configuration", "note"),
    [
        (
            {},
            "The gate uses split test, which selected nothing. On split val, which selected the epoch, mean IoU is "
            "0.662: a gap of +0.049, from that selection and differences between the splits.",
        ),
        (
            {"export": {"variants": ["int8"]}},
            "The gate uses split test, which selected nothing. On split val, which selected the epoch and the variant, "
            "mean IoU is 0.662: a gap of +0.049, from that selection and differences between the splits.",
        ),
        (
            {"training": {"keep": "last"}},
            "The gate uses split test, which selected nothing. On split val mean IoU is 0.662: a gap of +0.049, from "
            "differences between the splits.",
        ),
    ],
)
def test_split_note_of_a_separate_gate_split_has_the_gap(report, configuration, note):
    report = with_splits(report, "test", "val", configuration, {"mean_iou": 0.6616})

    assert wording.split_note(report) == note


@pytest.mark.parametrize(
    ("configuration", "note"),
    [
        (
            {"training": {"keep": "best"}, "export": {"variants": []}},
            "Split val also selected the epoch, so the gate's scores on it are slightly too high. For unbiased scores, "
            "add a split test to the data set, or set data.held_out_fraction.",
        ),
        (
            {"training": {"keep": "last"}, "export": {"variants": []}},
            "The gate uses split val, which selected nothing: the last epoch is kept, and no variant is built.",
        ),
    ],
)
def test_split_note_of_a_gate_split_that_also_selects(report, configuration, note):
    assert wording.split_note(with_splits(report, "val", "val", configuration)) == note


def with_splits(report, gate, selection, configuration, scores=None):
    lineage = dataclasses.replace(report.lineage, configuration=configuration)
    return dataclasses.replace(
        report, gate_split=gate, selection_split=selection, selection_scores=scores or {}, lineage=lineage
    )


def test_split_note_is_empty_for_unknown_splits(report):
    assert wording.split_note(report) == ""
