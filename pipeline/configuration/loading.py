"""Builds a `RunConfig` from layers of settings: the defaults, a preset, a file, the command line.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from components import yaml_loading
from components.dataset.description import DatasetDescription
from components.errors import UsageError
from components.validation import explain
from pipeline.configuration import presets
from pipeline.configuration.config import RunConfig
from pipeline.configuration.data import find_data
from pipeline.configuration.renamed import with_new_names

# The source of settings, for messages, and the nested settings.
Layer = tuple[str, Mapping[str, Any]]


def build_config(
    preset: str,
    model: str,
    layers: Sequence[Layer],
    find: Callable[[RunConfig], tuple[str, DatasetDescription]] = find_data,
) -> RunConfig:
    """Lays settings over a preset and fits the result to its data set.

    Later layers override earlier ones. `find` returns the folder of the configured data set, and its description.

    Raises:
        UsageError: a setting is wrong, or the named data set was not found.
    """
    settings, source = presets.preset(preset, model), f"preset {preset}"
    config = load_config([(source, settings), *layers])
    if not config.data.dir:
        return config
    folder, description = find(config)
    settings = presets.for_classes(settings, description.class_map.scored_names)
    return load_config([(source, settings), *layers, ("data", {"data": {"dir": folder}})])


def choose_model(model: str | None, layers: Sequence[Layer]) -> str:
    """Returns the architecture whose preset to use: that of the option --model, or of the last layer that names one.

    Raises:
        UsageError: a layer and --model name different architectures.
    """
    for source, settings in reversed(layers):
        group = settings.get("model")
        named = str(group.get("name")) if isinstance(group, Mapping) else ""
        # Validation rejects unknown names later.
        if named not in presets.MODELS:
            continue
        if model is not None and model != named:
            raise UsageError(f"--model {model}: found model.name {named} in {source}, expected the same; remove one")
        return named
    return model or presets.DEFAULT_MODEL


def load_config(layers: Iterable[Layer]) -> RunConfig:
    """Merges layers of settings and validates the result; later layers override earlier ones.

    Raises:
        UsageError: an unknown setting, with the nearest valid name, or a wrong value.
    """
    merged: dict[str, Any] = {}
    for source, given in layers:
        values = with_new_names(given, source)
        _check_keys(values, source)
        _merge(merged, values)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise UsageError(explain(error, RunConfig)) from None


def read_config_file(path: str) -> dict[str, Any]:
    """Reads a YAML file of nested settings. Raises UsageError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a YAML file of settings") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not a text file; expected a YAML file of settings") from None
    return yaml_loading.load_mapping(text, path)


def read_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Turns assignments such as `training.epochs=20` into nested settings.

    Values are YAML, so numbers, lists and `{pedestrian: 0.1}` work. If the setting is a text, `007` and `2024-05-01`
    stay as written.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {assignment}: expected key=value, such as training.epochs=20")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        field = _fields().get(key)
        if isinstance(value, bool | int | float | datetime.date) and field and field.annotation is str:
            value = text
        target = nested
        *groups, last = key.split(".")
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise UsageError(
                    f"--set {assignment}: another --set gives {group} the value {target!r}, expected settings in it; "
                    "remove one of the two"
                )
        target[last] = value
    return nested


def field_names() -> Iterator[tuple[str, str, Any]]:
    """Yields (dotted name, description, default) of every setting, in order."""
    for name, field in _fields().items():
        yield name, field.description or "", field.get_default(call_default_factory=True)


def values_by_name(config: RunConfig) -> dict[str, Any]:
    """Returns the value of every setting in JSON types, by its dotted name, in order."""
    values = config.model_dump(mode="json")
    return {name: functools.reduce(operator.getitem, name.split("."), values) for name in _fields()}


@functools.cache
def _fields() -> dict[str, FieldInfo]:
    return dict(_fields_of(RunConfig))


def _fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields the settings of a group and of the groups in it, by dotted name."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        # In Python 3.10, isinstance(tuple[int, int], type) is true, and issubclass fails on it.
        if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _fields_of(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _check_keys(values: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Rejects unknown keys, with the nearest valid one."""
    valid = _fields()
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in valid and "." in str(key):
            nested = ":\n".join(f"{'  ' * level}{part}" for level, part in enumerate(name.split(".")))
            raise UsageError(f"{source}: found {name} as one key, expected it inside its group:\n{nested}: {value}")
        inner = sorted(other for other in valid if other.startswith(name + "."))
        if isinstance(value, Mapping) and name not in valid:
            _check_keys(value, source, name + ".")
        elif inner:
            raise UsageError(f"{source}: {name} is a group; set one of {', '.join(inner)}")
        elif name not in valid:
            raise UsageError(f"{source}: unknown setting {name}; {_hint(name, valid)}")


def _hint(key: str, valid: Collection[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    if not near:
        by_last = {name.split(".")[-1]: name for name in valid}
        near = [by_last[last] for last in difflib.get_close_matches(key.split(".")[-1], by_last, n=1)]
    return f"did you mean {near[0]}?" if near else "`segpipe config` lists every setting."


def _merge(target: dict[str, Any], values: Mapping[str, Any], prefix: str = "") -> None:
    """Lays settings over others; merges groups, and replaces a setting that is a mapping as a whole."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in _fields():
            target[key] = dict(target.get(key, {}))
            _merge(target[key], value, f"{name}.")
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value
