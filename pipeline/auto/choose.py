"""Chooses the settings of a run by the preset `auto`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components import files
from components.errors import UsageError
from pipeline.auto import facts, rules, trial
from pipeline.auto.rules import Choice, Recipe
from pipeline.configuration import presets
from pipeline.configuration.config import RunConfig
from pipeline.configuration.data import find_data, with_gate_split
from pipeline.configuration.loading import load_config, values_by_name

_SOURCE = "preset auto"
Layers = Sequence[tuple[str, Mapping[str, Any]]]


class Chosen(NamedTuple):
    """The result of `choose`.

    Attributes:
        config: the complete configuration of the run.
        settings: the chosen settings, nested, without those of the user.
        choices: the choices that the user did not override, with their reasons.
        note: how the speed was measured.
    """

    config: RunConfig
    settings: dict[str, Any]
    choices: list[Choice]
    note: str


def choose(layers: Layers, model: str | None, minutes: float, out: str) -> Chosen:
    """Chooses settings that fit the data, this machine and a time budget.

    Args:
        layers: the user's settings, as in `build_config`; they override the choices.
        model: the architecture, if the user named one.
        minutes: the time for the whole run.
        out: the work directory, where measurements are stored.

    Raises:
        UsageError: a setting is wrong, the data set is missing, the task is not semantic, or the time is too short.
        DataRejectedError: the training split has no valid pair, or no pixel to learn from.
        SegpipeError: the network could not be measured.
    """
    files.refuse_pattern("--out", out)
    first = model or presets.DEFAULT_MODEL
    # Enough to find the data. The crop size is fitted to the input size later.
    base = {name: value for name, value in presets.preset("cpu", first).items() if name in ("task", "size", "model")}
    config = load_config([(_SOURCE, base), *layers])
    if not config.data.dir:
        raise UsageError("--preset auto: found no --data, expected a folder of images and masks to choose for")
    if config.task != "semantic":
        raise UsageError(f"--preset auto: found task {config.task}, expected semantic; choose another preset")
    depth = config.model.depth
    folder, description = find_data(config)
    layers = [*layers, ("data", {"data": {"dir": folder}})]
    config = with_gate_split(load_config([(_SOURCE, base), *layers]), description)
    data, machine = facts.inspect_data(config.data, description), facts.inspect_machine()
    given = config.size if any("size" in settings for _, settings in layers) else None

    def measured(name: str, long: bool = False) -> tuple[Any, ...]:
        settings, choices = rules.network(data, machine, name, long, given, depth)
        config = load_config([(_SOURCE, settings), *layers])
        classes = description.class_map.num_classes
        speed, note = trial.measure(config, classes, machine, files.join(out, "trials"), minutes)
        return settings, choices, config, speed, note

    settings, choices, config, speed, note = measured(first)
    reason = "as requested"
    if model is None:
        reason = f"better than unet up to about {rules.WINDOWS_FOR_UNET:,} windows"
        if rules.suits_unet(data, minutes, speed, recipe(config)):
            reason = f"better than fcn8 after about {rules.WINDOWS_FOR_UNET:,} windows, which fit the time"
            settings, choices, config, speed, note = measured("unet", long=True)
    choices = [
        Choice("model.name", config.model.name, reason),
        *rules.kept(settings),
        *choices,
        *rules.schedule(data, minutes, speed, recipe(config), config.training.learning_rate),
    ]
    settings = rules.nested(choices, settings)
    config = load_config([(_SOURCE, settings), *layers])
    values = values_by_name(config)
    # In JSON types, as `values`.
    kept = [choice for choice in choices if values[choice.setting] == json.loads(json.dumps(choice.value))]
    return Chosen(config, settings, kept, note)


def recipe(config: RunConfig) -> Recipe:
    """Returns the settings that decide how long a network trains and predicts."""
    model, training = config.model, config.training
    cost = sum(scale**2 for scale in model.test_time_scales) * (2 if model.test_time_flip else 1)
    return Recipe(training.crop_size or config.size, training.batch_size, cost)


def as_yaml(chosen: Chosen) -> str:
    """Returns the chosen settings as YAML for `segpipe run --config`, with the reasons as comments."""
    reasons = {choice.setting: choice.reason for choice in chosen.choices}
    values = chosen.config.model_dump(mode="json")
    return "".join(_lines(chosen.settings, values, reasons))


def _lines(settings: Mapping[str, Any], values: Mapping[str, Any], reasons: Mapping[str, str], group: str = "") -> Any:
    for name in settings:
        key, value = f"{group}{name}", values[name]
        if not group and isinstance(value, Mapping):
            yield f"{name}:\n"
            yield from _lines(settings[name], value, reasons, f"{name}.")
            continue
        reason = f"  # {reasons[key]}" if key in reasons else ""
        yield f"{'  ' if group else ''}{name}: {json.dumps(value)}{reason}\n"
