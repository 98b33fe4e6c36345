"""`segpipe run` and `segpipe config`: run the pipeline, and list its settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components import weight_sources
from components.errors import EXIT_NOT_BLESSED, UsageError
from pipeline.cli.extras import require
from pipeline.cli.options import AsJson, Assignments, ChosenModel, Epochs, SettingsFile, Size
from pipeline.cli.printing import console, print_json, say, table
from pipeline.configuration import spans
from pipeline.configuration.presets import PRESETS

if TYPE_CHECKING:
    from pipeline.auto.choose import Chosen
    from pipeline.configuration.config import RunConfig

# Settings that name a file or folder, and their values that name none.
_PATHS = {
    "data.description": ("auto",),
    "model.encoder_weights": weight_sources.NAMES,
    "serving_dir": ("",),
}
_AUTO = "auto"
_Preset = Annotated[
    str,
    typer.Option(
        help=f"Settings that go together: {', '.join(PRESETS)}; or {_AUTO}, to choose them for the data, this machine "
        "and --minutes."
    ),
]
_DEFAULT_MINUTES = 30
_Minutes = Annotated[
    float | None,
    typer.Option(help=f"Minutes for the whole run, with --preset {_AUTO}.", show_default=str(_DEFAULT_MINUTES), min=1),
]
_Out = Annotated[str, typer.Option(help="Work directory: results, cache, served versions.")]


def run(
    data: Annotated[
        str, typer.Option(help="Folder of images and masks: a path, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER.")
    ],
    model: ChosenModel = None,
    preset: _Preset = "cpu",
    minutes: _Minutes = None,
    size: Size = None,
    epochs: Epochs = None,
    out: _Out = "work",
    assignments: Assignments = None,
    config: SettingsFile = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run in the same work directory.")] = False,
) -> None:
    """Turn a folder of images and masks into a gated, versioned model and a report.

    Unchanged steps come from the cache. To continue a run that was stopped, run the same command again.

    Exit codes: 0 pushed; 2 wrong usage or configuration; 3 trained but not blessed; 4 data rejected; 1 anything else.
    """
    from components.dataset.data_files import listed_once

    with listed_once():
        if preset == _AUTO:
            chosen = _choose(_layers(data, size, epochs, config, assignments or []), model, minutes, out)
            width = max(len(choice.setting) for choice in chosen.choices)
            for setting, value, reason in chosen.choices:
                say(f"{setting:{width}}  {json.dumps(value)}: {reason}")
            say(chosen.note)
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
    preset: _Preset = "cpu",
    data: Annotated[str, typer.Option(help=f"Data folder that --preset {_AUTO} chooses for.")] = "",
    minutes: _Minutes = None,
    out: _Out = "work",
    assignments: Assignments = None,
    config: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """List every setting with its value under a preset, --config and --set.

    With --preset auto, print the settings that it chooses for --data as YAML for --config, with the reasons. It times a
    few steps on this machine and stores the times in --out.
    """
    if preset == _AUTO:
        chosen = _choose(_layers(data, None, None, config, assignments or []), model, minutes, out)
        settings = chosen.config
        if not as_json:
            from pipeline.auto.choose import as_yaml

            print(f"# {chosen.note}\n{as_yaml(chosen)}", end="")
            return
    else:
        _refuse_minutes(minutes)
        settings = build_config(data, model, preset, None, None, config, assignments or [])
    if as_json:
        print_json(settings.model_dump(mode="json"))
        return
    from pipeline.configuration.loading import field_names, values_by_name

    values = values_by_name(settings)
    columns = ("setting", "value", "meaning")
    settings_table = table(*columns, fold=columns)
    for name, description, _ in field_names():
        settings_table.add_row(name, json.dumps(values[name]), description)
    console().print(settings_table)


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
        UsageError: a wrong setting, no data set, or a model other than the one in the file or an assignment.
    """
    from pipeline.configuration import loading

    layers = _layers(data, size, epochs, config_file, assignments)
    return loading.build_config(preset, loading.choose_model(model, layers), layers)


def _layers(
    data: str, size: str | None, epochs: int | None, config_file: str | None, assignments: list[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Returns the settings that the user gave, with their sources; later ones override earlier ones."""
    from pipeline.configuration import loading

    options: dict[str, Any] = {"data": {"dir": _data_dir(data)}}
    if size:
        options["size"] = size
    if epochs is not None:
        options["training"] = {"epochs": epochs}
    layers = [("command line", options), ("--set", loading.read_assignments(assignments))]
    if config_file:
        layers.insert(0, (config_file, loading.read_config_file(config_file)))
    return [(source, _with_absolute_paths(settings)) for source, settings in layers]


def _choose(layers: list[tuple[str, dict[str, Any]]], model: str | None, minutes: float | None, out: str) -> Chosen:
    """Chooses the settings of the preset auto."""
    require("tensorflow")
    from pipeline.auto.choose import choose
    from pipeline.configuration.loading import choose_model

    named = model or any(settings.get("model", {}).get("name") for _, settings in layers)
    with console(stderr=True).status("timing a few training steps on this machine"):
        return choose(layers, choose_model(model, layers) if named else None, minutes or _DEFAULT_MINUTES, out)


def _refuse_minutes(minutes: float | None) -> None:
    if minutes is not None:
        raise UsageError(
            f"--minutes {minutes:g}: found it without --preset {_AUTO}, which it is for; add that, or use --epochs"
        )


def _with_absolute_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with absolute paths: `segpipe watch` reads a run's settings from another folder."""
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
