"""`segpipe run` and `segpipe config`: one run of the pipeline, and every setting it takes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.errors import EXIT_NOT_BLESSED, UsageError
from pipeline import spans
from pipeline.presets import PRESETS

if TYPE_CHECKING:
    from pipeline.config import RunConfig

Model = Annotated[str, typer.Option(help=f"Architecture: {', '.join(PRESETS['cpu'])}.")]
_MODEL = "fcn8"
Preset = Annotated[str, typer.Option(help=f"Settings that go together: {', '.join(PRESETS)}.")]


def run(
    data: Annotated[str, typer.Option(help="Folder of images and masks: a path, or gs:// or s3://.")],
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Architecture: {', '.join(PRESETS['cpu'])}.", show_default=f"{_MODEL}, or what --config or --set has"
        ),
    ] = None,
    preset: Preset = "cpu",
    size: Annotated[str | None, typer.Option(help="Input size in pixels, HEIGHTxWIDTH.", metavar="HxW")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.")] = None,
    out: Annotated[str, typer.Option(help="Work directory: results, cache, served versions.")] = "work",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, as training.learning_rate=1e-4; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    config: Annotated[str | None, typer.Option(help="YAML file of settings.", metavar="FILE")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run in the same work directory.")] = False,
) -> None:
    """Turn a folder of images and masks into a gated, versioned model and a report.

    What is unchanged since the last run comes from the cache; a run that was stopped goes on where it was.

    Exit codes: 0 pushed; 2 wrong usage or configuration; 3 trained but not blessed; 4 data rejected; 1 anything else.
    """
    settings = build_config(data, model, preset, size, epochs, config, assignments or [])
    from pipeline.run import run_pipeline

    if not run_pipeline(settings, out, wait=wait):
        raise typer.Exit(EXIT_NOT_BLESSED)


def show_config(
    model: Model = _MODEL,
    preset: Preset = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every setting with its value under a preset, for --set and --config."""
    settings = build_config("", model, preset, None, None, None, [])
    from pipeline.config import field_names

    values = settings.model_dump(mode="json")
    if as_json:
        print(json.dumps(values, indent=2))
        return
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("setting", "value", "meaning"):
        table.add_column(column, overflow="fold")
    for name, description, _ in field_names():
        value: Any = values
        for part in name.split("."):
            value = value[part]
        table.add_row(name, json.dumps(value), description)
    Console().print(table)


def build_config(
    data: str,
    model: str | None,
    preset: str,
    size: str | None,
    epochs: int | None,
    config_file: str | None,
    assignments: list[str],
) -> RunConfig:
    """Merges preset, file and options into a validated configuration.

    Raises:
        UsageError: a wrong setting, no data set, or a model that the file or an assignment names otherwise.
    """
    from pipeline import config as configuration

    options: dict[str, Any] = {"data": {"dir": _data_dir(data)}}
    if size:
        options["size"] = size
    if epochs is not None:
        options["training"] = {"epochs": epochs}
    layers = [("command line", options), ("--set", configuration.read_assignments(assignments))]
    if config_file:
        layers.insert(0, (config_file, configuration.read_config_file(config_file)))
    return configuration.build_config(preset, _one_model(model, layers), layers)


def _one_model(model: str | None, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Returns the architecture whose preset is taken: that of the option, or of the last layer that names one."""
    for source, settings in reversed(layers):
        group = settings.get("model")
        named = str(group.get("name")) if isinstance(group, Mapping) else ""
        # A name that is none is for the settings' own check to refuse.
        if named not in PRESETS["cpu"]:
            continue
        if model is not None and model != named:
            raise UsageError(f"--model {model}: found model.name {named} in {source}, expected the same; remove one")
        return named
    return model or _MODEL


def _data_dir(data: str) -> str:
    if not data or "://" in data:
        return data
    if spans.PLACEHOLDER in data:
        return os.path.abspath(data)
    path = Path(data)
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise UsageError(
            f"--data {data}: found {found}, expected a folder of images and masks. "
            "Make a synthetic one with: segpipe data make DIR"
        )
    return str(path.resolve())
