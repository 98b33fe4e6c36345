"""Draws a report as one self-contained HTML page: styles, script, pictures and curves are all inside it.

The page needs no network and no JavaScript; the script only adds the theme switch and the frame viewer.
"""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from components.metrics.scores import task_scores
from components.report import views, wording
from components.report.charts import last_entries, reliability_diagram, resumed_epochs
from components.report.data import ReportData

_FOLDER = Path(__file__).parent
_SHOWN_SEQUENCES = 20
_OTHER_FIGURES = (
    "frequency_weighted_iou", "mean_iou_with_void", "mean_boundary_iou", "mask_ap75", "box_ap50", "box_ap75",
)  # fmt: skip


def render(data: ReportData) -> str:
    """Returns the page as HTML, ready to be written as UTF-8.

    A run's own page, with timings the component could not know:
    `render(dataclasses.replace(data, timings=...))`.
    """
    task = task_scores(data.scores)
    class_scores = {title: views.class_rows(data, family) for family, title in wording.CLASS_METRICS.items()}
    heat_rows = views.heat_map(data)
    return compile_template("page.html").render(
        data=data,
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "script.js").read_text(encoding="utf-8")),
        title=wording.verdict_title(data.verdict),
        reason=wording.verdict_reason(data),
        split_note=wording.split_note(data),
        gaps=views.gap_rows(data),
        worst_sequences=data.sequences[:_SHOWN_SEQUENCES],
        key_figures=views.key_figures(data),
        other_figures=[
            views.score_row(data, metric, wording.metric_name(metric))
            for metric in _OTHER_FIGURES
            if metric in data.scores
        ],
        epoch_score=task.of_epoch,
        epoch_score_name=wording.metric_name(task.of_epoch),
        main_name=wording.metric_name(task.main),
        class_name=wording.CLASS_METRICS[task.by_class],
        class_scores=[(title, rows) for title, rows in class_scores.items() if rows],
        absent=any(row.value is None for row in views.class_rows(data, task.by_class)),
        gates=views.ordered_gates(data),
        heat_rows=heat_rows,
        confusions=views.largest_confusions(heat_rows),
        error_legend=views.error_legend(data.class_map),
        frame_groups=views.frame_groups(data),
        reliability=reliability_diagram(data.reliability),
        sizes=views.size_rows(data),
        precisions=views.precision_rows(data),
        precision_names=list(views.PRECISIONS.values()),
        charts=views.training_charts(data),
        epochs=last_entries(data.history),
        resumed=resumed_epochs(data.history),
        best_epoch=views.best_epoch(data),
        splits=views.split_rows(data),
        shares=views.share_rows(data),
        largest_share=max((s for row in views.share_rows(data) for s in row.shares if s), default=1.0),
        times=views.time_rows(data),
        lineage=views.lineage_rows(data),
        configuration=yaml.safe_dump(data.lineage.configuration, sort_keys=False, allow_unicode=True),
    )


@functools.cache
def compile_template(name: str, folder: Path = _FOLDER) -> jinja2.Template:
    """Returns a compiled template of a folder, which may extend the report's; undefined names are errors.

    Templates get the functions of `wording` as functions and as filters. Every value is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = dict(inspect.getmembers(wording, inspect.isfunction))
    environment.filters.update(functions)
    environment.globals.update(functions, color=views.color)
    return environment.get_template(name)
