"""`segpipe gc` in parallel with runs on the same root and MariaDB, in separate processes."""

import json
import subprocess
import sys
from pathlib import Path

import mariadb
import pytest

# Code of both processes, which open the same root and MariaDB.
_SHARED = """
import json, os, sys, time
from pipeline.storage.settings import MetadataSettings
from pipeline.storage.workdir import Workdir
root, port, database, user = sys.argv[1:]
settings = MetadataSettings(kind="mysql", host="127.0.0.1", port=int(port), database=database, user=user)
workdir = Workdir(root, settings, shared=True)
workdir.create()
"""

# Runs the pipeline with three contents in turn, so that most runs find cached results. Like Kubeflow, it retries a node
# that fails. Prints the states of each run, and the text that its last node read.
# The nodes have names that `segpipe gc` looks for.
_RUNS = (
    _SHARED
    + """
from tfx import v1 as tfx
from components.errors import SegpipeError
from pipeline.running.nodes import PipelineRun
from toy_copies import Copy, Write

def launch(run, node):
    for _ in range(30):
        try:
            return run.launch(node).state
        except SegpipeError:
            time.sleep(1)
    raise SystemExit(f"{node} failed thirty times")

for number in range(24):
    first = Write(content="abc"[number // 2 % 3]).with_id("ImageMaskExampleGen")
    second = Copy(text=first.outputs["text"]).with_id("Trainer")
    third = Copy(text=second.outputs["copy"]).with_id("Report")
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="toy",
        pipeline_root=workdir.artifacts,
        components=[first, second, third],
        enable_cache=True,
        metadata_connection_config=workdir.connection,
    )
    run = PipelineRun(pipeline, f"run-{number:02}")
    states = [launch(run, node) for node in run.node_ids]
    from pipeline.storage.store import Store
    last = Store(workdir.connection).executions(f"run-{number:02}")[-1].outputs["copy"][0]
    with open(last.uri) as file:
        print(json.dumps({"states": states, "read": file.read(), "written": "abc"[number // 2 % 3]}), flush=True)
"""
)

# Repeatedly removes all runs except the newest, and treats only the newest as running.
_GC = (
    _SHARED
    + """
from pipeline.configuration.loading import load_config
from pipeline.retention import plan
from pipeline.retention.collect import collect

plan._FINISHING = 0
config = load_config([("test", {"retention": {"keep_runs": 1, "keep_versions": 1, "stopped_after": "0h"}})])
print("ready", flush=True)
while True:
    print(len(collect(workdir, config, settle=3).items), flush=True)
"""
)


@pytest.mark.slow
def test_gc_beside_runs_removes_only_old_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGPIPE_METADATA_PASSWORD", mariadb.PASSWORD)
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:.")
    with mariadb.running(tmp_path) as port:
        arguments = [str(tmp_path / "root"), str(port), mariadb.DATABASE, mariadb.USER]
        runs = subprocess.Popen([sys.executable, "-c", _RUNS, *arguments], stdout=subprocess.PIPE, text=True)
        first = json.loads(runs.stdout.readline())
        collector = subprocess.Popen([sys.executable, "-c", _GC, *arguments], stdout=subprocess.PIPE, text=True)
        try:
            done = [first, *(json.loads(line) for line in runs.stdout)]
            assert runs.wait() == 0
            assert collector.poll() is None
        finally:
            for process in (runs, collector):
                process.kill()
                process.wait()
        removed = [int(line) for line in collector.stdout.read().split("\n") if line.isdigit()]

    assert [run["read"] for run in done] == [run["written"] for run in done]
    assert len(done) == 24
    # Both processes did work: runs took cached results, and results were removed.
    assert any(run["states"] == ["cached"] * 3 for run in done)
    assert sum(removed) > 0
