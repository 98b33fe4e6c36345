"""`segpipe kubeflow training-job`: write the manifests of a multi-worker training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from components.errors import UsageError
from pipeline.cli.kubeflow_options import CompiledOptions
from pipeline.cli.options import with_options
from pipeline.cli.outputs import prepare_file
from pipeline.cli.printing import say

_KIND = "job needs no operator, tfjob is for version 1 of Kubeflow's training operator, trainjob for version 2."


@with_options
def training_job(
    data: Annotated[str, typer.Option(help="Data folder, as the pods see it.")],
    settings: CompiledOptions,
    kind: Annotated[str, typer.Option(help=f"Kind of manifest: {_KIND}")] = "tfjob",
    out: Annotated[str, typer.Option(help="File to write.", metavar="FILE")] = "training-job.yaml",
    name: Annotated[
        str, typer.Option(help="Name of the job. The run in the metadata is named after it and a hash of the settings.")
    ] = "segpipe-training",
    workers: Annotated[int, typer.Option(help="Pods that train together, including the chief.", min=1)] = 2,
) -> None:
    """Write the manifests of a training by several pods, for `kubectl apply`.

    The job runs the pipeline up to Trainer. A later run of the compiled pipeline with the same settings takes the model
    from the cache, and evaluates, gates and pushes it.
    """
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", name):
        raise UsageError(f"--name {name}: expected up to 50 small letters, digits and dashes, beginning with a letter")
    prepare_file("--out", out)
    from pipeline.kubeflow.parameters import configure
    from pipeline.kubeflow.training_job import render

    layers, values = settings.read(data)
    # The job inspects its data itself.
    config = configure({**values, "data": ""}, layers)
    manifests = render(kind, name, workers, config.kubeflow, layers, values)
    Path(out).write_text(manifests)
    say(f"{kind} of {workers} pods written to {out}")
