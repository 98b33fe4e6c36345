"""Renders a data check as one HTML file with its styles, script and pictures inside, in the style of a run's report."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from components.class_map import ClassMap
from components.data_report.contents import ISSUES_PER_REASON, Contents
from components.dataset.inspection import Inspection
from components.dataset.near_duplicates import BITS
from components.report import views, wording
from components.report.render import compile_template

_FOLDER = Path(__file__).parent
_REPORT = Path(views.__file__).parent
_SHOWN_WARNINGS = 6


def render(contents: Contents) -> str:
    """Returns the page as HTML, ready to be written as UTF-8."""
    inspection = contents.inspection
    fractions = _fraction_rows(inspection, contents.class_map)
    return compile_template("check.html", _FOLDER).render(
        data=contents,
        inspection=inspection,
        style=Markup(_read(_REPORT / "style.css") + _read(_FOLDER / "check.css")),
        script=Markup(_read(_REPORT / "script.js")),
        title=_title(inspection),
        sizes={
            name: {f"{width} × {height}": count for (height, width), count in split.sizes.items()}
            for name, split in inspection.splits.items()
        },
        warnings=inspection.warnings[:_SHOWN_WARNINGS],
        bits=BITS,
        issues_per_reason=ISSUES_PER_REASON,
        fractions=fractions,
        largest_fraction=views.largest_fraction(fractions),
    )


def _title(inspection: Inspection) -> str:
    if inspection.issues:
        return wording.count(len(inspection.issues), "issue") + " found"
    return "All pairs can be used" + (
        f", {wording.count(len(inspection.warnings), 'warning')}" if inspection.warnings else ""
    )


def _fraction_rows(inspection: Inspection, class_map: ClassMap) -> list[views.FractionRow]:
    """Returns one row per class: its fraction of each split's pixels, None for a split without a valid pair."""
    return [
        views.FractionRow(
            name,
            views.color(class_map, index),
            index != class_map.ignore_index,
            tuple(split.class_fractions[index] if split.pairs else None for split in inspection.splits.values()),
        )
        for index, name in enumerate(class_map.names)
    ]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
