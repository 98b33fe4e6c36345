"""The gate's settings and the Evaluator configuration made of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from components.class_map import ClassMap
from components.errors import UsageError
from components.metrics.settings import GateSettings

CLASS_MAP = ClassMap(
    names=("road", "pedestrian", "bicyclist", "void"),
    colors=((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)),
    ignore_index=3,
)


def test_known_scored_classes_pass():
    GateSettings(min_class_iou={"pedestrian": 0.1, "bicyclist": 0.2}).check_classes(CLASS_MAP)


def test_an_unknown_class_is_rejected_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"gate\.min_class_iou: found class 'pedestrain'.*write pedestrian"):
        GateSettings(min_class_iou={"pedestrain": 0.1}).check_classes(CLASS_MAP)


def test_the_ignored_class_cannot_be_bounded():
    with pytest.raises(UsageError, match="found class 'void', expected one of the scored classes"):
        GateSettings(min_class_iou={"void": 0.1}).check_classes(CLASS_MAP)


def test_a_class_without_instances_has_no_average_precision_to_bound():
    gate = GateSettings(min_class_ap={"pedestrian": 0.1})

    gate.check_classes(CLASS_MAP, things=("pedestrian", "bicyclist"))
    with pytest.raises(UsageError, match=r"gate\.min_class_ap: found class 'pedestrian', expected one of .* bicyclist"):
        gate.check_classes(CLASS_MAP, things=("bicyclist",))
    with pytest.raises(UsageError, match=r"with instances in a run of task instance \(none\); remove it"):
        gate.check_classes(CLASS_MAP)


@pytest.mark.parametrize(
    "values", [{"min_iou": 0.1}, {"min_mean_iou": 1.2}, {"max_class_drop": -0.1}, {"min_class_iou": {"road": 12}}]
)
def test_wrong_settings_are_rejected(values):
    with pytest.raises(ValidationError):
        GateSettings(**values)


def test_settings_and_scores_do_not_import_tensorflow():
    program = (
        "import sys; import components.metrics.settings, components.metrics.scores, components.metrics.confusion; "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'tfx', 'apache_beam')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
