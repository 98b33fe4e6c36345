"""`segpipe runs` and `segpipe show`: list runs, and show one with its data, code, scores and how it is served."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from components.baseline.reasons import REASON_TEXTS
from pipeline.cli.lookup import MetadataOptions, ServedOptions, check_known
from pipeline.cli.options import AsJson, with_options
from pipeline.cli.printing import console, print_json, say, table

_FIELDS = ("run_id", "project", "started", "state", "gate", "mean_iou", "mean_dice", "mask_ap", "pushed")
_SCORES = {"mean IoU": "mean_iou", "mask AP": "mask_ap"}
_LABELS = {name: title for title, name in _SCORES.items()} | {
    "mean_dice": "mean Dice",
    "predecessor": "version before",
}


@with_options
def list_runs(
    metadata: MetadataOptions,
    served: ServedOptions,
    project: Annotated[str, typer.Option(help="List only this project's runs.", show_default="all projects")] = "",
    as_json: AsJson = False,
) -> None:
    """List the runs of a work directory, newest last, and how the versions that they pushed are served."""
    from pipeline.history.runs import describe_runs

    models = served.read()
    rows = describe_runs(metadata.workdir(), models, project)
    check_known(models, [row["pushed"] for row in rows if row["pushed"]])
    if as_json:
        print_json(rows)
        return
    several = len({row["project"] for row in rows}) > 1
    scores = {title: name for title, name in _SCORES.items() if any(row[name] is not None for row in rows)}
    columns = ("run", *(["project"] if several else []), "state", *scores, "gate", "version", "served")
    listed = table(*columns, right=scores, fold=("state", "served"), padding=(0, 2, 0, 0), pad_edge=False)
    listed.columns[-1].min_width = 10
    for row in rows:
        found = ["" if row[name] is None else f"{row[name]:.3f}" for name in scores.values()]
        version = "" if row["version"] is None else str(row["version"])
        own = [row["project"]] if several else []
        states = ", ".join(_since(state, len("2026-01-31")) for state in row["served"])
        listed.add_row(row["run_id"], *own, row["state"], *found, row["gate"], version, states)
    console().print(listed)


@with_options
def show(
    metadata: MetadataOptions,
    served: ServedOptions,
    run_id: Annotated[
        str, typer.Argument(help="A run's name, as `segpipe runs` lists it.", show_default="the latest")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show one run: its components, data, code and scores, how it is served, its baseline and the version before it."""
    from pipeline.history.runs import describe_run

    models = served.read()
    details = describe_run(metadata.workdir(), run_id, models)
    check_known(models, [details["pushed"]] if details["pushed"] else [])
    if as_json:
        print_json(details)
        return
    lines = {name: _text(details[name]) for name in _FIELDS}
    lines["served"] = "; ".join(_with_reason(state) for state in details["served"]) or "-"
    lines |= {name: _related(details[name]) for name in ("baseline", "predecessor")}
    lines |= {name: _text(details[name]) for name in ("data_hash", "code_hashes", "report")}
    for name, text in lines.items():
        say(f"{_LABELS.get(name, name.replace('_', ' ')):14} {text}")
    components = table("component", "state", "seconds", "result", right=["seconds"], fold=["result"])
    for node in details["components"]:
        components.add_row(node["name"], node["state"], f"{node['seconds']:.1f}", node["figure"])
    say()
    console().print(components)


def _since(state: dict[str, Any], length: int) -> str:
    """Returns the state of a served version and the first `length` characters of its time, in UTC."""
    return state["state"] + (f" since {state['since'][:length].replace('T', ' ')}" if state["since"] else "")


def _with_reason(state: dict[str, Any]) -> str:
    zone = " UTC" if state["since"] else ""
    by = f" by {state['by']}" if state["by"] else ""
    return _since(state, len("2026-01-31T12:00")) + zone + by + (f" ({state['why']})" if state["why"] else "")


def _related(model: dict[str, Any] | None) -> str:
    """Returns the known run, version and report of a baseline or of the version before."""
    if model is None:
        return "none"
    version = "not pushed" if model["version"] is None else f"version {model['version']}"
    known = [model["run_id"] and f"run {model['run_id']}", version, REASON_TEXTS[model.get("why", "")]]
    known += [model["report"] and f"report {model['report']}"]
    return ", ".join(filter(None, known))


def _text(value: Any) -> str:
    if value in (None, ""):
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
