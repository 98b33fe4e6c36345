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
from pipeline.configuration.config import RunConfig, find_data, load_config, with_gate_split

_SOURCE = "preset auto"
Layers = Sequence[tuple[str, Mapping[str, Any]]]


class Chosen(NamedTuple):
    """What was chosen.

    Attributes:
        config: the run's whole configuration.
        settings: nested settings of the preset, without what the user set.
        choices: each choice that holds, with its reason.
        note: how the speed was measured.
    """

    config: RunConfig
    settings: dict[str, Any]
    choices: list[Choice]
    note: str


def choose(layers: Layers, model: str | None, minutes: float, out: str) -> Chosen:
    """Chooses settings that fit the data, this machine and a time budget.

    Args:
        layers: the user's settings, which stay as they are, as in `build_config`.
        model: the architecture, if the user named one.
        minutes: the budget of the whole run.
        out: the work directory, which remembers what is measured.

    Raises:
        UsageError: a wrong setting, no data set, another task than semantic, or too small a budget.
        DataRejectedError: the training split has no sound pair.
        SegpipeError: the network could not be measured.
    """
    files.refuse_pattern("--out", out)
    first = model or presets.DEFAULT_MODEL
    # Enough to find the data with; windows are fitted to the size later.
    base = {name: value for name, value in presets.preset("cpu", first).items() if name in ("size", "model")}
    config = load_config([(_SOURCE, base), *layers])
    if not config.data.dir:
        raise UsageError("--preset auto: found no --data, expected a folder of images and masks to choose for")
    if config.task != "semantic":
        raise UsageError(f"--preset auto: found task {config.task}, expected semantic; choose another preset")
    folder, description = find_data(config)
    layers = [*layers, ("data", {"data": {"dir": folder}})]
    config = with_gate_split(load_config([(_SOURCE, base), *layers]), description)
    data, machine = facts.inspect_data(config.data, description), facts.inspect_machine()
    given = config.size if any("size" in settings for _, settings in layers) else None

    def tried(name: str, long: bool = False) -> tuple[Any, ...]:
        settings, choices = rules.network(data, machine, name, long, given)
        config = load_config([(_SOURCE, settings), *layers])
        classes = description.class_map.num_classes
        speed, note = trial.measure(config, classes, machine, files.join(out, "trials"), minutes)
        return settings, choices, config, speed, note

    settings, choices, config, speed, note = tried(first)
    reason = "was asked for"
    if model is None:
        reason = f"ahead of unet up to about {rules.WINDOWS_FOR_UNET:,} windows"
        if rules.suits_unet(data, minutes, speed, recipe(config)):
            reason = f"ahead of fcn8 after about {rules.WINDOWS_FOR_UNET:,} windows, for which there is time"
            settings, choices, config, speed, note = tried("unet", long=True)
    choices = [
        Choice("model.name", config.model.name, reason),
        *rules.kept(settings),
        *choices,
        *rules.schedule(data, minutes, speed, recipe(config), config.training.learning_rate),
    ]
    settings = rules.nested(choices, settings)
    config = load_config([(_SOURCE, settings), *layers])
    values = config.model_dump(mode="json")
    return Chosen(config, settings, [choice for choice in choices if _value(values, choice) == _plain(choice)], note)


def recipe(config: RunConfig) -> Recipe:
    """Returns what decides how long a configured network trains and predicts."""
    model, training = config.model, config.training
    looks = sum(scale**2 for scale in model.test_time_scales) * (2 if model.test_time_flip else 1)
    return Recipe(training.crop_size or config.size, training.batch_size, looks)


def _value(values: Mapping[str, Any], choice: Choice) -> Any:
    for name in choice.setting.split("."):
        values = values[name]
    return values


def _plain(choice: Choice) -> Any:
    return json.loads(json.dumps(choice.value))


def as_yaml(chosen: Chosen) -> str:
    """Returns the chosen settings as YAML for `segpipe run --config`, the reasons as comments."""
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
