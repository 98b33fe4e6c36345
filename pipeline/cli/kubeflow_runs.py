"""`segpipe kubeflow submit|schedule|list|stop`: runs and recurring runs on a Kubeflow Pipelines server."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.errors import UsageError
from components.times import utc_text
from pipeline.cli import kubeflow_training

if TYPE_CHECKING:
    from pipeline.kubeflow.client import Kubeflow, Run
    from pipeline.kubeflow.schedule import ScheduleState

# Secrets stay out of command lines, which every process on a machine can read.
TOKEN_VARIABLE = "SEGPIPE_KUBEFLOW_TOKEN"
COOKIE_VARIABLE = "SEGPIPE_KUBEFLOW_COOKIE"

_SCHEDULE_COLUMNS = {
    "schedule": "schedule",
    "when": "when",
    "state": "state",
    "last_run": "last run",
    "next_run": "next run (UTC)",
}
# A run's name is enough to stop it by; its id would take half of the width.
_RUN_COLUMNS = {"run": "run", "state": "state", "started": "started (UTC)", "ended": "ended (UTC)"}

Host = Annotated[str, typer.Option(help="Address of the API server.", envvar="KF_PIPELINES_ENDPOINT")]
Namespace = Annotated[str, typer.Option(help="Your profile's namespace, in multi-user installations.")]
TokenFile = Annotated[
    str, typer.Option(help=f"File with a bearer token; or set {TOKEN_VARIABLE} or {COOKIE_VARIABLE}.", metavar="FILE")
]
Ca = Annotated[str, typer.Option("--ca", help="Authority's certificates, PEM.", metavar="FILE")]
PipelineFile = Annotated[str, typer.Option("--pipeline", help="What `segpipe kubeflow compile` wrote.", metavar="FILE")]
Params = Annotated[
    list[str] | None, typer.Option("--param", help="A pipeline parameter; repeatable.", metavar="NAME=VALUE")
]
Experiment = Annotated[
    str,
    typer.Option(help="Experiment that groups the runs.", show_default="the pipeline's name, which is the project's"),
]
ServiceAccount = Annotated[str, typer.Option(help="Service account of the pods; default: the server's.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the group `segpipe kubeflow`."""
    app.command("submit")(submit)
    app.command("schedule")(schedule)
    app.command("list")(list_all)
    app.command("stop")(stop)
    app.command("training-job")(kubeflow_training.training_job)


def submit(
    host: Host,
    pipeline: PipelineFile = "pipeline.yaml",
    params: Params = None,
    name: Annotated[str, typer.Option(help="Name of the run; default: the pipeline's and the time.")] = "",
    experiment: Experiment = "",
    service_account: ServiceAccount = "",
    no_overlap: Annotated[
        bool, typer.Option("--no-overlap", help="Start none while one of the experiment is under way.")
    ] = False,
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca: Ca = "",
) -> None:
    """Start a run; the pipeline is uploaded first where the server does not have it yet."""
    from pipeline.kubeflow.package import read_arguments, read_package

    package = read_package(pipeline)
    arguments = read_arguments(package, params or [])
    kubeflow = connect(host, namespace, token_file, ca)
    version, experiment_id = kubeflow.upload(package), kubeflow.experiment(experiment or package.name)
    console = Console(highlight=False, soft_wrap=True)
    running = kubeflow.unfinished(version, experiment_id) if no_overlap else None
    if running:
        console.print(f"run {running.name} is under way; none started")
        return
    name = name or f"{package.name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    run = kubeflow.submit(version, name, arguments, experiment_id, service_account)
    console.print(f"run {run.name} started, id {run.run_id}\n{kubeflow.page_of('runs', run.run_id)}")


