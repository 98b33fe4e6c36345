"""Descriptions of runs: their state, how their versions are served, their baselines and predecessors."""

import json
import os
import re

import pytest
from recorded_runs import Recorder
from typer.testing import CliRunner

from components.errors import ReleaseError, UsageError
from pipeline.cli.main import app
from pipeline.history import runs as history
from pipeline.history.served import ServedModels
from pipeline.storage.workdir import Workdir
from serving.release.states import served_by_file

_OLD, _NEW = "20260101-000000-fcn8", "20260102-000000-fcn8"
_MOVED = "2026-11-27T11:00:00Z"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def workdir(tmp_path):
    """Two runs whose Trainer started and did not end, according to the metadata."""
    workdir = Workdir(str(tmp_path / "work"))
    for run_id in (_OLD, _NEW):
        os.makedirs(workdir.run(run_id))
        recorder = Recorder(workdir.metadata)
        recorder.node(run_id, "SchemaGen")
        recorder.node(run_id, "Trainer", "running")
    return workdir


@pytest.fixture
def pushed(tmp_path):
    """Three runs that pushed versions 1790000001 to 1790000003, the first one removed."""
    workdir = Workdir(str(tmp_path / "work"))
    os.makedirs(workdir.root)
    recorder, before = Recorder(workdir.metadata), None
    for number in (1, 2, 3):
        run_id, version = f"run-{number}", tmp_path / "work" / "serving" / "street" / f"179000000{number}"
        model = recorder.train(run_id)
        blessing = recorder.artifact("ModelBlessing", blessed=1)
        inputs = {"model": model, **({"baseline_model": before} if before else {})}
        recorder.node(run_id, "Evaluator", inputs=inputs, outputs={"blessing": blessing})
        recorder.push(run_id, model, version)
        recorder.node(run_id, "Report", outputs={"report": recorder.artifact("Report", mean_iou=0.5 + number / 10)})
        os.makedirs(workdir.run(run_id))
        (tmp_path / "work" / "runs" / run_id / "report.html").touch()
        if number > 1:
            version.mkdir(parents=True)
        before = model
    return workdir


def _states(workdir):
    components = history.describe_run(workdir, _NEW)["components"]
    return [run["state"] for run in history.describe_runs(workdir)], [node["state"] for node in components]


def _served(workdir, served=None):
    """Returns the states of each run's version as text."""
    runs = history.describe_runs(workdir, served)
    return [", ".join(state["state"] for state in run["served"]) for run in runs]


def _withdraw(workdir, version, why="flickers"):
    record = {version: {"why": why, "when": "2026-11-27T12:00:00+01:00"}}
    with open(os.path.join(workdir.root, "serving", "street", "withdrawn.json"), "w") as file:
        json.dump(record, file)


def _config_file(tmp_path, **fields):
    labels = "".join(
        f'version_labels {{ key: "{key}" value: {value} }} ' for key, value in fields.pop("labels").items()
    )
    versions = " ".join(f"versions: {version}" for version in fields.get("versions", ()))
    policy = f"model_version_policy {{ specific {{ {versions} }} }}" if versions else ""
    path = tmp_path / "models.config"
    name = fields.get("name", "street")
    path.write_text(f'model_config_list {{ config {{ name: "{name}" base_path: "/models/x" {policy} {labels} }} }}')
    os.utime(path, (1_790_000_100, 1_790_000_100))
    return str(path)


def test_the_run_that_holds_the_work_directory_is_running(workdir):
    with workdir.lock(wait=False):
        assert _states(workdir) == (["interrupted in Trainer", "running in Trainer"], ["ran", "running"])


def test_without_a_process_runs_were_interrupted(workdir):
    assert _states(workdir) == (["interrupted in Trainer"] * 2, ["ran", "interrupted"])


def test_a_run_between_two_components_is_running(workdir):
    between = "20260103-000000-fcn8"
    os.makedirs(workdir.run(between))
    Recorder(workdir.metadata).node(between, "SchemaGen")

    with workdir.lock(wait=False):
        assert history.describe_run(workdir, between)["state"] == "running"


def test_a_work_directory_that_may_only_be_read_is_described(workdir):
    os.makedirs(os.path.join(workdir.root, ".lock"))

    assert _states(workdir)[0] == ["interrupted in Trainer"] * 2


