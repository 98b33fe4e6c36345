"""Validation errors name the file, the field, what was found, what was expected and the nearest valid word."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field, ValidationError

from components.settings import Settings
from components.validation import explain


class _Item(Settings):
    color: Literal["red", "green"] = "red"
    size: int = Field(1, ge=1)


class _Box(Settings):
    name: str
    items: tuple[_Item, ...] | None = None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": "a", "item": []}, "box.yaml: item: unknown key; did you mean items? valid keys: name, items"),
        ({}, "box.yaml: name: missing; add it (valid keys: name, items)"),
        (
            {"name": "a", "items": [{}, {"colour": "red"}]},
            "box.yaml: items.1.colour: unknown key; did you mean color? valid keys: color, size",
        ),
        (
            {"name": "a", "items": [{"size": 0}]},
            "box.yaml: items.0.size: found 0, input should be greater than or equal to 1",
        ),
        (
            {"name": "a", "items": [{"color": "gren"}]},
            "box.yaml: items.0.color: found 'gren', input should be 'red' or 'green'; did you mean green?",
        ),
    ],
)
def test_each_error_is_one_sentence(values, expected):
    with pytest.raises(ValidationError) as raised:
        _Box.model_validate(values)

    assert explain(raised.value, _Box, "box.yaml") == expected


def test_several_errors_are_lines_and_long_values_are_shortened():
    with pytest.raises(ValidationError) as raised:
        _Box.model_validate({"name": ["x" * 200], "items": [{"size": 0}]})

    name, size = explain(raised.value, _Box).splitlines()
    assert name.startswith("name: found ['xxx")
    assert "..., input should be a valid string" in name
    assert len(name) < 130
    assert size.startswith("items.0.size: ")
