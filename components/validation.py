"""Turns pydantic's validation errors into sentences: field, value found, what was expected, nearest valid key."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], source: str = "") -> str:
    """Returns one line for each validation error.

    Args:
        error: what pydantic raised.
        model: the class that was validated; its fields are the valid keys.
        source: the file's name, which begins each line.
    """
    details = error.errors()
    places = [item["loc"] for item in details]
    lines = []
    for item in details:
        place = item["loc"]
        # Pydantic counts a list without the entries that it has just refused.
        if item["type"] == "too_short" and any(other[: len(place)] == place != other for other in places):
            continue
        # Pydantic appends "[key]" if a key is wrong and not its value.
        field = ".".join(str(part) for part in place if part != "[key]")
        lines.append(": ".join(filter(None, (source, field, _sentence(item, model)))))
    return "\n".join(lines)


def _sentence(item: Any, model: type[BaseModel]) -> str:
    if item["type"] in ("extra_forbidden", "missing"):
        *outer, key = item["loc"]
        valid = _keys_at(model, outer)
        if item["type"] == "missing":
            return f"missing; add it (valid keys: {', '.join(valid)})"
        return f"unknown key; {_nearest(key, valid, cutoff=0.5)}valid keys: {', '.join(valid)}"
    found, message = item["input"], item["msg"].removeprefix("Value error, ")
    if item["type"] == "literal_error":
        near = _nearest(found, re.findall(r"'([^']+)'", item["ctx"]["expected"])).rstrip()
        message += f"; {near}" if near else ""
    shown = "" if isinstance(found, dict) else f"found {_shorten(repr(found))}, "
    return f"{shown}{message[0].lower()}{message[1:]}"


def _nearest(word: Any, valid: Iterable[str], cutoff: float = 0.6) -> str:
    near = difflib.get_close_matches(str(word), list(valid), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}? " if near else ""


def _keys_at(model: type[BaseModel], place: Iterable[str | int]) -> list[str]:
    """Returns the field names of the class at a place inside another."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    return list(model.model_fields)


def _models(annotation: Any) -> typing.Iterator[type[BaseModel]]:
    """Yields the pydantic classes in an annotation such as `tuple[ClassDescription, ...] | None`."""
    arguments = typing.get_args(annotation)
    if not arguments and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in arguments:
        yield from _models(argument)


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