@pytest.mark.parametrize("command", [["show", "odd[left]"], ["runs"]])
def test_names_with_brackets_are_printed_as_they_are(tmp_path, command):
    recorder = Recorder(tmp_path / "metadata.sqlite")
    recorder.push("odd[left]", recorder.artifact("Model"), "/w[/x]/2")

    printed = CliRunner().invoke(app, [*command, "--out", str(tmp_path)])

    assert printed.exception is None
    assert "odd[left]" in printed.output
    assert command == ["runs"] or "/w[/x]/2" in printed.output


def test_times_are_iso_8601_in_utc(pushed):
    (run, *_) = history.describe_runs(pushed)

    assert _TIME.fullmatch(run["started"])
    assert history.describe_runs(pushed)[2]["served"][0]["since"] == "2026-09-21T14:13:23Z"


def test_runs_are_listed_by_project(pushed):
    Recorder(pushed.metadata).node("harbour-1", "SchemaGen", project="harbour")

    every = CliRunner().invoke(app, ["runs", "--out", pushed.root]).output
    one = CliRunner().invoke(app, ["runs", "--out", pushed.root, "--project", "harbour"]).output

    assert "project" in every
    assert "project" not in one
    assert "harbour-1" in one
    assert "run-1" not in one
    with pytest.raises(UsageError, match="--project x: not found, expected one of: harbour, segpipe"):
        history.describe_runs(pushed, project="x")


def test_without_labels_the_newest_version_is_served(pushed):
    assert _served(pushed) == ["removed", "", "latest"]


def test_a_withdrawn_version_says_since_when_and_why(pushed):
    _withdraw(pushed, "1790000003")

    (latest, withdrawn) = history.describe_runs(pushed)[2]["served"]
    shown = CliRunner().invoke(app, ["show", "run-3", "--out", pushed.root]).output

    assert latest["state"] == "latest"
    assert withdrawn == {"state": "withdrawn", "since": "2026-11-27T11:00:00Z", "why": "flickers", "by": None}
    assert "withdrawn since 2026-11-27 11:00 UTC (flickers)" in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "the file: found Invalid JSON"), ('{"3": {"why": "x"}}', r"3\.when: found Field required")],
)
def test_a_damaged_record_of_withdrawals_hides_no_run(pushed, content, message):
    with open(os.path.join(pushed.root, "serving", "street", "withdrawn.json"), "w") as file:
        file.write(content)

    (state,) = history.describe_runs(pushed)[2]["served"]

    assert state["state"] == "unknown"
    assert re.search(message, state["why"])


def test_versions_on_a_volume_that_is_not_mounted_are_unknown(tmp_path):
    recorder = Recorder(tmp_path / "metadata.sqlite")
    recorder.push("run", recorder.artifact("Model"), "/models/street/3")

    (state,) = history.describe_run(Workdir(str(tmp_path)), "run")["served"]

    assert state == {
        "state": "unknown",
        "since": None,
        "why": "/models/street: folder not found on this machine",
        "by": None,
    }


def test_labels_come_from_the_file_that_servers_read(pushed, tmp_path):
    trial = {"stable": 1790000002, "canary": 1790000003, "previous": 1790000001}
    file = _config_file(tmp_path, labels=trial, versions=[1790000001, 1790000002, 1790000003])

    assert _served(pushed, ServedModels(served_by_file(file))) == ["previous, removed", "stable", "canary"]
    stable = history.describe_runs(pushed, ServedModels(served_by_file(file)))[1]["served"][0]
    assert stable["since"] == "2026-09-21T14:15:00Z"


def _move(workdir, **labels):
    """Records that labels moved on 27 November 2026, by Ann."""
    moves = [
        {"label": label, "version": version, "when": _MOVED, "by": "ann@desk"} for label, version in labels.items()
    ]
    with open(os.path.join(workdir.root, "serving", "street", "moves.json"), "w") as file:
        json.dump(moves, file)


