"""`segpipe kubeflow submit|schedule|list|stop`: runs and recurring runs on a Kubeflow Pipelines server."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.errors import UsageError
from pipeline.cli.kubeflow_options import ApiServerOptions, Params, PipelineFile, connect
from pipeline.cli.options import AsJson, with_options
from pipeline.cli.printing import console, print_json, say, table

if TYPE_CHECKING:
    from pipeline.kubeflow.connection import Connection
    from pipeline.kubeflow.schedule import ScheduleState

_SCHEDULE_COLUMNS = {
    "schedule": "schedule",
    "when": "when",
    "state": "state",
    "last_run": "last run",
    "next_run": "next run (UTC)",
}
# `stop` takes a run's name, so the table leaves out its id, which would take half of the width.
_RUN_COLUMNS = {"run": "run", "state": "state", "started": "started (UTC)", "ended": "ended (UTC)"}

_Experiment = Annotated[
    str,
    typer.Option(help="Experiment that groups the runs.", show_default="the pipeline's name, which is the project's"),
]
_ServiceAccount = Annotated[str, typer.Option(help="Service account of the pods.", show_default="the server's")]


@with_options
def submit(
    server: ApiServerOptions,
    pipeline: PipelineFile = "pipeline.yaml",
    params: Params = None,
    name: Annotated[str, typer.Option(help="Name of the run.", show_default="the pipeline's and the time")] = "",
    experiment: _Experiment = "",
    service_account: _ServiceAccount = "",
    no_overlap: Annotated[
        bool, typer.Option("--no-overlap", help="Start no run while another one of the pipeline is running.")
    ] = False,
) -> None:
    """Start a run; upload the pipeline first if the server does not have it."""
    start_run(server.connection(server.host), pipeline, params or [], name, experiment, service_account, no_overlap)


def start_run(
    connection: Connection,
    pipeline: str,
    params: list[str],
    name: str = "",
    experiment: str = "",
    service_account: str = "",
    no_overlap: bool = False,
) -> None:
    """Starts a run as `segpipe kubeflow submit` does, and prints its name and address."""
    from pipeline.kubeflow.package import read_arguments, read_package

    package = read_package(pipeline)
    arguments = read_arguments(package, params)
    kubeflow = connect(connection)
    version = kubeflow.upload(package)
    running = kubeflow.unfinished(version) if no_overlap else None
    if running:
        say(f"run {running.display_name} is running; started no other")
        return
    name = name or f"{package.name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    run = kubeflow.submit(version, name, arguments, kubeflow.experiment(experiment or package.name), service_account)
    say(f"run {name} started, id {run.run_id}\n{kubeflow.run_page(run)}")


@with_options
def schedule(
    name: Annotated[str, typer.Argument(help="Name of the schedule; applying it again changes it.")],
    server: ApiServerOptions,
    pipeline: PipelineFile = "pipeline.yaml",
    cron: Annotated[
        str | None, typer.Option(help="Cron expression of the times, in UTC: '0 3 * * *' is 03:00 every night.")
    ] = None,
    every: Annotated[str | None, typer.Option(help="Time from run to run, such as 30m, 6h or 7d.")] = None,
    params: Params = None,
    pause: Annotated[bool, typer.Option("--pause", help="Start no runs until --resume.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Start runs again.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the schedule; its runs stay.")] = False,
    experiment: _Experiment = "",
    service_account: _ServiceAccount = "",
) -> None:
    """Run the pipeline repeatedly: one run at a time; missed times are skipped.

    Applying a schedule twice changes nothing. With another time, pipeline or parameter it is replaced.
    """
    actions = [word for word, chosen in (("pause", pause), ("resume", resume), ("delete", delete)) if chosen]
    timed = cron is not None or every is not None
    if len(actions) + timed != 1:
        raise UsageError(f"schedule {name}: expected one of --cron, --every, --pause, --resume and --delete")
    from pipeline.kubeflow import schedule as schedules
    from pipeline.kubeflow.package import read_arguments, read_package

    if actions:
        schedules.change(server.connect(), name, actions[0])
        say(f"schedule {name} {actions[0]}d")
        return
    trigger = schedules.read_trigger(cron, every)
    package = read_package(pipeline)
    arguments = read_arguments(package, params or [])
    kubeflow = server.connect()
    version, experiment_id = kubeflow.upload(package), kubeflow.experiment(experiment or package.name)
    outcome = schedules.apply(kubeflow, name, trigger, version, arguments, experiment_id, service_account)
    say(f"schedule {name} {outcome}: {trigger}, pipeline {package.name} version {package.version}")


@with_options
def list_all(
    server: ApiServerOptions,
    limit: Annotated[int, typer.Option(help="Number of latest runs to show.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List schedules, with the time of their next run, and the latest runs."""
    kubeflow = server.connect()
    from pipeline.kubeflow import schedule as schedules

    runs, now = kubeflow.runs(limit), datetime.now(timezone.utc)
    listed = {
        "schedules": [_describe_schedule(state, now) for state in schedules.states(kubeflow, runs)],
        "runs": [_describe_run(run) for run in runs],
    }
    if as_json:
        print_json(listed)
        return
    _print_table("Schedules", listed["schedules"], _SCHEDULE_COLUMNS)
    _print_table("Runs", listed["runs"], _RUN_COLUMNS)


@with_options
def stop(
    run: Annotated[str, typer.Argument(help="Name or id of a run.")],
    server: ApiServerOptions,
) -> None:
    """Stop a run; its finished steps are kept, and the next run continues from there."""
    kubeflow = server.connect()
    from pipeline.kubeflow.client import FINISHED

    found = kubeflow.find_run(run)
    if found.state in FINISHED:
        say(f"run {found.display_name} has ended already: {found.state.lower()}")
        return
    kubeflow.stop(found)
    say(f"run {found.display_name} is being stopped")


def _describe_schedule(state: ScheduleState, now: datetime) -> dict[str, Any]:
    return {
        "schedule": state.name,
        "when": str(state.trigger),
        "state": "on" if state.enabled else "paused",
        "last_run": state.last,
        "next_run": state.next_run(now),
    }


def _describe_run(run: Any) -> dict[str, Any]:
    """Returns what the list shows of a `kfp_server_api.V2beta1Run`."""
    from pipeline.kubeflow.client import utc

    return {
        "run": run.display_name,
        "state": (run.state or "PENDING").lower(),
        "started": utc(run.created_at),
        "ended": utc(run.finished_at),
        "id": run.run_id,
    }


def _print_table(title: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> None:
    headings = tuple(columns.values()) if rows else ("none",)
    # rich wraps a title that is wider than its table.
    listed = table(*headings, fold=headings, title=title, title_justify="left", min_width=len(title))
    for row in rows:
        cells = (row[key] for key in columns)
        listed.add_row(*(f"{cell:%Y-%m-%d %H:%M}" if isinstance(cell, datetime) else cell for cell in cells))
    console().print(listed)
