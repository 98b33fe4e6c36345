"""`segpipe watch`: has what the model is asked, or what arrived to train on, moved away from what it learned from?"""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components import files
from components.errors import EXIT_DRIFTED, EXIT_NOT_BLESSED, UsageError
from components.tensorflow_start import prepare
from pipeline.cli import kubeflow_runs, lookup

if TYPE_CHECKING:
    from pipeline.configuration.config import RunConfig
    from pipeline.watch.check import Verdict

_Layers = list[tuple[str, dict[str, Any]]]


def watch(
    source: Annotated[
        str, typer.Argument(help="Folder of images, logged requests (PredictionLog TFRecords), or a new data set.")
    ],
    out: Annotated[str, typer.Option(help="Work directory whose last pushed model is watched.")] = "work",
    project: Annotated[
        str, typer.Option(help="Project whose model is watched; default: the one that pushed last.")
    ] = "",
    model: Annotated[str, typer.Option(help="Model to predict with; default: the one that was pushed.")] = "",
    bound: Annotated[float, typer.Option(help="Largest Jensen-Shannon divergence of a feature.", min=0, max=1)] = 0.2,
    class_bound: Annotated[float, typer.Option(help="Most that a class's share may move.", min=0, max=1)] = 0.1,
    limit: Annotated[int, typer.Option(help="Most images to look at, the newest requests first.", min=1)] = 200,
    at_least: Annotated[int, typer.Option(help="Fewer images than these are no evidence.", min=2)] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Annotated[
        str, typer.Option(help="YAML file of settings, laid over those of the watched run.", metavar="FILE")
    ] = "",
    then_run: Annotated[bool, typer.Option("--then-run", help="Where it drifted, start a run.")] = False,
    data: Annotated[
        str,
        typer.Option(
            help="What that run trains on; default: SOURCE where it has masks, else what the watched run did."
        ),
    ] = "",
    host: Annotated[str, typer.Option(help="Start it on this Kubeflow Pipelines server, if none is under way.")] = "",
    pipeline: kubeflow_runs.PipelineFile = "pipeline.yaml",
    params: kubeflow_runs.Params = None,
    namespace: kubeflow_runs.Namespace = "",
    token_file: kubeflow_runs.TokenFile = "",
    ca: kubeflow_runs.Ca = "",
) -> None:
    """Compare what the served model sees with what it was trained on, and start a run where it drifted.

    Exit codes: 0 no drift, or it started a run that pushed, or, with --host, one that was submitted; 5 drift;
    otherwise as `segpipe run`.
    """
    _check_limits(limit, at_least)
    _check_run(then_run, host, data, params or [])
    from components.dataset.description import load
    from components.dataset.encoded import Limits
    from pipeline.configuration import spans
    from pipeline.configuration.config import load_config
    from pipeline.storage.store import Store
    from pipeline.watch.reference import find_reference, find_run

    store = Store(lookup.open_workdir(out, config).source)
    run_id = find_run(store, project)
    layers = _settings_of(out, run_id, config, required=then_run and not host)
    configured = load_config(layers)
    settings, sizes = configured.data, Limits(configured.data.max_side, max_pixels=configured.export.max_pixels)
    description = None if settings.description == "auto" else load(settings.description)
    reference = find_reference(store, run_id, settings.train_split)
    source = spans.locate(source)
    with Console(stderr=True).status("comparing"):
        prepare(quiet=True)
        from pipeline.watch.check import watch as look
        from pipeline.watch.comparison import Bounds

        verdict = look(source, reference, Bounds(bound, class_bound), limit, at_least, model, description, sizes)
    if as_json:
        print(json.dumps(verdict.to_dict(), indent=2))
    else:
        _print(verdict, at_least)
    if not verdict.drifted:
        return
    _notify(verdict, configured, source)
    if not then_run:
        raise typer.Exit(EXIT_DRIFTED)
    # Where a new data set drifted, it is what there is to learn from.
    named = any(assignment.partition("=")[0] == "data" for assignment in params or [])
    data = data or (_absolute(source) if verdict.kind == "data" and not named else "")
    if host:
        assignments = [*(params or []), *([f"data={data}"] if data else [])]
        # A watch that is repeated finds the same drift until the run that it started has ended.
        kubeflow_runs.submit(
            host, pipeline, assignments, no_overlap=True, namespace=namespace, token_file=token_file, ca=ca
        )
    else:
        _run_here(out, [*layers, ("--data", {"data": {"dir": data}})] if data else layers)


