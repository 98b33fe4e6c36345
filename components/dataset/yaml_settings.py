"""Reads YAML into a mapping and turns pydantic's findings into sentences a user can act on.

Each sentence names the file and the field, what was found, what was expected and the nearest valid key.
"""

from __future__ import annotations

import difflib
import types
import typing
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from components import yaml_loading
from components.errors import UsageError


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """Reads YAML text that holds a mapping. Raises UsageError naming the file and, if known, the line."""
    try:
        value = yaml_loading.load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{source}: found {_show(value)}; expected a mapping with keys such as classes and layout")
    return value


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """Returns one line for each finding of a validation, the file's name in front.

    Args:
        error: what pydantic raised.
        model: the settings class that was validated; its fields are the valid keys.
        source: the file's name.
    """
    findings = error.errors()
    places = [finding["loc"] for finding in findings]
    return "\n".join(
        f"{source}: {_sentence(finding, model)}"
        for finding in findings
        # Pydantic counts a list without the entries that it has just refused.
        if finding["type"] != "too_short" or not any(_is_inside(place, finding["loc"]) for place in places)
    )


def _is_inside(place: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _sentence(finding: Any, model: type[BaseModel]) -> str:
    location = finding["loc"]
    field = ".".join(str(part) for part in location if part != "[key]")
    kind = finding["type"]
    if kind == "extra_forbidden":
        return f"{field}: unknown key; {_nearest(str(location[-1]), _keys_at(model, location[:-1]))}"
    if kind == "missing":
        return f"{field}: missing; add it ({_keys_text(_keys_at(model, location[:-1]))})"
    message = finding["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{field}: {message} (found {_show(finding['input'])})" if field else message
    return f"{field}: found {_show(finding['input'])}; {message[0].lower()}{message[1:]}"


def _nearest(key: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}{_keys_text(valid)}"


def _keys_text(valid: list[str]) -> str:
    return f"valid keys: {', '.join(valid)}"


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Returns the field names of the settings class at a place inside another."""
    current: Any = model
    for part in location:
        if isinstance(part, str) and part in current.model_fields:
            current = _settings_class(current.model_fields[part].annotation) or current
    return list(current.model_fields)


def _settings_class(annotation: Any) -> type[BaseModel] | None:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return annotation
    for argument in typing.get_args(annotation):
        found = _settings_class(argument)
        if found:
            return found
    return None


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
