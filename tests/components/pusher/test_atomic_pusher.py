"""The Pusher's executor on real artifacts, locally and on a store without renaming."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
from tfx import v1 as tfx
from tfx.dsl.io import filesystem_registry
from tfx.dsl.io.plugins.local import LocalFilesystem
from tfx.types.standard_artifacts import Model, ModelBlessing, PushedModel

from components.pusher.component import AtomicPusher
from components.pusher.executor import AtomicPusherExecutor, push

FILES = {
    "saved_model.pb": "graph",
    "fingerprint.pb": "fingerprint",
    "variables/variables.index": "index",
    "assets/segpipe.json": "{}",
    # Named nearly like the file that is held back on an object store.
    "assets/not_saved_model.pb": "asset",
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


def test_a_blessed_model_is_pushed_whole(tmp_path, saved_model):
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
    second = execute(saved_model, base, blessed=1).get_string_custom_property("pushed_version")

    assert int(second) > int(first)
    assert content(base / first) == content(base / second) == FILES


def test_the_node_is_called_pusher():
    component = AtomicPusher(tfx.dsl.Channel(type=Model), tfx.dsl.Channel(type=ModelBlessing), base_directory="/x")
    assert component.id == "Pusher"


class Bucket(LocalFilesystem):
    """An object store as TFX sees one: paths with a scheme, every write noted, no renaming."""

    SUPPORTED_SCHEMES = ("bucket://",)
    root = ""
    written: list[str] = []  # noqa: RUF012
    fails_after = 1000

    @classmethod
    def local(cls, path: str) -> str:
        return str(path).replace("bucket://", cls.root + "/")

    @classmethod
    def note(cls, path: str) -> None:
        if len(cls.written) >= cls.fails_after:
            raise OSError("connection lost")
        cls.written.append(path.rpartition("bucket://")[2])

    @staticmethod
    def open(name, mode="r"):
        if "w" in mode:
            Bucket.note(name)
        return open(Bucket.local(name), mode)

    @staticmethod
    def exists(path):
        return os.path.exists(Bucket.local(path))

    @staticmethod
    def isdir(path):
        return os.path.isdir(Bucket.local(path))

    @staticmethod
    def listdir(path):
        return os.listdir(Bucket.local(path))

    @staticmethod
    def makedirs(path):
        os.makedirs(Bucket.local(path), exist_ok=True)

    @staticmethod
    def rmtree(path):
        shutil.rmtree(Bucket.local(path))

    @staticmethod
    def rename(src, dst, overwrite=False):
        raise AssertionError("an object store cannot rename a folder in one step")


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> type[Bucket]:
    monkeypatch.setattr(Bucket, "root", str(tmp_path / "bucket"))
    monkeypatch.setattr(Bucket, "written", [])
    filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(Bucket, priority=0)
    return Bucket


def test_on_an_object_store_the_saved_model_is_written_last(bucket, saved_model):
    directory, number = push(str(saved_model), "bucket://serving")

    assert directory == f"bucket://serving/{number}"
    assert content(bucket.local(directory)) == FILES
    assert bucket.written[-1] == f"serving/{number}/saved_model.pb"


def test_on_an_object_store_a_broken_push_leaves_no_saved_model_and_the_next_succeeds(bucket, saved_model, monkeypatch):
    monkeypatch.setattr(bucket, "fails_after", 2)
    with pytest.raises(OSError, match="connection lost"):
        push(str(saved_model), "bucket://serving")
    (broken,) = bucket.listdir("bucket://serving")
    assert not bucket.exists(f"bucket://serving/{broken}/saved_model.pb")

    monkeypatch.setattr(bucket, "fails_after", 1000)
    directory, number = push(str(saved_model), "bucket://serving")

    assert number > int(broken)
    assert content(bucket.local(directory)) == FILES
