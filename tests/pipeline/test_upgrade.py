"""This version continues the work directory of an older one: see tests/pipeline/old_work_directory."""

from __future__ import annotations

import json
import pathlib
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing

import pytest
from typer.testing import CliRunner

from components.dataset import synthetic
from components.errors import UsageError
from components.pusher.withdrawn import read_withdrawn
from pipeline.cli.main import app
from pipeline.configuration.loading import load_config, read_config_file
from pipeline.running.run import run_pipeline

_PACKED = pathlib.Path(__file__).parent / "old_work_directory" / "work.tar.xz"
_RUN, _VERSION = "20261127-194015-unet", 1795808545
_TEXT_COLUMNS = (("Artifact", "uri"), ("ArtifactProperty", "string_value"), ("ExecutionProperty", "string_value"))


@pytest.fixture
def work(tmp_path) -> pathlib.Path:
    """The old work directory, beside the data set of its run, with its paths rewritten."""
    with tarfile.open(_PACKED) as packed:
        packed.extractall(tmp_path)
    work = tmp_path / "work"
    for path in work.rglob("*"):
        if path.suffix in (".json", ".yaml", ".html"):
            path.write_text(path.read_text().replace("/old/", f"{tmp_path}/"))
    with closing(sqlite3.connect(work / "metadata.sqlite")) as metadata, metadata:
        for table, column in _TEXT_COLUMNS:
            metadata.execute(f"UPDATE {table} SET {column} = replace({column}, '/old/', ?)", [f"{tmp_path}/"])
    synthetic.make(str(tmp_path / "data"), pairs={"train": 4, "val": 2}, size=(32, 48))
    return work


def _segpipe(*words):
    """Returns what a command prints as JSON."""
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def _settings(work):
    return str(work / "runs" / _RUN / "config.yaml")


def test_its_runs_are_listed_and_shown(work):
    (listed,) = _segpipe("runs", "--out", str(work))
    shown = _segpipe("show", "--out", str(work))

    assert (listed["run_id"], listed["state"], listed["gate"]) == (_RUN, "finished", "blessed")
    assert (listed["project"], listed["version"]) == ("segpipe", _VERSION)
    assert [state["state"] for state in listed["served"]] == ["latest"]
    assert shown["report"] == str(work / "runs" / _RUN / "report.html")
    assert "Trainer" in {node["name"] for node in shown["components"]}


def test_its_settings_are_known(work):
    config = load_config([("config.yaml", read_config_file(_settings(work)))])

    assert (config.model.name, config.model.base_filters, config.size) == ("unet", 4, (32, 48))


def test_its_served_model_predicts(work, tmp_path):
    image = next((tmp_path / "data").rglob("val/*.png"))
    out = tmp_path / "predictions"

    done = CliRunner().invoke(
        app,
        ["predict", str(image), "--model", str(work / "serving" / "unet"), "--out", str(out)],
        catch_exceptions=False,
    )

    assert done.exit_code == 0
    assert list(out.iterdir())


def test_its_version_can_be_withdrawn(work):
    base = str(work / "serving" / "unet")

    done = CliRunner().invoke(app, ["release", "withdraw", str(_VERSION), "--why", "flickers", "--versions", base])

    assert done.exit_code == 0
    assert read_withdrawn(base)[_VERSION].model
    (listed,) = _segpipe("runs", "--out", str(work))
    assert [(state["state"], state["why"]) for state in listed["served"]] == [
        ("latest", None),
        ("withdrawn", "flickers"),
    ]


def test_gc_removes_nothing_of_its_only_run(work):
    before = sorted(work.rglob("*"))

    assert _segpipe("gc", "--out", str(work))["items"] == []

    assert set(before) <= set(work.rglob("*"))


def test_a_run_names_the_new_name_of_the_served_model(work):
    config = load_config([("config.yaml", read_config_file(_settings(work)))])

    with pytest.raises(UsageError, match="Set serving_name=unet to keep that name"):
        run_pipeline(config, str(work))


@pytest.mark.slow
def test_a_run_continues_from_it(work):
    words = ["run", "--config", _settings(work), "--data", str(work.parent / "data"), "--out", str(work)]
    words += ["--set", "serving_name=unet"]

    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", *words], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    shown = _segpipe("show", "--out", str(work))
    assert shown["run_id"] != _RUN
    assert (shown["baseline"]["run_id"], shown["baseline"]["version"]) == (_RUN, _VERSION)
    assert shown["predecessor"]["version"] == _VERSION
    assert shown["version"] > _VERSION
