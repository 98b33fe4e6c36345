"""Real runs and `segpipe gc` in separate processes: one waits for the other, and the next run uses what was kept."""

import json
import os
import subprocess
import sys

import pytest

from components.dataset import synthetic

pytestmark = pytest.mark.slow

_SEGPIPE = [sys.executable, "-m", "pipeline.cli.main"]
_SETTINGS = (
    "model.base_filters=4",
    "gate.min_mean_iou=0.0",
    "gate.min_class_iou={}",
    "gate.max_class_drop=1.0",
    "gate.max_mean_drop=1.0",
    "gate.best_of=1",
)


def _run_command(data, work, *more):
    assignments = [word for setting in (*_SETTINGS, *more) for word in ("--set", setting)]
    options = ["--model", "unet", "--preset", "smoke", "--size", "32x48", "--epochs", "1", "--data", data]
    return [*_SEGPIPE, "run", *options, "--out", work, *assignments]


def _summary(work):
    with open(os.path.join(work, "latest", "summary.json")) as file:
        return json.load(file)


def _run(data, work, *more):
    done = subprocess.run(_run_command(data, work, *more), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return _summary(work)


def _gc(work, *options):
    settings = os.path.join(os.path.dirname(work), "settings.yaml")
    with open(settings, "w") as file:
        file.write("{gate: {best_of: 1}, retention: {keep_runs: 1, keep_versions: 1}}")
    command = [*_SEGPIPE, "gc", "--out", work, "--config", settings, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_and_gc_take_turns_and_the_next_run_comes_from_the_cache(tmp_path):
    data, work = str(tmp_path / "data"), str(tmp_path / "work")
    synthetic.make(data, pairs={"train": 8, "val": 4}, size=(48, 64))
    first = _run(data, work, "seed=1")

    with subprocess.Popen(_run_command(data, work, "seed=2"), stdout=subprocess.PIPE, text=True) as second:
        # The run holds the work directory when it has a name.
        next(line for line in second.stdout if line.startswith("run "))
        refused = _gc(work)
        waited = _gc(work, "--wait", "--json")
        second.stdout.read()
    assert second.returncode == 0
    after = _summary(work)

    assert refused.returncode == 1
    assert "another run is using this work directory" in refused.stderr
    assert waited.returncode == 0, waited.stderr
    assert json.loads(waited.stdout)["runs"] == [first["run_id"]]
    assert not os.path.exists(first["pushed"])
    assert not os.path.exists(os.path.join(work, "runs", first["run_id"]))
    # The second run's baseline is the first run's model, and its examples came from the first run's cache.
    again = _run(data, work, "seed=2", "retention.after_run=true", "retention.keep_runs=1", "retention.keep_versions=1")
    states = {node: state for node, state in again["states"].items() if "Resolver" not in node}
    assert states == dict.fromkeys(states, "cached")
    assert again["pushed"] == after["pushed"]
    assert again["baseline_metrics"] == after["baseline_metrics"] == first["metrics"]
    listed = subprocess.run([*_SEGPIPE, "runs", "--out", work, "--json"], capture_output=True, text=True, check=True)
    assert [run["run_id"] for run in json.loads(listed.stdout)] == [again["run_id"]]
    assert os.listdir(os.path.join(work, "runs")) == [again["run_id"]]
    assert not json.loads(_gc(work, "--dry-run", "--json").stdout)["items"]
