"""Generates docs/commands.md and docs/settings.md from the code; run by `make reference`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline.cli.main import app
from pipeline.configuration.loading import field_names

_NOTE = "<!-- Written by `make reference`. -->"


def settings() -> str:
    """Returns the page of settings, in Markdown."""
    lines = [
        "# Settings",
        _NOTE,
        "Set one by `--set NAME=VALUE`, or several in a YAML file for `--config`. The defaults are those without a"
        " preset; `segpipe config --preset NAME --model NAME` lists a preset's.",
    ]
    group = None
    for name, description, default in field_names():
        if (found := name.rpartition(".")[0]) != group:
            group = found
            lines += [f"## {group or 'A run'}", "| setting | default | meaning |\n|---|---|---|"]
        value = dict(default) if hasattr(default, "items") else default
        lines[-1] += f"\n| `{name}` | `{json.dumps(value)}` | {description} |"
    return "\n\n".join(lines) + "\n"


def commands() -> str:
    """Returns the page of commands, in Markdown."""
    return "\n\n".join(["# Commands", _NOTE, *_command("segpipe", typer.main.get_command(app))]) + "\n"


def _command(name: str, command: TyperCommand | TyperGroup) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for child in command.commands.values():
            yield from _command(f"{name} {child.name}", child)  # type: ignore[arg-type]
        return
    shown = [each for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
    names = {each.name: _name(each) for each in shown}
    arguments = " ".join(
        names[each.name] if each.required else f"[{names[each.name]}]"
        for each in shown
        if not each.opts[0].startswith("-")
    )
    yield f"## {name}"
    yield "\n\n".join(_text(paragraph) for paragraph in (command.help or "").split("\n\n"))
    yield f"```text\n{name} [OPTIONS] {arguments}".rstrip() + "\n```"
    rows = [f"| `{names[each.name]}` | {_default(each)} | {_text(each.help or '')} |" for each in shown]
    yield "\n".join(["| argument or option | default | meaning |", "|---|---|---|", *rows])


def _name(parameter: Any) -> str:
    """Returns the spelling of a parameter on the command line."""
    if not parameter.opts[0].startswith("-"):
        return parameter.metavar or parameter.name.upper()
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return f"{names} {parameter.metavar}" if parameter.metavar else names


def _default(parameter: Any) -> str:
    """Returns the default value, or the text that `--help` shows for it."""
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    value = getattr(parameter.default, "value", parameter.default)
    missing = value is None or value is False or value in ([], (), "") or callable(value)
    return "" if missing else f"`{value}`"


def _text(text: str) -> str:
    """Returns a help text as one line of Markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    docs = Path(__file__).parent.parent / "docs"
    (docs / "settings.md").write_text(settings(), encoding="utf-8")
    (docs / "commands.md").write_text(commands(), encoding="utf-8")
