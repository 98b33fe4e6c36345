"""Draw a report as one self-contained HTML page, with styles, script, pictures and charts inside it.

The page needs no network and no JavaScript; the script only adds the theme switch and the frame viewer.
"""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from components.report import charts, views, wording
from components.report.data import ReportData

_FOLDER = Path(__file__).parent


def render(data: ReportData) -> str:
    """Returns the page as HTML, to be written as UTF-8."""
    configuration = yaml.safe_dump(data.lineage.configuration, sort_keys=False, allow_unicode=True)
    return compile_template("page.html").render(data=data, configuration=configuration)


@functools.cache
def compile_template(name: str, folder: Path = _FOLDER) -> jinja2.Template:
    """Returns a compiled template of a folder, which may extend the report's; undefined names are errors.

    Templates can call the functions of `charts`, `views` and `wording`, and use those of `wording` as filters. Every
    value is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(inspect.getmembers(wording, inspect.isfunction))
    for module in (charts, views, wording):
        environment.globals.update(inspect.getmembers(module, inspect.isfunction))
    environment.globals.update(
        PRECISIONS=views.PRECISIONS,
        CLASS_METRICS=wording.CLASS_METRICS,
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "script.js").read_text(encoding="utf-8")),
    )
    return environment.get_template(name)
