"""`segpipe kubeflow submit|schedule|list|stop`, as a user calls them."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from compiled_package import write_package
from json_output import check_form
from kubeflow_server import KubeflowServer
from typer.testing import CliRunner

from components.errors import UsageError
from pipeline.cli.main import app
from pipeline.cli.watch import RetrainingOptions


def _call(*words):
    result = CliRunner().invoke(app, ["kubeflow", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def call(server, package):
    """Returns a function that calls a command on the server, with the pipeline if the command takes one."""

    def call_command(command, *words):
        takes_pipeline = command == "submit" or any(word in words for word in ("--cron", "--every"))
        pipeline = ["--pipeline", package, "--param", "data=/data"] if takes_pipeline else []
        return _call(command, *words, "--host", server.host, *pipeline).output

    return call_command


@pytest.mark.parametrize("words", [(), ("submit",), ("schedule",), ("list",), ("stop",), ("training-job",)])
def test_help_imports_no_heavy_package(words):
    program = (
        "import sys, pipeline.cli.main as m\n"
        f"sys.argv = ['segpipe', 'kubeflow', *{words!r}, '--help']\n"
        "try:\n    m.main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "heavy = {'tensorflow', 'tfx', 'kfp', 'kubernetes', 'ml_metadata', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_run_is_submitted_listed_and_stopped(server, call):
    submitted = call("submit", "--name", "first", "--param", "epochs=3")
    (run,) = server.all("runs")
    listed = json.loads(call("list", "--json"))
    stopped = call("stop", "first")

    assert f"{server.host}/#/runs/details/{run['run_id']}" in submitted
    assert run["runtime_config"]["parameters"] == {"data": "/data", "epochs": 3}
    (row,) = listed["runs"]
    assert (row["run"], row["state"], row["ended"], row["id"]) == ("first", "pending", None, run["run_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["started"])
    check_form(listed)
    assert "is being stopped" in stopped
    assert run["state"] == "CANCELING"


def test_each_project_has_its_own_experiment(server, tmp_path):
    for name in ("streets", "parks", "streets"):
        package = write_package(tmp_path / f"{name}.yaml", name=name)
        submitted = _call(
            "submit", "--host", server.host, "--pipeline", package, "--param", "data=/data", "--no-overlap"
        )

    assert [each["display_name"] for each in server.all("experiments")] == ["streets", "parks"]
    assert [run["display_name"].rsplit("-", 2)[0] for run in server.all("runs")] == ["streets", "parks"]
    assert "is running; started no other" in submitted.output


def test_stopping_a_finished_run_changes_nothing(server, call):
    call("submit", "--name", "first")
    server.all("runs")[0]["state"] = "SUCCEEDED"

    assert "has ended already: succeeded" in call("stop", "first")
    assert server.asked("POST", ":terminate") == []


def test_a_run_without_overlap_waits_for_the_next_time(server, call):
    call("submit", "--name", "first", "--no-overlap")
    second = call("submit", "--name", "second", "--no-overlap")
    server.all("runs")[0]["state"] = "FAILED"
    call("submit", "--name", "third", "--no-overlap")

    assert "run first is running; started no other" in second
    assert [run["display_name"] for run in server.all("runs")] == ["first", "third"]


def test_a_run_behind_many_finished_ones_is_an_overlap(server, call):
    call("submit", "--name", "first")
    (first,) = server.all("runs")
    finished = {**first, "state": "SUCCEEDED", "created_at": "2100-01-01T00:00:00Z"}
    server.items["runs"] |= {str(number): {**finished, "run_id": str(number)} for number in range(101)}

    assert "run first is running; started no other" in call("submit", "--no-overlap")


@pytest.fixture
def watch(server, package):
    """Returns a function that starts a run after drift, as `segpipe watch --then-run --host` does."""
    options = RetrainingOptions(then_run=True, host=server.host, pipeline=package, params=["data=/data"])
    return lambda: options.start("work", SimpleNamespace(kind="images"), "requests", [])


def test_a_second_watch_starts_no_run_until_the_first_one_has_ended(server, watch, capsys):
    watch()
    watch()
    assert "is running; started no other" in capsys.readouterr().out
    (first,) = server.all("runs")
    first["state"] = "SUCCEEDED"
    watch()

    assert len(server.all("runs")) == 2


def test_a_watch_starts_no_run_while_the_nightly_one_of_the_cron_job_is_running(server, call, watch):
    call("submit", "--name", "nightly", "--experiment", "retrain", "--no-overlap")
    watch()

    assert [run["display_name"] for run in server.all("runs")] == ["nightly"]


def test_a_schedule_is_applied_listed_paused_and_deleted(server, call):
    created = call("schedule", "nightly", "--cron", "0 3 * * *")
    again = call("schedule", "nightly", "--cron", "0 3 * * *")
    updated = call("schedule", "nightly", "--cron", "30 3 * * *")
    listed = json.loads(call("list", "--json"))
    (row,) = listed["schedules"]
    check_form(listed)
    call("schedule", "nightly", "--pause")
    table = call("list")
    call("schedule", "nightly", "--delete")
    empty = call("list")

    assert "nightly created" in created
    assert "nightly unchanged" in again
    assert "nightly updated" in updated
    assert row["when"] == "0 30 3 * * *"
    assert row["next_run"].endswith("T03:30:00Z")
    assert row["last_run"] is None
    assert "next run (UTC)" in table
    assert "paused" in table
    assert "Schedules\n" in empty
    assert server.all("recurringruns") == []


@pytest.mark.parametrize("words", [(), ("--pause", "--resume"), ("--cron", "0 3 * * *", "--delete")])
def test_a_schedule_takes_one_action(package, words):
    with pytest.raises(UsageError, match="expected one of --cron, --every, --pause, --resume and --delete"):
        _call("schedule", "nightly", "--host", "http://localhost:1", "--pipeline", package, *words)


def test_secrets_come_from_a_file_or_the_environment(package, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("secret\n")
    with KubeflowServer(token="secret") as server:
        _call("list", "--host", server.host, "--token-file", str(tmp_path / "token"))
        monkeypatch.setenv("SEGPIPE_KUBEFLOW_TOKEN", "secret")
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.host)
        _call("list")

    with pytest.raises(UsageError, match="expected a file with a bearer token"):
        _call("list", "--host", "http://localhost:1", "--token-file", str(tmp_path / "absent"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"binary: cannot be read .it is not a text file"):
        _call("list", "--host", "http://localhost:1", "--token-file", str(tmp_path / "binary"))


def test_a_refusal_ends_in_a_message_and_a_code_without_a_traceback(tmp_path):
    with KubeflowServer(token="secret") as server:
        command = [sys.executable, "-m", "pipeline.cli.main", "kubeflow", "list", "--host", server.host]
        environment = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert done.returncode == 1
    assert "answered 401" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