def test_labels_say_since_when_and_who_moved_them(pushed, tmp_path):
    labels = {"stable": 1790000002, "canary": 1790000003}
    _move(pushed, stable=1790000002, canary=1790000002)
    file = _config_file(tmp_path, labels=labels, versions=labels.values())

    (stable,), (canary,) = (
        run["served"] for run in history.describe_runs(pushed, ServedModels(served_by_file(file)))[1:]
    )
    shown = CliRunner().invoke(app, ["show", "run-2", "--out", pushed.root, "--config-file", file]).output

    assert stable == {"state": "stable", "since": _MOVED, "by": "ann@desk", "why": None}
    # The servers' file was changed after the last recorded release.
    assert (canary["since"], canary["by"]) == ("2026-09-21T14:15:00Z", None)
    assert "stable since 2026-11-27 11:00 UTC by ann@desk" in shown


def test_without_a_file_or_server_labels_come_from_the_record_of_releases(pushed, tmp_path):
    _move(pushed, stable=1790000002, canary=1790000003, previous=None)

    assert _served(pushed) == ["removed", "stable", "canary"]
    unlabelled = _config_file(tmp_path, labels={})
    assert _served(pushed, ServedModels(served_by_file(unlabelled))) == ["removed", "", "latest"]


def test_without_a_trial_there_is_no_canary(pushed, tmp_path):
    labels = {"stable": 1790000002, "canary": 1790000002}
    file = _config_file(tmp_path, labels=labels, versions=[1790000002, 1790000003])

    assert _served(pushed, ServedModels(served_by_file(file))) == ["removed", "stable", "loaded"]


def test_a_file_without_labels_serves_the_newest(pushed, tmp_path):
    assert _served(pushed, ServedModels(served_by_file(_config_file(tmp_path, labels={})))) == ["removed", "", "latest"]


@pytest.mark.parametrize("command", ["runs", "show"])
def test_a_file_of_other_models_is_an_error(pushed, tmp_path, command):
    file = _config_file(tmp_path, labels={}, name="harbour")
    ask = [command, *(["run-3"] if command == "show" else []), "--out", pushed.root, "--config-file", file]

    result = CliRunner().invoke(app, ask)

    assert isinstance(result.exception, UsageError)
    assert "found none of the models of these runs, expected one of: street" in str(result.exception)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ReleaseError, match="--config-file .*absent: No such file"):
        served_by_file(str(tmp_path / "absent"))


def test_labels_come_from_one_place():
    result = CliRunner().invoke(app, ["runs", "--config-file", "x", "--server", "localhost:1"])

    assert "found several of --config-file, --configmap and --server, expected one" in str(result.exception)


def test_baseline_and_predecessor_are_named_with_their_reports(pushed):
    details = history.describe_run(pushed, "run-3")

    report = os.path.join(pushed.run("run-2"), "report.html")
    version = os.path.join(pushed.root, "serving", "street", "1790000002")
    expected = {"run_id": "run-2", "version": 1790000002, "pushed": version, "report": report}
    assert details["predecessor"] == expected
    assert details["baseline"] == {**expected, "why": "served"}
    first = history.describe_run(pushed, "run-1")
    assert first["baseline"] is first["predecessor"] is None


def test_a_predecessor_that_was_removed_is_known_from_the_metadata(pushed):
    assert history.describe_run(pushed, "run-2")["predecessor"]["version"] == 1790000001


def test_a_predecessor_that_was_pushed_by_hand_has_no_run(pushed):
    by_hand = os.path.join(pushed.root, "serving", "street", "1790000000")
    os.makedirs(by_hand)

    predecessor = history.describe_run(pushed, "run-1")["predecessor"]

    assert predecessor == {"run_id": None, "version": 1790000000, "pushed": by_hand, "report": None}


def test_a_model_from_the_cache_belongs_to_the_run_that_made_it(pushed):
    recorder = Recorder(pushed.metadata)
    model = recorder.train("made")
    recorder.train("again", model, "cached")
    recorder.node("later", "Evaluator", "failed", inputs={"baseline_model": model})

    assert history.describe_run(pushed, "later")["baseline"] == {
        "why": "served",
        "run_id": "made",
        "version": None,
        "pushed": None,
        "report": None,
    }


def test_without_a_link_the_newest_run_is_shown(pushed):
    assert history.describe_run(pushed, "")["run_id"] == "run-3"
    os.symlink("runs/run-1", pushed.latest)
    assert history.describe_run(pushed, "")["run_id"] == "run-1"
