"""`segpipe kubeflow`: the pipeline on Kubeflow Pipelines and on Vertex AI."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from components import files
from components.errors import UsageError
from pipeline.cli import kubeflow_runs
from pipeline.cli.outputs import prepare_file
from pipeline.cli.run import ChosenModel, Preset

app = typer.Typer(
    help="Compile the pipeline for Kubeflow or Vertex AI; submit and schedule runs.", no_args_is_help=True
)

# What a target's file may be called.
_TARGETS = {"kfp": (".yaml", ".yml"), "vertex": (".yaml", ".yml", ".json")}


@app.command("compile")
def compile_command(
    out: Annotated[str, typer.Option(help="File to write.", metavar="FILE")] = "pipeline.yaml",
    target: Annotated[str, typer.Option(help="kfp for open-source Kubeflow Pipelines, vertex for Vertex AI.")] = "kfp",
    data: Annotated[str, typer.Option(help="Default data folder, as the tasks see it; none makes it required.")] = "",
    model: ChosenModel = None,
    preset: Preset = "cpu",
    size: Annotated[str | None, typer.Option(help="Default input size in pixels.", metavar="HxW")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default passes over the training split.", min=1)] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, as kubeflow.root=gs://bucket/work; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    config: Annotated[str | None, typer.Option(help="YAML file of settings.", metavar="FILE")] = None,
) -> None:
    """Write the pipeline for Kubeflow Pipelines v2, one container task a component, or for Vertex AI.

    Data, model, preset, size, epochs, thresholds and push destination are parameters of every run; other settings
    are compiled in. Kubernetes' own are the group kubeflow of `segpipe config`.
    """
    if target not in _TARGETS:
        raise UsageError(f"--target {target}: expected one of {', '.join(_TARGETS)}")
    if not out.endswith(_TARGETS[target]):
        raise UsageError(f"--out {out}: expected a name that ends in {' or '.join(_TARGETS[target])}")
    # What is compiled for Vertex AI may be written to an object store.
    if target == "kfp" or not files.is_remote(out):
        prepare_file("--out", out)
    from pipeline.kubeflow.parameters import compiled_in, configure, defaults

    chosen, layers = compiled_in(model, config, assignments or [])
    values = defaults(data, chosen, preset, size, epochs)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if target == "vertex":
        settings = configure({**values, "data": data}, layers)
        with _starting_tfx():
            from pipeline.kubeflow.vertex import compile_vertex

        compile_vertex(settings, out)
    else:
        # What the data set is like is known where it is.
        settings = configure({**values, "data": ""}, layers)
        with _starting_tfx():
            from pipeline.kubeflow.compile import compile_pipeline

        compile_pipeline(settings, layers, values, out)
    Console(highlight=False, soft_wrap=True).print(f"pipeline written to {out}")
    if "@sha256:" not in settings.kubeflow.image:
        _warn_of_tag(settings.kubeflow.image)


def _warn_of_tag(image: str) -> None:
    """Says that an image's name may mean another image later, and how to name this one for good."""
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False).print(
        f"kubeflow.image: {image} is a tag, so a later push would change compiled pipelines and schedules. To name the "
        f"image itself, set kubeflow.image to what this prints: docker inspect --format '{{{{index .RepoDigests 0}}}}' "
        f"{image}"
    )


@contextlib.contextmanager
def _starting_tfx() -> Iterator[None]:
    """Shows that TFX is being imported, which takes a while."""
    from pipeline.running.tfx_start import import_tfx

    with Console(stderr=True).status("starting TFX"):
        import_tfx()
        yield


kubeflow_runs.register(app)
