"""The documentation agrees with the code."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from components.dataset.description import parse
from pipeline.configuration.loading import load_config

_ROOT = Path(__file__).parent.parent
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]


def _blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def _headings(page):
    """Returns the link anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["commands", "settings"])
def test_the_reference_page_is_up_to_date(page):
    written = runpy.run_path(str(_ROOT / "scripts" / "reference.py"))

    assert (_ROOT / "docs" / f"{page}.md").read_text() == written[page]()


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_or_a_heading_has_a_target(page):
    for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not heading or heading in _headings(target), f"{path}#{heading}"


def test_every_yaml_example_is_valid():
    for page in _PAGES:
        for block in _blocks(page, "yaml"):
            settings = yaml.safe_load(block)
            if "classes" in settings:
                assert parse(block, page.name).class_map.num_classes >= 2
            else:
                load_config([(page.name, settings)])


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_command_and_option_of_the_examples_exists(page):
    from pipeline.cli.main import app

    for block in _blocks(page, "sh"):
        for line in re.findall(r"segpipe ([a-z].*)", block.replace("\\\n", " ")):
            command, words = typer.main.get_command(app), shlex.split(line, comments=True)
            # In a shell function, "$@" stands for the rest of the command.
            while isinstance(command, TyperGroup) and words[0] != "$@":
                assert words[0] in command.commands, line
                command = command.commands[words.pop(0)]
            options = {option for parameter in command.params for option in parameter.opts}
            named = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert isinstance(command, TyperGroup) or named <= options, line