def schedule(
    name: Annotated[str, typer.Argument(help="Name of the schedule; applying it again changes it.")],
    host: Host,
    pipeline: PipelineFile = "pipeline.yaml",
    cron: Annotated[str | None, typer.Option(help="When, in UTC: '0 3 * * *' is every night at three.")] = None,
    every: Annotated[str | None, typer.Option(help="Time from run to run, such as 30m, 6h or 7d.")] = None,
    params: Params = None,
    pause: Annotated[bool, typer.Option("--pause", help="Stop it from firing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let it fire again.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it; its runs stay.")] = False,
    experiment: Experiment = "",
    service_account: ServiceAccount = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca: Ca = "",
) -> None:
    """Run the pipeline again and again: one run at a time, missed times are not made up for.

    Applying a schedule twice changes nothing; with another time, pipeline or parameter it is replaced.
    """
    actions = [word for word, chosen in (("pause", pause), ("resume", resume), ("delete", delete)) if chosen]
    timed = cron is not None or every is not None
    if len(actions) + timed != 1:
        raise UsageError(f"schedule {name}: expected one of --cron, --every, --pause, --resume and --delete")
    from pipeline.kubeflow import schedule as schedules
    from pipeline.kubeflow.package import read_arguments, read_package

    console = Console(highlight=False, soft_wrap=True)
    connection = (host, namespace, token_file, ca)
    if actions:
        action = {"pause": schedules.pause, "resume": schedules.resume, "delete": schedules.delete}[actions[0]]
        action(connect(*connection), name)
        console.print(f"schedule {name} {actions[0]}d")
        return
    trigger = schedules.read_trigger(cron, every)
    package = read_package(pipeline)
    arguments = read_arguments(package, params or [])
    kubeflow = connect(*connection)
    wanted = schedules.Schedule(
        name,
        trigger,
        kubeflow.upload(package),
        arguments,
        kubeflow.experiment(experiment or package.name),
        service_account,
    )
    change = schedules.apply(kubeflow, wanted)
    console.print(f"schedule {name} {change}: {trigger}, pipeline {package.name} version {package.version}")


def list_all(
    host: Host,
    limit: Annotated[int, typer.Option(help="Latest runs to show.", min=1)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca: Ca = "",
) -> None:
    """List schedules, with the time of their next run, and the latest runs."""
    kubeflow = connect(host, namespace, token_file, ca)
    from pipeline.kubeflow import schedule as schedules

    runs = kubeflow.runs(limit)
    found, now = schedules.states(kubeflow, runs), datetime.now(timezone.utc)
    if as_json:
        listed = {"schedules": [_describe_schedule(s, now) for s in found], "runs": [_describe_run(r) for r in runs]}
        print(json.dumps(listed, default=utc_text, indent=2))
        return
    console = Console(highlight=False)
    console.print(_table("Schedules", [_describe_schedule(state, now) for state in found], _SCHEDULE_COLUMNS))
    console.print(_table("Runs", [_describe_run(run) for run in runs], _RUN_COLUMNS))


def stop(
    run: Annotated[str, typer.Argument(help="Name or id of a run.")],
    host: Host,
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca: Ca = "",
) -> None:
    """Stop a run; what it has finished is kept, and the next run goes on from there."""
    kubeflow = connect(host, namespace, token_file, ca)
    from pipeline.kubeflow.client import FINISHED

    found = kubeflow.find_run(run)
    console = Console(highlight=False, soft_wrap=True)
    if found.state in FINISHED:
        console.print(f"run {found.name} has ended already: {found.state.lower()}")
        return
    kubeflow.stop(found)
    console.print(f"run {found.name} is being stopped")


def connect(host: str, namespace: str, token_file: str, ca: str) -> Kubeflow:
    """Connects to a server as the options and the environment say. Raises UsageError, SegpipeError."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token_file:
        try:
            with open(token_file) as file:
                token = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "found a file that is no text"
            raise UsageError(
                f"--token-file {token_file}: cannot be read ({why}); expected a file with a bearer token"
            ) from None
    with Console(stderr=True).status("connecting"):
        from pipeline.kubeflow.client import Kubeflow
        from pipeline.kubeflow.connection import Connection

        return Kubeflow(Connection(host, namespace, token, os.environ.get(COOKIE_VARIABLE, ""), ca))


def _describe_schedule(state: ScheduleState, now: datetime) -> dict[str, Any]:
    return {
        "schedule": state.name,
        "when": str(state.trigger),
        "state": "on" if state.enabled else "paused",
        "last_run": state.last,
        "next_run": state.next_run(now),
    }


def _describe_run(run: Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "state": run.state.lower(),
        "started": run.created,
        "ended": run.finished,
        "id": run.run_id,
    }


def _text(value: str | datetime | None) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(timezone.utc):%Y-%m-%d %H:%M}"
    return value or ""


def _table(title: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> Table:
    """Returns a table of the columns, whose titles are given by key."""
    table = Table(box=None, padding=(0, 2), header_style="bold", title=title, title_justify="left")
    for column in columns.values() if rows else ["none"]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_text(row[key]) for key in columns))
    return table
