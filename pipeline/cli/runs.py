"""`segpipe runs` and `segpipe show`: what ran, on which data and code, what it scored, what was pushed."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.pusher.versions import version_number
from pipeline.workdir import Workdir


def list_runs(
    out: Annotated[str, typer.Option(help="Work directory.")] = "work",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the runs of a work directory, newest last."""
    from pipeline.history import describe_runs

    rows = describe_runs(Workdir(out))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("run", "state", "mean IoU", "gate", "version"):
        table.add_column(column, justify="right" if column == "mean IoU" else "left", no_wrap=True)
    for row in rows:
        score = "" if row["mean_iou"] is None else f"{row['mean_iou']:.3f}"
        version = str(version_number(row["pushed"])) if row["pushed"] else ""
        table.add_row(row["run_id"], row["state"], score, row["gate"], version)
    Console(highlight=False, markup=False, emoji=False).print(table)


def show(
    run_id: Annotated[str, typer.Argument(help="A run's name, as `segpipe runs` lists it; default: the latest.")] = "",
    out: Annotated[str, typer.Option(help="Work directory.")] = "work",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one run: its components, data, code, scores and what it pushed."""
    from pipeline.history import describe_run

    workdir = Workdir(out)
    details = describe_run(workdir, run_id or os.path.basename(os.path.realpath(workdir.latest)))
    if as_json:
        print(json.dumps(details, indent=2))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    for name in ("run_id", "state", "gate", "mean_iou", "mean_dice", "pushed", "data_hash", "code_hashes", "report"):
        console.print(f"{name.replace('_', ' '):12} {_text(details[name])}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("component", "state", "seconds", "result"):
        table.add_column(column, justify="right" if column == "seconds" else "left", no_wrap=column != "result")
    for node in details["components"]:
        table.add_row(node["name"], node["state"], f"{node['seconds']:.1f}", node["figure"])
    console.print()
    console.print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
