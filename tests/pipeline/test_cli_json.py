"""The output of --json: keys in snake_case, and times as ISO 8601 in UTC."""

import json

import pytest
import typer
from json_output import check_form
from test_upgrade import _RUN, work  # noqa: F401
from typer.testing import CliRunner

from components.errors import EXIT_DRIFTED
from pipeline.cli.main import app

# Objects whose keys are names from the data, the code or the user.
_KEYED_BY_NAME = {
    "change_intervals",
    "code_hashes",
    "intervals",
    "kept",
    "libraries",
    "metrics",
    "sequences",
    "sizes",
    "splits",
}
_MODEL = "{work}/serving/unet"
_COMMANDS = [
    ("runs", "--out", "{work}"),
    ("show", "--out", "{work}"),
    ("compare", _RUN, _RUN, "--out", "{work}"),
    ("gc", "--dry-run", "--out", "{work}"),
    ("data check", "{data}"),
    ("config", "--preset", "smoke"),
    ("doctor",),
    ("evaluate", "--model", _MODEL, "--data", "{data}", "--against", _MODEL),
    ("predict", "{data}/val", "--model", _MODEL, "--boxes", "road", "--out", "{work}/predictions"),
    ("watch", "{data}", "--out", "{work}", "--at-least", "2"),
]
# They need a server: their own tests check the form.
_ELSEWHERE = {"kubeflow list", "release status"}


@pytest.mark.parametrize("words", _COMMANDS, ids=lambda words: words[0])
def test_keys_are_snake_case_and_times_are_in_utc(work, words):  # noqa: F811
    command, *options = (word.format(work=work, data=work.parent / "data") for word in words)

    done = CliRunner().invoke(app, [*command.split(), *options, "--json"], catch_exceptions=False)

    assert done.exit_code in (0, EXIT_DRIFTED), done.output
    check_form(json.loads(done.stdout), _KEYED_BY_NAME)


def test_every_command_with_json_is_checked():
    assert set(_with_json(typer.main.get_command(app))) == {words[0] for words in _COMMANDS} | _ELSEWHERE


def _with_json(command, name=""):
    """Yields the names of the commands that have the option --json."""
    if hasattr(command, "commands"):
        for key, inner in command.commands.items():
            yield from _with_json(inner, f"{name} {key}".strip())
    elif any("--json" in parameter.opts for parameter in command.params):
        yield name
