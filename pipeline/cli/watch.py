"""`segpipe watch`: has what the model is asked, or what arrived to train on, moved away from what it learned from?"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.errors import EXIT_DRIFTED, EXIT_NOT_BLESSED
from pipeline.cli import kubeflow_runs

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.store import Store
    from pipeline.watch.watch import Verdict


def watch(
    source: Annotated[
        str, typer.Argument(help="Folder of images, logged requests (PredictionLog TFRecords), or a new data set.")
    ],
    out: Annotated[str, typer.Option(help="Work directory whose last pushed model is watched.")] = "work",
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
    host: Annotated[str, typer.Option(help="Start it on this Kubeflow Pipelines server instead of here.")] = "",
    pipeline: kubeflow_runs.PipelineFile = "pipeline.yaml",
    params: kubeflow_runs.Params = None,
    namespace: kubeflow_runs.Namespace = "",
    token_file: kubeflow_runs.TokenFile = "",
    ca: kubeflow_runs.Ca = "",
) -> None:
    """Compare what the served model sees with what it was trained on, and start a run where it drifted.

    Exit codes: 0 no drift, or it started a run that pushed; 5 drift; otherwise as `segpipe run`.
    """
    from pipeline import spans

    settings, store = _open(out, config)
    source = spans.locate(source)
    with Console(stderr=True).status("comparing"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from pipeline.watch.comparison import Bounds
        from pipeline.watch.watch import watch as look

        bounds = Bounds(bound, class_bound)
        verdict = look(source, store, settings.data.train_split, bounds, limit, at_least, model)
    if as_json:
        print(json.dumps(verdict.to_dict(), indent=2))
    else:
        _print(verdict, at_least)
    if not verdict.drifted:
        return
    if not then_run:
        raise typer.Exit(EXIT_DRIFTED)
    # Where a new data set drifted, it is what there is to learn from.
    data = data or (source if verdict.kind == "data" else "")
    if host:
        assignments = [*(params or []), *([f"data={data}"] if data else [])]
        kubeflow_runs.submit(host, pipeline, assignments, namespace=namespace, token_file=token_file, ca=ca)
    else:
        _run_here(out, verdict.run_id, config, data)


def _open(out: str, config: str) -> tuple[RunConfig, Store]:
    """Returns the settings of a file and the metadata of a work directory. Raises UsageError."""
    from pipeline.config import load_config, read_config_file
    from pipeline.store import Store
    from pipeline.workdir import Workdir

    settings = load_config([(config, read_config_file(config))] if config else [])
    metadata = settings.kubeflow.metadata
    workdir = Workdir(out, metadata)
    return settings, Store(metadata.path or workdir.metadata if metadata.kind == "sqlite" else workdir.connection)


def _run_here(out: str, run_id: str, config: str, data: str) -> None:
    """Runs the pipeline with the settings of an earlier run, other data or other settings laid over them."""
    from pipeline import spans
    from pipeline.config import load_config, read_config_file
    from pipeline.run import run_pipeline
    from pipeline.workdir import CONFIG_FILE, Workdir

    files = [os.path.join(Workdir(out).run(run_id), CONFIG_FILE), *([config] if config else [])]
    layers: list[tuple[str, dict[str, Any]]] = [(path, read_config_file(path)) for path in files]
    if data:
        layers.append(("--data", {"data": {"dir": os.path.abspath(spans.locate(data))}}))
    if not run_pipeline(load_config(layers), out, wait=True):
        raise typer.Exit(EXIT_NOT_BLESSED)


def _print(verdict: Verdict, at_least: int) -> None:
    console = Console(highlight=False)
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
        mark = "[red]![/]" if finding.drifted else ""
        table.add_row(finding.feature, *means, finding.measure, f"{finding.distance:.3f}", f"{finding.bound:.3f}", mark)
    console.print(table)
    names = ", ".join(finding.feature for finding in verdict.drifted)
    console.print(f"\n{'Drifted: ' + names if names else 'No drift.'}", soft_wrap=True)
