"""`segpipe runs` and `segpipe show`: what ran, on which data and code, what it scored, how it is served."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console, JustifyMethod
from rich.table import Table

from components.baseline.reasons import REASON_TEXTS
from pipeline.cli import lookup
from pipeline.cli import tls as tls_options

_FIELDS = ("run_id", "project", "started", "state", "gate", "mean_iou", "mean_dice", "mask_ap", "pushed")


def list_runs(
    out: lookup.Out = "work",
    project: Annotated[str, typer.Option(help="List the runs of this project alone.")] = "",
    config: lookup.Config = "",
    config_file: lookup.ConfigFile = "",
    configmap: lookup.ConfigMap = "",
    server: lookup.Servers = None,
    as_json: lookup.AsJson = False,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
) -> None:
    """List the runs of a work directory, newest last, and how the versions that they pushed are served."""
    from pipeline.history.runs import describe_runs

    served = lookup.served_models(config_file, configmap, server, tls_options.settings(tls, tls_ca, tls_cert, tls_key))
    rows = describe_runs(lookup.open_workdir(out, config), served, project)
    lookup.check_served(served, [row["pushed"] for row in rows if row["pushed"]])
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    several = len({row["project"] for row in rows}) > 1
    scores = {"mean IoU": "mean_iou", "mask AP": "mask_ap"}
    scores = {title: name for title, name in scores.items() if any(row[name] is not None for row in rows)}
    columns = ["run", *(["project"] if several else []), "state", *scores, "gate", "version", "served"]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column in scores else "left"
        wraps = column == "state" or column == "served"
        table.add_column(column, justify=justify, no_wrap=not wraps, min_width=10 if column == "served" else None)
    for row in rows:
        found = ["" if row[name] is None else f"{row[name]:.3f}" for name in scores.values()]
        version = "" if row["version"] is None else str(row["version"])
        own = [row["project"]] if several else []
        states = ", ".join(_since(state, len("2026-01-31")) for state in row["served"])
        table.add_row(row["run_id"], *own, row["state"], *found, row["gate"], version, states)
    Console(highlight=False, markup=False, emoji=False).print(table)


def show(
    run_id: Annotated[str, typer.Argument(help="A run's name, as `segpipe runs` lists it; default: the latest.")] = "",
    out: lookup.Out = "work",
    config: lookup.Config = "",
    config_file: lookup.ConfigFile = "",
    configmap: lookup.ConfigMap = "",
    server: lookup.Servers = None,
    as_json: lookup.AsJson = False,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
) -> None:
    """Show one run: its components, data, code and scores, how it is served, its baseline and its predecessor."""
    from pipeline.history.runs import describe_run

    served = lookup.served_models(config_file, configmap, server, tls_options.settings(tls, tls_ca, tls_cert, tls_key))
    details = describe_run(lookup.open_workdir(out, config), run_id, served)
    lookup.check_served(served, [details["pushed"]] if details["pushed"] else [])
    if as_json:
        print(json.dumps(details, indent=2))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    lines = {name: _text(details[name]) for name in _FIELDS}
    lines["served"] = "; ".join(_with_reason(state) for state in details["served"]) or "-"
    lines |= {name: _related(details[name]) for name in ("baseline", "predecessor")}
    lines |= {name: _text(details[name]) for name in ("data_hash", "code_hashes", "report")}
    for name, text in lines.items():
        console.print(f"{name.replace('_', ' '):12} {text}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("component", "state", "seconds", "result"):
        table.add_column(column, justify="right" if column == "seconds" else "left", no_wrap=column != "result")
    for node in details["components"]:
        table.add_row(node["name"], node["state"], f"{node['seconds']:.1f}", node["figure"])
    console.print()
    console.print(table)


def _since(state: dict[str, Any], length: int) -> str:
    """Returns a state of a served version with as much of its time, in UTC, as `length` characters hold."""
    return state["state"] + (f" since {state['since'][:length].replace('T', ' ')}" if state["since"] else "")


def _with_reason(state: dict[str, Any]) -> str:
    zone = " UTC" if state["since"] else ""
    by = f" by {state['by']}" if state["by"] else ""
    return _since(state, len("2026-01-31T12:00")) + zone + by + (f" ({state['why']})" if state["why"] else "")


def _related(model: dict[str, Any] | None) -> str:
    """Returns a baseline or predecessor: its run, version and report as far as they are known."""
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
