"""Two processes share a store, a folder of versions or a record: nothing is lost or duplicated.

Elsewhere: two runs in one work directory (test_workdir.py), a run and `segpipe gc` (retention/test_gc_real_run.py,
kubeflow/test_kubeflow_gc.py), runs of one project on a cluster (kubeflow/test_kubeflow_run.py), two pushes of which one
is killed (components/pusher/test_versions.py).
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import mariadb
import pytest

from components.pusher.moves import read_moves
from components.pusher.push import push
from components.pusher.versions import find_versions
from components.pusher.withdrawn import read_withdrawn

pytestmark = pytest.mark.slow

# Pushes a model as the pipeline's Pusher does; halfway, when it holds the folder of versions, it waits for a line.
_PUSH = """
import sys
from components.pusher import push

copy_files = push.copy_files

def copy_halfway(source, destination):
    print("halfway", flush=True)
    sys.stdin.readline()
    return copy_files(source, destination)

push.copy_files = copy_halfway
print("ready", flush=True)
sys.stdin.readline()
print(push.push(*sys.argv[1:], again=False)[1], flush=True)
"""

# A project's runs of two components on a shared store; prints what the last component of each read.
_RUNS = """
import json, sys
from pipeline.storage.settings import MetadataSettings
from pipeline.storage.workdir import Workdir
from pipeline.running.nodes import PipelineRun
from pipeline.storage.store import Store
from tfx import v1 as tfx
from toy_copies import Copy, Write

root, port, database, user, project = sys.argv[1:]
settings = MetadataSettings(kind="mysql", host="127.0.0.1", port=int(port), database=database, user=user)
workdir = Workdir(root, settings, shared=True)
workdir.create()
for number in range(6):
    first = Write(content=f"{project} {number // 2}").with_id("ImageMaskExampleGen")
    second = Copy(text=first.outputs["text"]).with_id("Report")
    pipeline = tfx.dsl.Pipeline(
        pipeline_name=project,
        pipeline_root=workdir.artifacts,
        components=[first, second],
        enable_cache=True,
        metadata_connection_config=workdir.connection,
    )
    run = PipelineRun(pipeline, f"{project}-{number}")
    states = [run.launch(node).state for node in run.node_ids]
    last = Store(workdir.connection).executions(f"{project}-{number}")[-1].outputs["copy"][0]
    with open(last.uri) as file:
        print(json.dumps({"states": states, "read": file.read(), "uri": last.uri}), flush=True)
"""


@pytest.fixture
def start():
    """Starts Python code in a process, which is killed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def run(code, *arguments):
            command = [sys.executable, "-c", code, *map(str, arguments)]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            return process

        yield run


@pytest.fixture
def models(tmp_path):
    """Returns a function from a content to the folder of a model that holds it."""

    def make(content):
        folder = tmp_path / content
        folder.mkdir(exist_ok=True)
        (folder / "saved_model.pb").write_text(content)
        return folder

    return make


def _say(process):
    """Sends a process the line that it waits for, and returns the next one that it prints."""
    process.stdin.write("\n")
    process.stdin.flush()
    return _read(process)


def _read(process):
    return process.stdout.readline().strip()


@pytest.mark.parametrize("contents", [("one", "one"), ("one", "two")])
def test_two_pushes_at_once_publish_each_model_once(tmp_path, start, models, contents):
    base = tmp_path / "serving"
    first, second = (start(_PUSH, models(content), base) for content in contents)
    assert _read(first) == _read(second) == "ready"

    assert _say(first) == "halfway"
    second.stdin.write("\n\n")  # the second line is for a copy, if it makes one
    second.stdin.flush()
    assert not find_versions(str(base))
    number = int(_say(first))
    *halfway, other = second.communicate()[0].split()

    versions = find_versions(str(base))
    assert set(versions) == {number, int(other)}
    assert len(halfway) == len(versions) - 1
    assert [Path(versions[each], "saved_model.pb").read_text() for each in sorted(versions)] == sorted(set(contents))


def test_a_version_is_withdrawn_while_another_is_pushed(tmp_path, start, models):
    base = tmp_path / "serving"
    earlier = push(str(models("one")), str(base))[1]
    pushing = start(_PUSH, models("two"), base)
    assert (_read(pushing), _say(pushing)) == ("ready", "halfway")

    withdraw = ["release", "withdraw", str(earlier), "--versions", str(base), "--why", "flickers"]
    done = subprocess.run([sys.executable, "-m", "pipeline.cli.main", *withdraw], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    number = int(_say(pushing))

    assert {version: record.why for version, record in read_withdrawn(str(base)).items()} == {earlier: "flickers"}
    assert set(find_versions(str(base))) == {earlier, number}


def test_labels_moved_by_two_processes_are_both_recorded(tmp_path, start):
    code = (
        "import sys; from components.pusher.moves import record_moves; input()\n"
        "for number in range(20): record_moves(sys.argv[1], {}, {sys.argv[2]: number + 1})"
    )
    movers = [start(code, tmp_path, label) for label in ("stable", "canary")]

    assert [_say(mover) for mover in movers] == ["", ""]
    assert [mover.wait() for mover in movers] == [0, 0]
    moves = read_moves(str(tmp_path))
    for label in ("stable", "canary"):
        assert [move.version for move in moves if move.label == label] == [*range(1, 21)]


def test_two_projects_on_one_store_and_root_are_separate(tmp_path, start, monkeypatch):
    monkeypatch.setenv("SEGPIPE_METADATA_PASSWORD", mariadb.PASSWORD)
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:.")
    (tmp_path / "mariadb").mkdir()
    with mariadb.running(tmp_path / "mariadb") as port:
        where = (tmp_path / "root", port, mariadb.DATABASE, mariadb.USER)
        projects = {name: start(_RUNS, *where, name) for name in ("street", "yard")}
        found = {name: [json.loads(line) for line in process.stdout] for name, process in projects.items()}
        assert [process.wait() for process in projects.values()] == [0, 0]

    for name, runs in found.items():
        assert [run["read"] for run in runs] == [f"{name} {number // 2}" for number in range(6)]
        assert [run["states"] for run in runs] == [["ran"] * 2, ["cached"] * 2] * 3
    street, yard = ({run["uri"] for run in runs} for runs in found.values())
    assert len(street) == len(yard) == 3
    assert not street & yard
