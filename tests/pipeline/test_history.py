"""What is known of runs: one under way is not called interrupted, and names are printed as they are."""

import os

import pytest
from typer.testing import CliRunner

from pipeline import history
from pipeline.cli.main import app
from pipeline.store import NodeExecution
from pipeline.workdir import Workdir

_OLD, _NEW = "20260101-000000-fcn8", "20260102-000000-fcn8"


def _executions(**states):
    return [NodeExecution(0, node, state, 0, 0, {}, {}, {}) for node, state in states.items()]


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Two runs whose Trainer has begun and not ended, as the metadata has them."""
    workdir = Workdir(str(tmp_path / "work"))
    runs = {run_id: _executions(SchemaGen="ran", Trainer="interrupted") for run_id in (_OLD, _NEW)}
    for run_id in runs:
        os.makedirs(workdir.run(run_id))

    class Store:
        def __init__(self, path):
            self.run_ids, self.executions = lambda: list(runs), runs.__getitem__

    monkeypatch.setattr(history, "Store", Store)
    return workdir


def _states(workdir):
    components = history.describe_run(workdir, _NEW)["components"]
    return [run["state"] for run in history.describe_runs(workdir)], [node["state"] for node in components]


def test_the_run_that_holds_the_work_directory_is_running(workdir):
    with workdir.lock(wait=False):
        assert _states(workdir) == (["interrupted in Trainer", "running in Trainer"], ["ran", "running"])


def test_without_a_process_runs_were_interrupted(workdir):
    assert _states(workdir) == (["interrupted in Trainer"] * 2, ["ran", "interrupted"])


def test_a_run_between_two_components_is_running(workdir):
    store = history.Store(workdir.metadata)
    store.executions(_NEW).pop()

    with workdir.lock(wait=False):
        assert _states(workdir) == (["interrupted in Trainer", "running"], ["ran"])


def test_a_work_directory_that_may_only_be_read_is_described(workdir):
    os.makedirs(os.path.join(workdir.root, ".lock"))

    assert _states(workdir)[0] == ["interrupted in Trainer"] * 2


@pytest.mark.parametrize("command", [["show", "odd"], ["runs"]])
def test_names_with_brackets_are_printed_as_they_are(monkeypatch, command):
    names = ("run_id", "state", "gate", "mean_iou", "mean_dice", "pushed", "data_hash", "code_hashes", "report")
    run = {
        **dict.fromkeys(names),
        "components": [],
        "run_id": "odd[left]",
        "state": "",
        "gate": "",
        "pushed": "/w[/x]/2",
    }
    monkeypatch.setattr(history, "describe_run", lambda *_: run)
    monkeypatch.setattr(history, "describe_runs", lambda *_: [run])

    printed = CliRunner().invoke(app, command)

    assert printed.exception is None
    assert "odd[left]" in printed.output
    assert command == ["runs"] or "/w[/x]/2" in printed.output
