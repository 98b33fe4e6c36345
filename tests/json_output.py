"""Checks the form of machine-readable output: keys in snake_case, and times as ISO 8601 in UTC."""

import re
from collections.abc import Collection
from typing import Any


def check_form(value: Any, keyed_by_name: Collection[str] = (), holder: str = "") -> None:
    """Asserts that every key below a value is snake_case and every time is in UTC.

    `keyed_by_name` are the objects whose keys are names from the data, the code or the user.
    """
    if isinstance(value, list):
        for member in value:
            check_form(member, keyed_by_name, holder)
    elif isinstance(value, dict):
        for key, member in value.items():
            assert holder in keyed_by_name or re.fullmatch(r"[a-z][a-z0-9_]*", key), (holder, key)
            check_form(member, keyed_by_name, key)
    elif isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value), (holder, value)
