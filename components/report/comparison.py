"""Draw the page of `segpipe evaluate --against --report`: two models on the same images of one split."""

from __future__ import annotations

from components.report import views, wording
from components.report.comparison_data import Comparison
from components.report.render import compile_template


def render(data: Comparison) -> str:
    """Returns the page as HTML, to be written as UTF-8."""
    return compile_template("comparison.html").render(
        data=data,
        title=title(data),
        verdict={1: "good", 0: "", -1: "bad"}[clear_change(data)],
        image_groups=[("Most improved", data.improved), ("Most worsened", data.worsened)],
    )


def clear_change(data: Comparison) -> int:
    """Returns 1 or -1 if the interval of the main score's change is above or below 0, else 0."""
    bounds = data.change_intervals.get(data.main)
    return 0 if bounds is None else int(bounds[0] > 0) - int(bounds[1] < 0)


def title(data: Comparison) -> str:
    """Returns the heading of the result."""
    change, name = views.score_row(data, data.main).change, wording.metric_name(data.main)
    direction = {1: "higher", -1: "lower"}.get(clear_change(data))
    if change is None:
        return f"No {wording.in_sentence(name)} to compare"
    if not direction:
        return f"No clear change of {wording.in_sentence(name)}"
    return f"{name} {direction} by {wording.score(abs(change))}"
