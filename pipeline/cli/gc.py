"""`segpipe gc`: free the disk of what no kept run needs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.storage.workdir import Workdir

if TYPE_CHECKING:
    from pipeline.configuration.config import RunConfig
    from pipeline.retention.plan import Plan

_UNITS = ("B", "kB", "MB", "GB", "TB")


def gc(
    out: Annotated[
        str | None, typer.Option(help="Work directory.", show_default="kubeflow.root of --config if set, else work")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="YAML file of settings: retention, kubeflow.root.", metavar="FILE")
    ] = None,
    keep_runs: Annotated[
        int | None, typer.Option(help="Newest runs of each project to keep.", show_default="retention.keep_runs")
    ] = None,
    keep_versions: Annotated[
        int | None,
        typer.Option(
            help="Newest versions of each served model, and newest blessed models, to keep.",
            show_default="retention.keep_versions",
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(help="Least age of what is removed, as 12h or 30d.", show_default="retention.older_than"),
    ] = None,
    config_file: Annotated[
        list[str] | None,
        typer.Option(
            help="File that model servers take as --model_config_file; repeatable. The versions it names are kept.",
            show_default="retention.served_by",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a run in the same work directory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with each path.")] = False,
) -> None:
    """Remove artifacts, checkpoints, served versions and runs that no kept run needs.

    Versions that a server serves by label are known only from --config-file or retention.served_by.
    """
    from pipeline.retention.collect import collect
    from pipeline.retention.plan import make_plan

    chosen = {
        "keep_runs": keep_runs,
        "keep_versions": keep_versions,
        "older_than": older_than,
        "served_by": config_file or None,
    }
    settings = _settings(config, {name: value for name, value in chosen.items() if value is not None})
    workdir = _workdir(out, settings)
    # Says what is wrong if there is no metadata; opened to write, the file would be made.
    _require_metadata(workdir)
    if dry_run:
        plan = make_plan(workdir, settings)
    elif workdir.shared:
        plan = collect(workdir, settings)
    else:
        with workdir.lock(wait):
            plan = collect(workdir, settings)
    if as_json:
        print(json.dumps(_to_dict(plan, dry_run), indent=2))
    else:
        _print(plan, dry_run, settings)


def _settings(config_file: str | None, retention: dict[str, Any]) -> RunConfig:
    from pipeline.configuration.config import load_config, read_config_file

    layers = [("command line", {"retention": retention})]
    return load_config([(config_file, read_config_file(config_file)), *layers] if config_file else layers)


def _workdir(out: str | None, settings: RunConfig) -> Workdir:
    if out is None and settings.kubeflow.root:
        return Workdir(settings.kubeflow.root, settings.kubeflow.metadata, shared=True)
    return Workdir(out or "work")


def _require_metadata(workdir: Workdir) -> None:
    from pipeline.storage.store import Store

    Store(workdir.source)


def _to_dict(plan: Plan, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "bytes": sum(item.bytes for item in plan.items),
        "items": [dataclasses.asdict(item) for item in plan.items],
        "runs": sorted(plan.removed.values()),
        "kept": dict(plan.kept),
    }


def _print(plan: Plan, dry_run: bool, settings: RunConfig) -> None:
    from pipeline.retention.plan import KINDS

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("to remove" if dry_run else "removed", "number", "size"):
        table.add_column(column, justify="left" if column not in ("number", "size") else "right", no_wrap=True)
    for kind in KINDS:
        sizes = [item.bytes for item in plan.items if item.kind == kind]
        table.add_row(kind, str(len(sizes)), _size(sum(sizes)))
    table.add_row("total", str(len(plan.items)), _size(sum(item.bytes for item in plan.items)), style="bold")
    console.print(table)
    kept = f"{len(plan.kept)} runs are kept, {len(plan.removed)} are not. --json lists them, with each path"
    console.print(kept, soft_wrap=True)
    if any(item.kind == "versions" for item in plan.items) and not settings.retention.served_by:
        console.print(
            "No server's configuration was read. If versions are served by label, name it with --config-file",
            soft_wrap=True,
        )


def _size(count: float) -> str:
    """Returns a number of bytes in decimal units."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"
