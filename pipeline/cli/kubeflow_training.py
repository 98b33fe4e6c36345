"""`segpipe kubeflow training-job`: manifests of a multi-worker training, with or without a training operator."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from components.errors import UsageError
from pipeline.cli.outputs import prepare_file
from pipeline.cli.run import ChosenModel, Preset

_KIND = "job needs no operator, tfjob is for version 1 of Kubeflow's training operator, trainjob for version 2."


def training_job(
    data: Annotated[str, typer.Option(help="Data folder, as the pods see it.")],
    kind: Annotated[str, typer.Option(help=_KIND)] = "tfjob",
    out: Annotated[str, typer.Option(help="File to write.", metavar="FILE")] = "training-job.yaml",
    name: Annotated[
        str, typer.Option(help="Name of the job; the run in the metadata has it too, and a hash of the settings.")
    ] = "segpipe-training",
    workers: Annotated[int, typer.Option(help="Pods that train together, the chief included.", min=1)] = 2,
    model: ChosenModel = None,
    preset: Preset = "cpu",
    size: Annotated[str | None, typer.Option(help="Input size in pixels.", metavar="HxW")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.", min=1)] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting; repeatable.", metavar="KEY=VALUE")
    ] = None,
    config: Annotated[str | None, typer.Option(help="YAML file of settings.", metavar="FILE")] = None,
) -> None:
    """Write the manifests of a training by several pods, for `kubectl apply`.

    It runs the pipeline up to Trainer. A run of the compiled pipeline with the same settings then takes the model
    from the cache, and evaluates, gates and pushes it.
    """
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", name):
        raise UsageError(f"--name {name}: expected up to 50 small letters, digits and dashes, beginning with a letter")
    prepare_file("--out", out)
    from pipeline.kubeflow.parameters import compiled_in, configure, defaults
    from pipeline.kubeflow.training_job import render

    chosen, layers = compiled_in(model, config, assignments or [])
    values = defaults(data, chosen, preset, size, epochs)
    # What the data set is like is known where the training runs.
    settings = configure({**values, "data": ""}, layers).kubeflow
    manifests = render(kind, name, workers, settings, layers, values)
    Path(out).write_text(manifests)
    Console(highlight=False, soft_wrap=True).print(f"{kind} of {workers} pods written to {out}")
