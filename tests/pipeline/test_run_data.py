"""A run lists its data folder once, on Kubeflow too, where each task is a process of its own."""

from __future__ import annotations

import json
import shutil

import pytest
from recorded_runs import Recorder
from typer.testing import CliRunner

from components import files
from components.dataset.data_files import data_files
from components.dataset.description import built_in, detect
from pipeline.cli.main import app
from pipeline.kubeflow import node
from pipeline.kubeflow.parameters import RUN_ID, defaults
from pipeline.running import run


@pytest.fixture
def listings(monkeypatch):
    """The folders that were listed."""
    folders = []
    original = files.checksums
    monkeypatch.setattr(files, "checksums", lambda root: (folders.append(root), original(root))[1])
    return folders


@pytest.mark.parametrize(("options", "expected"), [([], 1), (["--wait"], 2)])
def test_a_run_lists_its_data_once_and_again_if_it_waited(
    street_scenes, tmp_path, monkeypatch, listings, options, expected
):
    # As ExampleGen's driver does; tests/components/example_gen runs the real one.
    monkeypatch.setattr(run, "_run", lambda config, *_: bool(data_files(config.data.dir)))

    result = CliRunner().invoke(app, ["run", "--data", street_scenes, "--out", str(tmp_path / "work"), *options])

    assert result.exit_code == 0, result.output
    assert listings == [street_scenes] * expected


@pytest.fixture
def launched(monkeypatch):
    """What tasks launched: the configuration and the description of the data."""
    found = []
    monkeypatch.setattr(node, "_launch", lambda name, config, description, *_: found.append((config.data, description)))
    return found


def _task(settings, data):
    """Runs a task of the run `r` and returns its exit code."""
    values = {**defaults(data, "unet", "smoke", None, None), RUN_ID: "r"}
    layers, given = [["test", settings]], {"inputs": {"parameterValues": values}}
    words = ["--task", "Trainer", "--configuration", json.dumps(layers), "--executor-input", json.dumps(given)]
    return node.main(words)


def _record(root, data, description, **gate):
    """Records what ExampleGen and its gate found in a run, as the first task does."""
    recorder = Recorder(f"{root}/metadata.sqlite")
    recorder.node("r", "ImageMaskExampleGen", properties={"input_base": data, "description": description.to_json()})
    if gate:
        recorder.node("r", "QuarantineGate", **gate)


def test_only_the_first_task_lists_the_folder(tmp_path, street_scenes, launched, listings):
    spans, root = tmp_path / "spans", tmp_path / "new" / "work"
    shutil.copytree(street_scenes, spans / "span-3")
    data = f"{spans}/span-{{span}}"
    settings = {"kubeflow": {"root": str(root)}, "data": {"held_out_sequences": ["Synth2"]}}

    assert _task(settings, data) == 0
    ((first, description),) = launched
    assert (first.dir, first.gate_split) == (f"{spans}/span-3", "held_out")
    assert listings == [f"{spans}/span-3"]

    # A newer span arrives, and that of the run becomes a folder that nothing would recognise.
    _record(root, first.dir, description, properties={"gate_split": "held_out"})
    (spans / "span-4").mkdir()
    shutil.rmtree(spans / "span-3" / "train")
    assert _task(settings, data) == 0
    assert launched[1] == (first, description)
    assert listings == [f"{spans}/span-3"]


@pytest.mark.parametrize("gate", [{}, {"state": "failed", "properties": {"gate_split": "test"}}])
def test_the_retry_of_the_first_task_lists_the_folder_again(tmp_path, street_scenes, launched, listings, gate):
    root = tmp_path / "work"
    root.mkdir()
    _record(root, street_scenes, built_in("camvid_original"), **gate)

    assert _task({"kubeflow": {"root": str(root)}}, street_scenes) == 0

    ((data, description),) = launched
    assert (data.gate_split, description) == ("val", detect(street_scenes).without_instances().without_depth())


def test_all_tasks_of_a_run_read_the_same_span(tmp_path, street_scenes, launched):
    shutil.copytree(street_scenes, tmp_path / "span-3")
    (tmp_path / "span-4").mkdir()
    root = tmp_path / "work"
    root.mkdir()
    _record(root, f"{tmp_path}/span-3", detect(street_scenes))

    assert _task({"kubeflow": {"root": str(root)}}, f"{tmp_path}/span-{{span}}") == 0

    assert launched[0][0].dir == f"{tmp_path}/span-3"
