"""`segpipe kubeflow`: compile the pipeline for Kubeflow Pipelines or Vertex AI, and run or train it there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from components import files
from components.errors import UsageError
from pipeline.cli import kubeflow_runs
from pipeline.cli.kubeflow_options import CompiledOptions
from pipeline.cli.options import with_options
from pipeline.cli.outputs import prepare_file
from pipeline.cli.printing import console, say

app = typer.Typer(
    help="Compile the pipeline for Kubeflow or Vertex AI; submit and schedule runs.", no_args_is_help=True
)

# The endings of each target's file.
_TARGETS = {"kfp": (".yaml", ".yml"), "vertex": (".yaml", ".yml", ".json")}
_KIND = "job needs no operator, tfjob is for version 1 of Kubeflow's training operator, trainjob for version 2."


@app.command("compile")
@with_options
def compile_command(
    settings: CompiledOptions,
    out: Annotated[str, typer.Option(help="File to write.", metavar="FILE")] = "pipeline.yaml",
    target: Annotated[
        str, typer.Option(help="kfp compiles for open-source Kubeflow Pipelines, vertex for Vertex AI.")
    ] = "kfp",
    data: Annotated[
        str,
        typer.Option(help="Default data folder, as the tasks see it.", show_default="none: every run must name one"),
    ] = "",
) -> None:
    """Write the pipeline for Kubeflow Pipelines v2, as container tasks, or for Vertex AI.

    Data, model, preset, size, epochs, thresholds and push destination become parameters of every run, with the options'
    values as defaults. Other settings are compiled in. The group kubeflow of `segpipe config` has those of Kubernetes.
    """
    if target not in _TARGETS:
        raise UsageError(f"--target {target}: expected one of {', '.join(_TARGETS)}")
    if not out.endswith(_TARGETS[target]):
        raise UsageError(f"--out {out}: expected a name that ends in {' or '.join(_TARGETS[target])}")
    # Only a pipeline for Vertex AI may be written to an object store.
    if target == "kfp" or not files.is_remote(out):
        prepare_file("--out", out)
    from pipeline.kubeflow.parameters import configure

    layers, values = settings.read(data)
    # On Kubeflow, each run inspects its own data.
    config = configure({**values, "data": data if target == "vertex" else ""}, layers)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with console(stderr=True).status("starting TFX"):
        from pipeline.running.tfx_start import import_tfx

        import_tfx()
    if target == "vertex":
        from pipeline.kubeflow.vertex import compile_vertex

        compile_vertex(config, out)
    else:
        from pipeline.kubeflow.compile import compile_pipeline

        compile_pipeline(config, layers, values, out)
    say(f"pipeline written to {out}")
    image = config.kubeflow.image
    if "@sha256:" not in image:
        say(
            f"kubeflow.image: {image} is a tag, so a later push would change compiled pipelines and schedules. To name "
            "the image itself, set kubeflow.image to what this prints: "
            f"docker inspect --format '{{{{index .RepoDigests 0}}}}' {image}",
            stderr=True,
        )


app.command("submit")(kubeflow_runs.submit)
app.command("schedule")(kubeflow_runs.schedule)
app.command("list")(kubeflow_runs.list_all)
app.command("stop")(kubeflow_runs.stop)


@app.command()
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
