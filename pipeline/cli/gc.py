"""`segpipe gc`: delete what no kept run needs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import filesize

from pipeline.cli.options import with_options
from pipeline.cli.printing import console, print_json, say, table
from pipeline.storage.workdir import Workdir

if TYPE_CHECKING:
    from pipeline.configuration.config import RunConfig
    from pipeline.retention.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetentionOptions:
    """What to keep: settings of a file, under the options that are given."""

    config: Annotated[
        str | None, typer.Option(help="YAML file of settings: retention, kubeflow.root.", metavar="FILE")
    ] = None
    keep_runs: Annotated[
        int | None, typer.Option(help="Newest runs of each project to keep.", show_default="retention.keep_runs")
    ] = None
    keep_versions: Annotated[
        int | None,
        typer.Option(
            help="Newest versions of each served model, and newest blessed models, to keep.",
            show_default="retention.keep_versions",
        ),
    ] = None
    older_than: Annotated[
        str | None,
        typer.Option(help="Keep everything that is younger, as 12h or 30d.", show_default="retention.older_than"),
    ] = None
    config_file: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep the versions that this file names, the model servers' --model_config_file; repeatable.",
            metavar="FILE",
            show_default="retention.served_by",
        ),
    ] = None

    def settings(self) -> RunConfig:
        """Returns all settings. Raises UsageError for a wrong one."""
        from pipeline.configuration.loading import load_config, read_config_file

        options = {name: getattr(self, name) for name in ("keep_runs", "keep_versions", "older_than")}
        options["served_by"] = self.config_file or None
        layers = [
            ("command line", {"retention": {name: value for name, value in options.items() if value is not None}})
        ]
        return load_config([(self.config, read_config_file(self.config)), *layers] if self.config else layers)


@with_options
def gc(
    retention: RetentionOptions,
    out: Annotated[
        str | None, typer.Option(help="Work directory.", show_default="kubeflow.root of --config if set, else work")
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
    from pipeline.storage.store import Store

    settings = retention.settings()
    if out is None and settings.kubeflow.root:
        workdir = Workdir(settings.kubeflow.root, settings.kubeflow.metadata, shared=True)
    else:
        workdir = Workdir(out or "work")
    # Fails if there is no metadata. Opening it to write, as `collect` does, would create it.
    Store(workdir.source)
    if dry_run:
        plan = make_plan(workdir, settings)
    elif workdir.shared:
        plan = collect(workdir, settings)
    else:
        with workdir.lock(wait):
            plan = collect(workdir, settings)
    if as_json:
        print_json(_to_dict(plan, dry_run))
    else:
        _print(plan, dry_run, settings)


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

    removed = table("to remove" if dry_run else "removed", "number", "size", right=("number", "size"))
    for kind in KINDS:
        sizes = [item.bytes for item in plan.items if item.kind == kind]
        removed.add_row(kind, str(len(sizes)), filesize.decimal(sum(sizes)))
    total = filesize.decimal(sum(item.bytes for item in plan.items))
    removed.add_row("total", str(len(plan.items)), total, style="bold")
    console().print(removed)
    say(f"{len(plan.kept)} runs are kept, {len(plan.removed)} are not. --json lists them, with each path")
    if any(item.kind == "versions" for item in plan.items) and not settings.retention.served_by:
        say("No server's configuration was read. If versions are served by label, name it with --config-file")
