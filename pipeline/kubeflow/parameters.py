"""The parameters of the compiled pipeline, and how a run's values become its configuration.

Each task rebuilds the configuration from them, so all tasks of a run agree without sharing a file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.dataset.description import DatasetDescription
from components.errors import UsageError
from pipeline.configuration import spans
from pipeline.configuration.config import (
    RunConfig,
    build_config,
    choose_model,
    field_names,
    find_data,
    read_assignments,
    read_config_file,
)
from pipeline.configuration.presets import MODELS, PRESETS

# Settings that a pipeline was compiled with: (where they come from, nested settings), later over earlier.
Layers = Sequence[tuple[str, Mapping[str, Any]]]

# The parameter that every task gets besides those for people.
RUN_ID = "run_id"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of the pipeline.

    Attributes:
        name: as Kubeflow shows it.
        type: Python's type of its values.
        setting: the setting it gives a value to; empty for model and preset, which choose many.
        unset: the value that leaves the setting to preset and compiled configuration.
        text: its description; the setting's own where empty.
    """

    name: str
    type: type
    setting: str
    unset: Any
    text: str = ""

    @property
    def description(self) -> str:
        """What the parameter is for, and which value leaves it as it was compiled."""
        text = self.text or {name: text for name, text, _ in field_names()}[self.setting]
        if self.unset is None:
            return text
        return f"{text}; {'empty' if self.unset in ('', {}) else self.unset} leaves it to preset and configuration"


PARAMETERS = (
    Parameter("data", str, "data.dir", None, "folder of images and masks, local to the tasks, gs:// or s3://"),
    Parameter("span", str, "data.span", ""),
    Parameter("model", str, "", None, f"architecture: {', '.join(MODELS)}"),
    Parameter("preset", str, "", None, f"settings that go together: {', '.join(PRESETS)}"),
    Parameter("size", str, "size", "", "height and width of the network's input in pixels, as 192x256"),
    Parameter("epochs", int, "training.epochs", 0),
    Parameter("min_mean_iou", float, "gate.min_mean_iou", -1.0),
    Parameter("min_class_iou", dict, "gate.min_class_iou", {}),
    Parameter("max_mean_drop", float, "gate.max_mean_drop", -1.0),
    Parameter("max_class_drop", float, "gate.max_class_drop", -1.0),
    Parameter(
        "push_destination", str, "serving_dir", "", "folder that versions are pushed to; ROOT/serving where empty"
    ),
)


def compiled_in(model: str | None, config: str | None, assignments: Sequence[str]) -> tuple[str, Layers]:
    """Returns the model of a pipeline and the other settings that it is compiled with.

    Args:
        model: architecture; None for the one that the settings name.
        config: YAML file of settings, if any.
        assignments: `KEY=VALUE`, which go over it.

    Raises:
        UsageError: the file cannot be read, an assignment is malformed, or the settings name another model.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [("--set", read_assignments(assignments))]
    if config:
        # The folder it lies in here says nothing where the pipeline runs.
        layers.insert(0, (os.path.basename(config), read_config_file(config)))
    # Each run may ask for another model, which a name among the settings would overrule.
    return choose_model(model, layers), [(source, _without_model_name(settings)) for source, settings in layers]


def _without_model_name(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    model = settings.get("model")
    if not isinstance(model, Mapping) or str(model.get("name")) not in MODELS:
        return settings
    return {**settings, "model": {key: value for key, value in model.items() if key != "name"}}


def defaults(data: str, model: str, preset: str, size: str | None, epochs: int | None) -> dict[str, Any]:
    """Returns the parameters' default values, as they are given to the compiler; None for a required one."""
    return {
        **{parameter.name: parameter.unset for parameter in PARAMETERS},
        "data": data or None,
        "model": model,
        "preset": preset,
        "size": size or "",
        "epochs": epochs or 0,
    }


def configure(
    values: Mapping[str, Any],
    layers: Layers,
    find: Callable[[RunConfig], tuple[str, DatasetDescription]] = find_data,
) -> RunConfig:
    """Returns the configuration of a run.

    Args:
        values: the run's parameters by name.
        layers: settings that the pipeline was compiled with; the parameters win over them.
        find: as in `build_config`.

    Raises:
        UsageError: a wrong value, or no data set where the parameters say.
    """
    if values["span"] not in ("", spans.NEWEST) and values["data"] and spans.PLACEHOLDER not in values["data"]:
        raise UsageError(
            f"span: found {values['span']!r} with data {values['data']!r}, expected {spans.PLACEHOLDER} in data, as in "
            f"/data/street-{spans.PLACEHOLDER}. Put it there, or leave span empty"
        )
    chosen: dict[str, Any] = {}
    for parameter in PARAMETERS:
        value = values[parameter.name]
        if parameter.setting and value != parameter.unset:
            group, _, name = parameter.setting.rpartition(".")
            # JSON knows no integers: Kubeflow may pass 3 as 3.0.
            value = int(value) if parameter.type is int else value
            chosen.setdefault(group, {})[name] = value
    nested = {**chosen.pop("", {}), **chosen}
    return build_config(values["preset"], values["model"], [*layers, ("pipeline parameters", nested)], find)
