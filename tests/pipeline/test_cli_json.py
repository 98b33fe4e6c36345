"""The output of --json: keys in snake_case, and times as ISO 8601 in UTC."""

import json
import re

import pytest
from test_upgrade import _RUN, work  # noqa: F401
from typer.testing import CliRunner

from pipeline.cli.main import app

# Objects whose keys are names from the data, the code or the user.
_KEYED_BY_NAME = {"code_hashes", "kept", "metrics", "sequences", "sizes", "splits"}


def _members(value, key=""):
    """Yields every key and every text below a value, each with the key of the object that holds it."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield key, name, member
            yield from _members(member, name)
    elif isinstance(value, list):
        for member in value:
            yield from _members(member, key)


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "--out", "{work}"),
        ("show", "--out", "{work}"),
        ("compare", _RUN, _RUN, "--out", "{work}"),
        ("gc", "--dry-run", "--out", "{work}"),
        ("data", "check", "{work}/../data"),
        ("config", "--preset", "smoke"),
    ],
    ids=lambda words: words[0],
)
def test_keys_are_snake_case_and_times_are_in_utc(work, words):  # noqa: F811
    done = CliRunner().invoke(app, [*(word.format(work=work) for word in words), "--json"], catch_exceptions=False)

    assert done.exit_code == 0, done.output
    for holder, key, member in _members(json.loads(done.stdout)):
        assert holder in _KEYED_BY_NAME or re.fullmatch(r"[a-z][a-z0-9_]*", key), (holder, key)
        if isinstance(member, str) and re.match(r"\d{4}-\d\d-\d\d", member):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", member), (key, member)
