"""Render a data check as one HTML file with its styles, script and pictures inside, styled as a run's report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from markupsafe import Markup

from components.class_map import ClassMap
from components.data_report.contents import Contents
from components.dataset.inspection import Inspection, SplitInspection
from components.dataset.near_duplicates import BITS
from components.report import views, wording
from components.report.render import compile_template

_FOLDER = Path(__file__).parent
_REPORT = Path(views.__file__).parent
_SHOWN_SEQUENCES = 12
_SHOWN_SIZES = 6
_SHOWN_WARNINGS = 6


@dataclasses.dataclass(frozen=True)
class CountRow:
    """A name, the number of pairs and the length of its bar in percent."""

    name: str
    pairs: int
    width: float


@dataclasses.dataclass(frozen=True)
class SplitView:
    """One split's rows: the largest sequences and sizes, and how many more there are.

    If `single`, no sequence has two pairs, and a list of sequences would say nothing.
    """

    name: str
    inspection: SplitInspection
    issues: int
    sequences: tuple[CountRow, ...]
    more_sequences: int
    sizes: tuple[CountRow, ...]
    more_sizes: int
    single: bool


def render(contents: Contents) -> str:
    """Returns the page as HTML, ready to be written as UTF-8."""
    inspection = contents.inspection
    shares = share_rows(inspection, contents.class_map)
    return compile_template("check.html", _FOLDER).render(
        data=contents,
        inspection=inspection,
        style=Markup(_read(_REPORT / "style.css") + _read(_FOLDER / "check.css")),
        script=Markup(_read(_REPORT / "script.js")),
        title=title(inspection),
        splits=[split_view(name, split) for name, split in inspection.splits.items()],
        warnings=inspection.warnings[:_SHOWN_WARNINGS],
        bits=BITS,
        shares=shares,
        largest_share=max((share or 0 for row in shares for share in row.shares), default=0) or 1.0,
    )


def title(inspection: Inspection) -> str:
    """Returns the result in a few words."""
    if inspection.issues:
        return wording.count(len(inspection.issues), "issue") + " found"
    return "All pairs can be used" + (
        f", {wording.count(len(inspection.warnings), 'warning')}" if inspection.warnings else ""
    )


def split_view(name: str, split: SplitInspection) -> SplitView:
    """Prepares one split's rows, the largest counts first."""
    sizes = {f"{width} × {height}": count for (height, width), count in split.sizes.items()}
    return SplitView(
        name,
        split,
        issues=sum(split.quarantined.values()),
        sequences=_largest(split.sequences, _SHOWN_SEQUENCES),
        more_sequences=max(0, len(split.sequences) - _SHOWN_SEQUENCES),
        sizes=_largest(sizes, _SHOWN_SIZES),
        more_sizes=max(0, len(sizes) - _SHOWN_SIZES),
        single=max(split.sequences.values(), default=0) <= 1,
    )


def _largest(counts: dict[str, int], limit: int) -> tuple[CountRow, ...]:
    rows = sorted(counts.items(), key=lambda item: -item[1])[:limit]
    return tuple(CountRow(name, count, 100 * count / rows[0][1]) for name, count in rows)


def share_rows(inspection: Inspection, class_map: ClassMap) -> list[views.ShareRow]:
    """Returns one row per class: its fraction of each split's pixels, None for a split without a usable pair."""
    return [
        views.ShareRow(
            name,
            views.color(class_map, index),
            index != class_map.ignore_index,
            tuple(split.class_fractions[index] if split.pairs else None for split in inspection.splits.values()),
        )
        for index, name in enumerate(class_map.names)
    ]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
