"""The command `segpipe gc`: its tables, its lock, and its state after a kill."""

import json
import os
import subprocess
import sys

import made_up
import pytest
from typer.testing import CliRunner

from components import files
from pipeline.cli.main import app
from pipeline.configuration.loading import load_config
from pipeline.retention.plan import make_plan
from pipeline.storage.workdir import Workdir

_GC = [sys.executable, "-m", "pipeline.cli.main", "gc", "--keep-runs", "1", "--keep-versions", "1"]
_SETTINGS = load_config([("test", {"retention": {"keep_runs": 1, "keep_versions": 1}})])

# Forks a child for each line that it reads, the number of changes to disk and metadata before SIGKILL.
_KILLED = """
import os, shutil, signal, sys
from components import files
from pipeline.configuration.loading import load_config
from pipeline.retention import collect, records
from pipeline.storage.workdir import Workdir

settings = load_config([("test", {"retention": {"keep_runs": 1, "keep_versions": 1}})])

def die_after(count):
    def before(function):
        def wrapped(*arguments, **options):
            nonlocal count
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            count -= 1
            return function(*arguments, **options)
        return wrapped

    records.Records.set_deleted = before(records.Records.set_deleted)
    records.Records.set_removed = before(records.Records.set_removed)
    os.unlink, os.remove, os.rmdir, os.rename = map(before, (os.unlink, os.remove, os.rmdir, os.rename))

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        die_after(int(line))
        collect.collect(Workdir(sys.argv[1]), settings)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


# Forks a process that releases version 1 while this one removes what no server's configuration names; later each time.
_RELEASED = """
import json, os, sys, time
from components import files
from pipeline.configuration.loading import load_config
from pipeline.retention import collect
from pipeline.storage.workdir import Workdir
from serving.release.configuration import find_model, set_release
from serving.release.labels import Release
from serving.release.records import FileRecord

root = sys.argv[1]
config, version = f"{root}/models.config", f"{root}/serving/unet/1"
retention = {"keep_runs": 1, "keep_versions": 1, "served_by": [config]}
settings = load_config([("test", {"retention": retention})])

def label(number):
    record = FileRecord(config)
    served = record.read()
    set_release(find_model(served, "unet"), Release(number, number))
    record.write(served)

results = []
for delay in range(40):
    if not os.path.isdir(version):
        for name in range(20):
            files.write_bytes(f"{version}/{name}", b"x")
    with open(config, "w") as file:
        file.write('model_config_list { config { name: "unet" base_path: "/m" } }')
    label(100)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        time.sleep(delay / 1000)
        label(1)
        os.write(writing, b"1" if os.path.isdir(version) else b"0")
        os._exit(0)
    collect.collect(Workdir(root), settings)
    os.waitpid(child, 0)
    results.append({"found": os.read(reading, 1) == b"1", "left": os.path.isdir(version)})
    os.close(reading), os.close(writing)
print(json.dumps(results))
"""


@pytest.fixture
def history(tmp_path):
    """Three runs, two of them with a version; the second one's model is the only blessed one."""
    history = made_up.History(Workdir(str(tmp_path / "work")))
    for number in (1, 2):
        version = os.path.join(history.workdir.root, "serving", "unet", str(number))
        history.run(f"run-{number}", version=version, blessed=number == 2)
    history.run("unblessed", blessed=False)
    return history


def _gc(history, *options):
    return CliRunner().invoke(app, ["gc", "--out", history.workdir.root, *_GC[4:], *options])


def _all_files(history):
    return {path for path in files.list_files(history.workdir.root) if not path.startswith("metadata")}


def test_a_dry_run_prints_the_sizes_and_removes_nothing(history):
    before = _all_files(history)

    shown, listed = _gc(history, "--dry-run"), _gc(history, "--dry-run", "--json")

    assert shown.exit_code == 0, shown.output
    rows = [line.split() for line in shown.output.splitlines()]
    assert ["artifacts", "10", "5.0", "kB"] in rows
    assert ["versions", "1", "500", "bytes"] in rows
    assert ["runs", "1", "10", "bytes"] in rows
    assert "name it with --config-file" in shown.output
    told = json.loads(listed.output)
    assert told["dry_run"] is True
    assert told["runs"] == ["run-1"]
    assert told["bytes"] == sum(
        os.path.getsize(os.path.join(root, name))
        for item in told["items"]
        for root, _, names in os.walk(item["path"])
        for name in names
    )
    assert _all_files(history) == before
    assert history.live() == history.there()


def test_it_removes_the_items_of_the_dry_run(history):
    said = json.loads(_gc(history, "--dry-run", "--json").output)

    done = _gc(history, "--json")

    assert json.loads(done.output) == {**said, "dry_run": False}
    assert not [item for item in said["items"] if os.path.exists(item["path"])]


def test_a_folder_without_metadata_is_refused_and_stays_empty(tmp_path):
    done = subprocess.run([*_GC, "--out", str(tmp_path)], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "found no metadata" in done.stderr
    assert not os.listdir(tmp_path)


def test_a_run_in_another_process_is_waited_for_or_left_alone(history):
    before = _all_files(history)
    with history.workdir.lock(wait=False):
        refused = subprocess.run([*_GC, "--out", history.workdir.root], capture_output=True, text=True, check=False)
        waiting = subprocess.Popen([*_GC, "--wait", "--out", history.workdir.root], stdout=subprocess.PIPE, text=True)
        # It is done only when the run is.
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=10)
        assert _all_files(history) == before
    printed, _ = waiting.communicate()

    assert refused.returncode == 1
    assert "another run is using this work directory" in refused.stderr
    assert waiting.returncode == 0
    assert "1 are not" in printed
    assert not os.path.exists(history.workdir.run("run-1"))


def test_a_second_gc_completes_one_that_was_killed(history):
    kept = {*history.there()} - make_plan(history.workdir, _SETTINGS).deleted
    keeps = _all_files(history) - {
        os.path.relpath(os.path.join(root, name), history.workdir.root)
        for item in make_plan(history.workdir, _SETTINGS).items
        for root, _, names in os.walk(item.path)
        for name in names
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, history.workdir.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    kills = 0
    with process:
        # The first change of each process marks artifacts; the second continues the removal.
        for count in (0, 1, *[2] * 100):
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            # Artifacts in the cache are complete, and kept artifacts and files exist.
            assert history.live() <= history.there()
            assert kept <= history.live()
            assert keeps <= _all_files(history)
            if status == 0:
                break
            assert status == -9
            kills += 1
        process.stdin.close()

    assert kills > 10
    assert _all_files(history) == keeps
    assert not make_plan(history.workdir, _SETTINGS).removed


def test_a_release_in_another_process_never_loses_its_version(history):
    history.run("newest", version=os.path.join(history.workdir.root, "serving", "unet", "100"))

    done = subprocess.run([sys.executable, "-c", _RELEASED, history.workdir.root], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    # Some versions are released before their removal, others are removed first. No released version is removed.
    assert not [result for result in results if result["found"] and not result["left"]]
    assert {result["found"] for result in results} == {True, False}
