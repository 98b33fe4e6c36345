"""Axes of the training curves are round and cover the data; lines break where values are missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.metrics.calibration import ReliabilityBin
from components.report.charts import curves, last_entries, reliability_diagram, resumed_epochs, round_step

LOSS = {"train": "loss"}


def positions(chart) -> list[list[tuple[float, float]]]:
    (line,) = chart.lines
    return [[tuple(map(float, point.split(","))) for point in run.split()] for run in line.runs]


def test_curve_runs_from_left_to_right_and_lower_values_lie_lower():
    chart = curves("Loss", [{"epoch": 1, "loss": 4.0}, {"epoch": 2, "loss": 2.0}, {"epoch": 5, "loss": 1.0}], LOSS)

    assert positions(chart) == [[(0, 0), (25, 50), (100, 75)]]
    assert (chart.y_ticks[0].label, chart.y_ticks[0].position) == ("0", 100)


def test_a_missing_value_breaks_the_line_and_a_lone_point_becomes_a_dot():
    history = [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}, {"epoch": 3}, {"epoch": 4, "loss": float("nan")}]
    history.append({"epoch": 5, "loss": 0.25})

    chart = curves("Loss", history, LOSS)

    assert [len(run) for run in positions(chart)] == [2, 2]
    assert len(set(positions(chart)[1])) == 1
    assert chart.lines[0].last == 0.25


def test_series_without_any_value_is_left_out():
    chart = curves("Loss", [{"epoch": 1, "loss": 1.0}], {"train": "loss", "validation": "val_loss"})

    assert [line.name for line in chart.lines] == ["train"]


def test_a_history_without_numbers_gives_no_chart():
    assert curves("Loss", [], LOSS) is None
    assert curves("Loss", [{"epoch": 1, "loss": None}], LOSS) is None


def test_all_zero_values_still_have_an_axis():
    chart = curves("Mean IoU", [{"epoch": 1, "loss": 0.0}], LOSS)

    assert len(chart.y_ticks) > 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_points_and_ticks_stay_inside_the_plot(values):
    chart = curves("Loss", [{"epoch": i + 1, "loss": value} for i, value in enumerate(values)], LOSS)

    for x, y in (point for run in positions(chart) for point in run):
        assert 0 <= x <= 100
        assert -0.01 <= y <= 100.01
    assert len(chart.x_ticks) <= 7
    assert 2 <= len(chart.y_ticks) <= 7
    assert len({tick.label for tick in chart.x_ticks}) == len(chart.x_ticks)


@given(st.floats(1e-9, 1e9), st.integers(1, 10))
def test_round_step_covers_the_span_without_waste(span, ticks):
    step = round_step(span, ticks)

    assert step * ticks >= span * (1 - 1e-6)
    assert step * ticks <= span * 2.5 * (1 + 1e-6)


def test_the_later_entry_of_a_repeated_epoch_counts():
    history = [
        {"epoch": 1, "loss": 3.0},
        {"epoch": 2, "loss": 2.0},
        {"epoch": 2, "loss": 1.9},
        {"epoch": 3, "loss": 1.0},
    ]

    assert [entry["loss"] for entry in last_entries(history)] == [3.0, 1.9, 1.0]
    assert resumed_epochs(history) == [2]


@pytest.mark.parametrize("epochs", [[], [1], [1, 2, 3]])
def test_an_uninterrupted_history_was_not_resumed(epochs):
    assert resumed_epochs([{"epoch": epoch} for epoch in epochs]) == []


def test_reliability_diagram_leaves_out_empty_bins_and_has_the_diagonal():
    empty = ReliabilityBin(0, 0, None, None)

    chart = reliability_diagram([empty, ReliabilityBin(10, 2, 0.25, 0.2), empty, ReliabilityBin(10, 9, 0.9375, 0.9)])

    diagonal, model = chart.lines
    assert diagonal.runs == ("0,100 100,0",)
    assert model.runs == ("25,80.00 93.75,10.00",)
    assert [(tick.position, tick.label) for tick in chart.x_ticks][:2] == [(0, "0.0"), (20, "0.2")]
    assert [(tick.position, tick.label) for tick in chart.y_ticks][:2] == [(100, "0.0"), (80, "0.2")]
    assert reliability_diagram([empty, empty]) is None
