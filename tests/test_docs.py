"""The documentation agrees with the code."""

import json
import re
from pathlib import Path

import pytest
import yaml

from components.dataset.description import parse
from pipeline.config import field_names, load_config

_ROOT = Path(__file__).parent.parent
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]


def _blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def test_the_reference_lists_every_setting_with_its_default_and_meaning():
    text = (_ROOT / "docs" / "reference.md").read_text()

    for name, description, default in field_names():
        value = dict(default) if hasattr(default, "items") else default
        assert f"| `{name}` | `{json.dumps(value)}` | {description} |" in text


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_yaml_example_is_valid():
    for page in _PAGES:
        for block in _blocks(page, "yaml"):
            settings = yaml.safe_load(block)
            if "classes" in settings:
                assert parse(block, page.name).class_map.num_classes >= 2
            else:
                load_config([(page.name, settings)])


def test_every_command_of_the_examples_exists():
    from pipeline.cli.main import app

    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    for page in _PAGES:
        for block in _blocks(page, "sh"):
            for command in re.findall(r"segpipe ([a-z]+)", block):
                assert command in names
