"""`segpipe run` and `segpipe config`: one run of the pipeline, and every setting it takes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components import weight_sources
from components.errors import EXIT_NOT_BLESSED, UsageError
from pipeline.cli.extras import require
from pipeline.configuration import spans
from pipeline.configuration.presets import DEFAULT_MODEL, MODELS, PRESETS

if TYPE_CHECKING:
    from pipeline.auto.choose import Chosen
    from pipeline.configuration.config import RunConfig

_ARCHITECTURES = f"Architecture: {', '.join(MODELS)}."
Model = Annotated[str, typer.Option(help=_ARCHITECTURES)]
# Left out, the model is the one that the settings name.
ChosenModel = Annotated[
    str | None, typer.Option(help=_ARCHITECTURES, show_default=f"{DEFAULT_MODEL}, or what --config or --set has")
]
# Settings that name a file or folder, and the words that they take besides.
_PATHS = {
    "data.description": ("auto",),
    "model.encoder_weights": weight_sources.NAMES,
    "serving_dir": ("",),
}
Preset = Annotated[str, typer.Option(help=f"Settings that go together: {', '.join(PRESETS)}.")]
_AUTO = "auto"
RunPreset = Annotated[
    str,
    typer.Option(
        help=f"Settings that go together: {', '.join(PRESETS)}; or {_AUTO}, which chooses them for the data, this "
        "machine and --minutes."
    ),
]
_MINUTES = 30
Minutes = Annotated[
    float | None,
    typer.Option(help=f"Time for the whole run, with --preset {_AUTO}.", show_default=str(_MINUTES), min=1),
]
Out = Annotated[str, typer.Option(help="Work directory: results, cache, served versions.")]


def run(
    data: Annotated[str, typer.Option(help="Folder of images and masks: a path, or gs:// or s3://.")],
    model: ChosenModel = None,
    preset: RunPreset = "cpu",
    minutes: Minutes = None,
    size: Annotated[str | None, typer.Option(help="Input size in pixels, HEIGHTxWIDTH.", metavar="HxW")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.")] = None,
    out: Out = "work",
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
    from components.dataset.data_files import listed_once

    with listed_once():
        if preset == _AUTO:
            chosen = _choose(_layers(data, size, epochs, config, assignments or []), model, minutes, out)
            _print_choices(chosen)
            settings = chosen.config
        else:
            _refuse_minutes(minutes)
            settings = build_config(data, model, preset, size, epochs, config, assignments or [])
        from pipeline.running.run import run_pipeline

        require("tfx")
        if settings.tracking.mlflow_uri:
            require("mlflow")
        blessed = run_pipeline(settings, out, wait=wait)
    if not blessed:
        raise typer.Exit(EXIT_NOT_BLESSED)


def show_config(
    model: ChosenModel = None,
    preset: RunPreset = "cpu",
    data: Annotated[str, typer.Option(help=f"Data folder that --preset {_AUTO} chooses for.")] = "",
    minutes: Minutes = None,
    out: Out = "work",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every setting with its value under a preset, for --set and --config.

    With --preset auto, print what it chooses for --data as YAML for --config, with the reasons. It times a few steps on
    this machine and remembers them in --out.
    """
    if preset == _AUTO:
        chosen = _choose(_layers(data, None, None, None, []), model, minutes, out)
        settings = chosen.config
        if not as_json:
            from pipeline.auto.choose import as_yaml

            print(f"# {chosen.note}\n{as_yaml(chosen)}", end="")
            return
    else:
        _refuse_minutes(minutes)
        settings = build_config(data, model, preset, None, None, None, [])
    from pipeline.configuration.config import field_names

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
    from pipeline.configuration import config as configuration

    layers = _layers(data, size, epochs, config_file, assignments)
    return configuration.build_config(preset, configuration.choose_model(model, layers), layers)


def _layers(
    data: str, size: str | None, epochs: int | None, config_file: str | None, assignments: list[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Returns what the user set, and where, the last over the first."""
    from pipeline.configuration import config as configuration

    options: dict[str, Any] = {"data": {"dir": _data_dir(data)}}
    if size:
        options["size"] = size
    if epochs is not None:
        options["training"] = {"epochs": epochs}
    layers = [("command line", options), ("--set", configuration.read_assignments(assignments))]
    if config_file:
        layers.insert(0, (config_file, configuration.read_config_file(config_file)))
    return [(source, _with_absolute_paths(settings)) for source, settings in layers]


def _choose(layers: list[tuple[str, dict[str, Any]]], model: str | None, minutes: float | None, out: str) -> Chosen:
    """Chooses for the preset auto; see `choose`."""
    require("tensorflow")
    from pipeline.auto.choose import choose
    from pipeline.configuration.config import choose_model

    named = model or any(settings.get("model", {}).get("name") for _, settings in layers)
    with Console(stderr=True).status("timing a few training steps on this machine"):
        return choose(layers, choose_model(model, layers) if named else None, minutes or _MINUTES, out)


def _refuse_minutes(minutes: float | None) -> None:
    if minutes is not None:
        raise UsageError(f"--minutes {minutes:g}: expected with --preset {_AUTO} alone; add it, or use --epochs")


def _print_choices(chosen: Chosen) -> None:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    width = max(len(choice.setting) for choice in chosen.choices)
    for setting, value, reason in chosen.choices:
        console.print(f"{setting:{width}}  {json.dumps(value)}: {reason}")
    console.print(chosen.note)


def _with_absolute_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings whose paths mean the same in any folder, as a run that is watched needs its own."""
    result = dict(settings)
    for key, words in _PATHS.items():
        group, _, name = key.rpartition(".")
        inner = result.get(group, {}) if group else result
        value = inner.get(name) if isinstance(inner, Mapping) else None
        if isinstance(value, str) and value not in words and "://" not in value:
            changed = {**inner, name: os.path.abspath(value)}
            result = {**result, group: changed} if group else changed
    return result


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
