"""The parameters of the compiled pipeline, and the configuration that a run's values give.

Each task rebuilds the configuration from its parameters, so all tasks of a run agree without a shared file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.dataset.description import DatasetDescription
from components.errors import UsageError
from pipeline.configuration import spans
from pipeline.configuration.config import RunConfig
from pipeline.configuration.data import find_data
from pipeline.configuration.loading import build_config, choose_model, field_names, read_assignments, read_config_file
from pipeline.configuration.presets import MODELS, PRESETS

# Settings that a pipeline was compiled with: (source, nested settings); later ones override earlier ones.
Layers = Sequence[tuple[str, Mapping[str, Any]]]

# Kubeflow fills in this parameter of every task; users do not set it.
RUN_ID = "run_id"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of the pipeline.

    Attributes:
        name: its name on Kubeflow.
        type: Python type of its values.
        setting: the setting that it overrides; empty for model and preset, which choose many settings.
        unset: the value that keeps the setting of preset and compiled configuration; None if a value is required.
        text: its description; empty for the setting's description.
    """

    name: str
    type: type
    setting: str
    unset: Any
    text: str = ""

    @property
    def description(self) -> str:
        """Describes the parameter and the value that keeps the compiled setting."""
        text = self.text or {name: text for name, text, _ in field_names()}[self.setting]
        if self.unset is None:
            return text
        return (
            f"{text}; {'empty' if self.unset in ('', {}) else self.unset} keeps the value of preset and configuration"
        )


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
    Parameter("push_destination", str, "serving_dir", "", "folder that versions are pushed to; empty for ROOT/serving"),
)


def compiled_in(model: str | None, config: str | None, assignments: Sequence[str]) -> tuple[str, Layers]:
    """Returns the model of a pipeline and the other settings to compile in.

    Args:
        model: architecture; None for the one in the settings.
        config: YAML file of settings, if any.
        assignments: `KEY=VALUE` settings, which override the file.

    Raises:
        UsageError: the file cannot be read, an assignment is malformed, or the settings name another model.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [("--set", read_assignments(assignments))]
    if config:
        # Its folder means nothing where the pipeline runs.
        layers.insert(0, (os.path.basename(config), read_config_file(config)))
    # A run may choose another model, which model.name in the settings would override.
    return choose_model(model, layers), [(source, _without_model_name(settings)) for source, settings in layers]


def _without_model_name(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    model = settings.get("model")
    if not isinstance(model, Mapping) or str(model.get("name")) not in MODELS:
        return settings
    return {**settings, "model": {key: value for key, value in model.items() if key != "name"}}


def defaults(data: str, model: str, preset: str, size: str | None, epochs: int | None) -> dict[str, Any]:
    """Returns the default values of the parameters for the compiler; None for a required one."""
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
        layers: settings that the pipeline was compiled with; the parameters override them.
        find: as in `build_config`.

    Raises:
        UsageError: a value is wrong, the data set is not found, or the Trainer's pod would lack a GPU that it requires.
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
            # Kubeflow passes numbers as JSON doubles: 3 may come as 3.0.
            value = int(value) if parameter.type is int else value
            chosen.setdefault(group, {})[name] = value
    nested = {**chosen.pop("", {}), **chosen}
    config = build_config(values["preset"], values["model"], [*layers, ("pipeline parameters", nested)], find)
    if config.training.require_gpu and not config.kubeflow.of_component("Trainer").gpus:
        raise UsageError(
            "training.require_gpu: found true with kubeflow.components.Trainer.gpus=0, expected a GPU for the "
            "Trainer's pod. Compile with kubeflow.components.Trainer.gpus=1, or with training.require_gpu=false"
        )
    return config
