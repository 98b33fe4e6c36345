"""The table of scores at the end of a run."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from components.class_map import ClassMap
from components.metrics.scores import scores
from pipeline.running.tables import score_table

_CLASS_MAP = ClassMap(("road", "sky", "traffic light"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))


def _lines(table) -> list[list[str]]:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table)
    return [line.split() for line in captured.get().splitlines()]


def test_changes_and_their_intervals_are_shown_with_the_scores():
    after = scores(np.array([[6, 2, 0], [2, 6, 0], [0, 0, 0]]), _CLASS_MAP)
    before = scores(np.array([[8, 0, 0], [0, 8, 0], [0, 0, 0]]), _CLASS_MAP)

    heading, *rows = _lines(
        score_table(after, before, {"class_iou/road": (0.5, 0.7)}, {"class_iou/road": (-0.5, -0.25)})
    )

    assert heading == ["class", "IoU", "95", "%", "Dice", "IoU", "before", "change", "95", "%"]
    assert rows == [
        ["road", "0.600", "0.500", "0.700", "0.750", "1.000", "-0.400", "-0.500", "-0.250"],
        ["sky", "0.600", "0.750", "1.000", "-0.400"],
        ["traffic", "light", "absent", "absent", "absent"],
        ["mean", "0.600", "0.750", "1.000", "-0.400"],
    ]


def test_instances_have_average_precision():
    values = {"mask_ap": 0.5, "box_ap": 0.6, "class_mask_ap/bus": 0.5, "class_box_ap/bus": 0.6}
    values |= {"class_mask_ap/car": float("nan"), "class_box_ap/car": float("nan")}

    heading, *rows = _lines(score_table(values, None, {"mask_ap": (0.4, 0.6)}))

    assert heading == ["class", "AP", "95", "%", "box", "AP"]
    assert rows == [
        ["bus", "0.500", "0.600"],
        ["car", "absent", "absent"],
        ["mean", "0.500", "0.400", "0.600", "0.600"],
    ]