def _notify(verdict: Verdict, config: RunConfig, source: str) -> None:
    """Sends `drifted`, with the features that moved."""
    from pipeline.running.notifications import RunNotices

    say = functools.partial(typer.echo, err=True)
    reason = "; ".join(
        f"{finding.feature}: {finding.measure} {finding.distance:.3f}, the bound is {finding.bound:.3f}"
        for finding in verdict.drifted
    )
    notices = RunNotices(config.project.name, verdict.run_id, say, config.notify, {"source": source})
    notices.send("drifted", reason)


def _check_limits(limit: int, at_least: int) -> None:
    """Raises UsageError where no look could ever come to a verdict."""
    if limit < at_least:
        raise UsageError(
            f"--limit {limit}: found fewer images than --at-least {at_least}, which would never be evidence"
        )


def _check_run(then_run: bool, host: str, data: str, params: list[str]) -> None:
    """Raises UsageError for an option that says something of a run which is not to be started, or not there."""
    if params and not host:
        raise UsageError(
            f"--param {params[0]}: found it without --host; the settings of a run in this process come from --config"
        )
    if (host or data) and not then_run:
        raise UsageError(
            f"{'--host' if host else '--data'}: found it without --then-run, which starts the run it is for"
        )


def _settings_of(out: str, run_id: str, config: str, required: bool) -> _Layers:
    """Returns the settings of a run, and those of a file over them.

    Args:
        out: the work directory.
        run_id: the run. On a cluster it leaves no settings behind.
        config: the file; empty for none.
        required: whether the run's own settings must be there.

    Raises:
        UsageError: settings cannot be read.
    """
    from pipeline.configuration.config import read_config_file
    from pipeline.storage.workdir import CONFIG_FILE, Workdir

    own = files.join(Workdir(out).run(run_id), CONFIG_FILE)
    layers: _Layers = []
    if required or files.exists(own):
        settings = read_config_file(own)
        # The run's data is that of one span already; another data.dir means another span.
        settings.get("data", {}).pop("span", None)
        layers.append((own, settings))
    if config:
        layers.append((config, read_config_file(config)))
    return layers


def _run_here(out: str, layers: _Layers) -> None:
    """Runs the pipeline in a work directory. Raises UsageError where there is no span of the data."""
    from pipeline.configuration import spans
    from pipeline.configuration.config import load_config
    from pipeline.running.run import run_pipeline

    data = load_config(layers).data
    located = ("data", {"data": {"dir": _absolute(spans.locate(data.dir, data.span))}})
    if not run_pipeline(load_config([*layers, located]), out, wait=True):
        raise typer.Exit(EXIT_NOT_BLESSED)


def _absolute(folder: str) -> str:
    return folder if files.is_remote(folder) else os.path.abspath(folder)


def _print(verdict: Verdict, at_least: int) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    unreadable = f", {verdict.unreadable} unreadable" if verdict.unreadable else ""
    console.print(f"{verdict.images} images ({verdict.kind}){unreadable}, compared with run {verdict.run_id}\n")
    if not verdict.findings:
        console.print(f"Too few to tell: expected at least {at_least}.")
        return
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column in ("feature", "then", "now", "measure", "distance", "bound", ""):
        table.add_column(column, justify="left" if column in ("feature", "measure", "") else "right", no_wrap=True)
    for finding in verdict.findings:
        means = ["" if mean is None else f"{mean:.3g}" for mean in (finding.before, finding.now)]
        mark = Text("!" if finding.drifted else "", "red")
        table.add_row(finding.feature, *means, finding.measure, f"{finding.distance:.3f}", f"{finding.bound:.3f}", mark)
    console.print(table)
    names = ", ".join(finding.feature for finding in verdict.drifted)
    console.print(f"\n{'Drifted: ' + names if names else 'No drift.'}", soft_wrap=True)
