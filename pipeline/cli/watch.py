"""`segpipe watch`: check requests or new data for drift from what the served model was trained on."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from components import files
from components.errors import EXIT_DRIFTED, EXIT_NOT_BLESSED, UsageError
from components.tensorflow_start import prepare
from pipeline.cli import kubeflow_runs
from pipeline.cli.kubeflow_options import Credentials, Params, PipelineFile
from pipeline.cli.lookup import MetadataOptions
from pipeline.cli.options import AsJson, with_options
from pipeline.cli.printing import console, print_json, say, table

if TYPE_CHECKING:
    from pipeline.configuration.config import RunConfig
    from pipeline.watch.check import DriftVerdict
    from pipeline.watch.reference import Reference

_Layers = list[tuple[str, dict[str, Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """How a source is compared with the training data."""

    model: Annotated[str, typer.Option(help="Exported model to predict with.", show_default="the pushed model")] = ""
    bound: Annotated[float, typer.Option(help="Largest Jensen-Shannon divergence of a feature.", min=0, max=1)] = 0.2
    class_bound: Annotated[
        float, typer.Option(help="Largest change of a class's fraction of the pixels.", min=0, max=1)
    ] = 0.1
    limit: Annotated[int, typer.Option(help="Most images to read, the newest requests first.", min=1)] = 200
    at_least: Annotated[int, typer.Option(help="Fewest images for a verdict.", min=2)] = 60

    def check(self) -> None:
        """Raises UsageError if no source could have enough images."""
        if self.limit < self.at_least:
            raise UsageError(
                f"--limit {self.limit}: found fewer images than --at-least {self.at_least}, so there would never be a "
                "verdict"
            )

    def run(self, source: str, reference: Reference, settings: RunConfig) -> DriftVerdict:
        """Compares a source with the training data of a run."""
        from components.dataset.description import load
        from components.dataset.encoded import Limits

        data = settings.data
        limits = Limits(data.max_side, max_pixels=settings.export.max_pixels)
        description = None if data.description == "auto" else load(data.description)
        with console(stderr=True).status("comparing"):
            prepare(quiet=True)
            from pipeline.watch import check
            from pipeline.watch.comparison import Bounds

            bounds = Bounds(self.bound, self.class_bound)
            return check.watch(source, reference, bounds, self.limit, self.at_least, self.model, description, limits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrainingOptions(Credentials):
    """The run to start after drift, in this process or on a Kubeflow Pipelines server."""

    then_run: Annotated[bool, typer.Option("--then-run", help="Start a run after drift.")] = False
    data: Annotated[
        str,
        typer.Option(help="Data folder of that run.", show_default="SOURCE if it has masks, else the watched run's"),
    ] = ""
    host: Annotated[
        str,
        typer.Option(
            help="Start that run on this Kubeflow Pipelines server, unless one is running.", show_default="here"
        ),
    ] = ""
    pipeline: PipelineFile = "pipeline.yaml"
    params: Params = None

    def check(self) -> None:
        """Raises UsageError for an option of a run that is not started, or that runs elsewhere."""
        if self.params and not self.host:
            raise UsageError(
                f"--param {self.params[0]}: found it without --host; the settings of a run in this process come from "
                "--config"
            )
        if (self.host or self.data) and not self.then_run:
            option = "--host" if self.host else "--data"
            raise UsageError(f"{option}: found it without --then-run, which starts the run it is for")

    def start(self, out: str, verdict: DriftVerdict, source: str, layers: _Layers) -> None:
        """Starts the run. Raises typer.Exit if it runs in this process and its model is not blessed."""
        params = self.params or []
        named = any(assignment.partition("=")[0] == "data" for assignment in params)
        # A new data set that drifted is the data to train on.
        data = self.data or (_absolute(source) if verdict.kind == "data" and not named else "")
        if self.host:
            params = [*params, *([f"data={data}"] if data else [])]
            # A repeated watch finds the same drift until the run that it started has ended.
            kubeflow_runs.start_run(self.connection(self.host), self.pipeline, params, no_overlap=True)
        else:
            _run_here(out, [*layers, ("--data", {"data": {"dir": data}})] if data else layers)


@with_options
def watch(
    source: Annotated[
        str, typer.Argument(help="Folder of images, logged requests (PredictionLog TFRecords), or a new data set.")
    ],
    out: Annotated[str, typer.Option(help="Work directory whose last pushed model is watched.")] = "work",
    project: Annotated[
        str, typer.Option(help="Project whose model is watched.", show_default="the one that pushed last")
    ] = "",
    as_json: AsJson = False,
    config: Annotated[
        str, typer.Option(help="YAML file of settings that override those of the watched run.", metavar="FILE")
    ] = "",
    *,
    comparison: ComparisonOptions,
    retraining: RetrainingOptions,
) -> None:
    """Compare what the served model sees with its training data, and start a run after drift.

    Exit codes: 0 no drift, or a started run pushed its model or, with --host, was submitted; 5 drift; otherwise as
    `segpipe run`.
    """
    comparison.check()
    retraining.check()
    from pipeline.configuration import spans
    from pipeline.configuration.loading import load_config
    from pipeline.storage.store import Store
    from pipeline.watch.reference import find_reference, find_run

    store = Store(MetadataOptions(out=out, config=config).workdir().source)
    run_id = find_run(store, project)
    layers = _settings_of(out, run_id, config, required=retraining.then_run and not retraining.host)
    settings = load_config(layers)
    reference = find_reference(store, run_id, settings.data.train_split)
    source = spans.locate(source)
    verdict = comparison.run(source, reference, settings)
    if as_json:
        print_json(verdict.to_dict())
    else:
        _print(verdict, comparison.at_least)
    if not verdict.drifted:
        return
    _notify(verdict, settings, source)
    if not retraining.then_run:
        raise typer.Exit(EXIT_DRIFTED)
    retraining.start(out, verdict, source, layers)


def _notify(verdict: DriftVerdict, config: RunConfig, source: str) -> None:
    """Sends `drifted`, with the features that moved."""
    from pipeline.running.notifications import Notifier

    reason = "; ".join(
        f"{finding.feature}: {finding.measure} {finding.distance:.3f}, the bound is {finding.bound:.3f}"
        for finding in verdict.drifted
    )
    print_notice = functools.partial(typer.echo, err=True)
    Notifier(config.project.name, verdict.run_id, print_notice, config.notify, {"source": source}).send(
        "drifted", reason
    )


def _settings_of(out: str, run_id: str, config: str, required: bool) -> _Layers:
    """Returns the settings of a run, and those of a file over them.

    Args:
        out: the work directory.
        run_id: the run. A run on a cluster stores no settings there.
        config: the file; empty for none.
        required: whether the run's own settings must exist.

    Raises:
        UsageError: settings cannot be read.
    """
    from pipeline.configuration.loading import read_config_file
    from pipeline.storage.workdir import CONFIG_FILE, Workdir

    own = files.join(Workdir(out).run(run_id), CONFIG_FILE)
    layers: _Layers = []
    if required or files.exists(own):
        settings = read_config_file(own)
        # The run's data.dir is the folder of one span; another data.dir may have another span.
        settings.get("data", {}).pop("span", None)
        layers.append((own, settings))
    if config:
        layers.append((config, read_config_file(config)))
    return layers


def _run_here(out: str, layers: _Layers) -> None:
    """Runs the pipeline in a work directory. Raises UsageError if the data has no span."""
    from pipeline.configuration import spans
    from pipeline.configuration.loading import load_config
    from pipeline.running.run import run_pipeline

    data = load_config(layers).data
    located = ("data", {"data": {"dir": _absolute(spans.locate(data.dir, data.span))}})
    if not run_pipeline(load_config([*layers, located]), out, wait=True):
        raise typer.Exit(EXIT_NOT_BLESSED)


def _absolute(folder: str) -> str:
    return folder if files.is_remote(folder) else os.path.abspath(folder)


def _print(verdict: DriftVerdict, at_least: int) -> None:
    unreadable = f", {verdict.unreadable} unreadable" if verdict.unreadable else ""
    say(f"{verdict.images} images ({verdict.kind}){unreadable}, compared with run {verdict.run_id}\n")
    if not verdict.findings:
        say(f"Too few for a verdict: expected at least {at_least}.")
        return
    numbers = ("then", "now", "distance", "bound")
    findings = table("feature", "then", "now", "measure", "distance", "bound", "", right=numbers, padding=(0, 1))
    for finding in verdict.findings:
        means = ["" if mean is None else f"{mean:.3g}" for mean in (finding.before, finding.now)]
        distances = [f"{value:.3f}" for value in (finding.distance, finding.bound)]
        mark = Text("!" if finding.drifted else "", "red")
        findings.add_row(finding.feature, *means, finding.measure, *distances, mark)
    console().print(findings)
    names = ", ".join(finding.feature for finding in verdict.drifted)
    say(f"\n{'Drifted: ' + names if names else 'No drift.'}")
