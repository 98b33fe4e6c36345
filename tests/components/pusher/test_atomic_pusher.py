"""The Pusher's executor on real artifacts."""

from __future__ import annotations

import os
import pathlib

import pytest
from tfx import v1 as tfx
from tfx.types.standard_artifacts import Model, ModelBlessing, PushedModel

from components.pusher.component import AtomicPusher
from components.pusher.executor import AtomicPusherExecutor
from components.pusher.withdrawn import withdraw

FILES = {
    "saved_model.pb": "graph",
    "fingerprint.pb": "fingerprint",
    "variables/variables.index": "index",
    "assets/segpipe.json": "{}",
}


@pytest.fixture
def saved_model(tmp_path) -> pathlib.Path:
    directory = tmp_path / "model" / "Format-Serving"
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    return directory


def execute(saved_model: pathlib.Path, base: pathlib.Path, blessed: int) -> PushedModel:
    model, blessing, pushed = Model(), ModelBlessing(), PushedModel()
    model.uri, blessing.uri, pushed.uri = str(saved_model.parent), str(base) + "-blessing", str(base) + "-pushed"
    blessing.set_int_custom_property("blessed", blessed)
    component = AtomicPusher(tfx.dsl.Channel(type=Model), tfx.dsl.Channel(type=ModelBlessing), base_directory=str(base))
    AtomicPusherExecutor().Do(
        {"model": [model], "model_blessing": [blessing]}, {"pushed_model": [pushed]}, component.exec_properties
    )
    return pushed


def content(directory: str | pathlib.Path) -> dict[str, str]:
    root = pathlib.Path(directory)
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_blessed_model_is_pushed_completely(tmp_path, saved_model):
    base = tmp_path / "serving"

    pushed = execute(saved_model, base, blessed=1)

    (version,) = (entry for entry in base.iterdir() if entry.name.isdigit())
    assert content(version) == content(pushed.uri) == FILES
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_destination") == str(version)
    assert pushed.get_string_custom_property("pushed_version") == version.name


def test_a_model_that_is_not_blessed_is_not_pushed(tmp_path, saved_model):
    base = tmp_path / "serving"

    pushed = execute(saved_model, base, blessed=0)

    assert pushed.get_int_custom_property("pushed") == 0
    assert not base.exists()
    assert not os.path.exists(pushed.uri)


def test_a_second_push_keeps_the_first_version(tmp_path, saved_model):
    base = tmp_path / "serving"

    first = execute(saved_model, base, blessed=1).get_string_custom_property("pushed_version")
    (saved_model / "saved_model.pb").write_text("another graph")
    second = execute(saved_model, base, blessed=1).get_string_custom_property("pushed_version")

    assert int(second) > int(first)
    assert content(base / first) == FILES
    assert content(base / second) == {**FILES, "saved_model.pb": "another graph"}


def test_a_model_equal_to_the_newest_version_is_not_pushed_again(tmp_path, saved_model):
    base = tmp_path / "serving"
    first = execute(saved_model, base, blessed=1)
    # The scores of another evaluation.
    (saved_model / "assets" / "segpipe.json").write_text('{"metrics": {}}')

    again = execute(saved_model, base, blessed=1)

    assert [entry.name for entry in base.iterdir() if entry.name.isdigit()] == [
        first.get_string_custom_property("pushed_version")
    ]
    assert again.get_int_custom_property("pushed") == 1
    for name in ("pushed_destination", "pushed_version"):
        assert again.get_string_custom_property(name) == first.get_string_custom_property(name)


def test_a_model_that_was_withdrawn_is_not_pushed_again(tmp_path, saved_model):
    base = tmp_path / "serving"
    first = execute(saved_model, base, blessed=1).get_string_custom_property("pushed_version")
    withdraw(str(base), int(first), "flickers")

    again = execute(saved_model, base, blessed=1)
    (saved_model / "saved_model.pb").write_text("another graph")
    other = execute(saved_model, base, blessed=1)

    assert again.get_int_custom_property("pushed") == 0
    assert again.get_int_custom_property("withdrawn") == int(first)
    assert other.get_int_custom_property("pushed") == 1


def test_the_node_is_called_pusher():
    component = AtomicPusher(tfx.dsl.Channel(type=Model), tfx.dsl.Channel(type=ModelBlessing), base_directory="/x")
    assert component.id == "Pusher"
