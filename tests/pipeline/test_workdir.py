"""The work directory: one run at a time, and `latest` always points to a complete run."""

import os
import subprocess
import sys

import pytest

from components.errors import UsageError, WorkdirBusyError
from pipeline.storage.workdir import Workdir

_HOLD = """
import sys
from pipeline.storage.workdir import Workdir
workdir = Workdir(sys.argv[1])
with workdir.lock(wait=False):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(str(tmp_path / "work"))
    workdir.create()
    return workdir


@pytest.fixture
def holder(workdir):
    """Another process that holds the work directory until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, workdir.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.usefixtures("holder")
def test_a_second_run_is_refused_with_what_to_do(workdir):
    with pytest.raises(WorkdirBusyError, match="--wait"), workdir.lock(wait=False):
        pass


def test_a_killed_run_leaves_no_lock(workdir, holder):
    holder.kill()
    holder.wait()

    with workdir.lock(wait=False):
        assert os.path.isdir(workdir.runs)


def test_waiting_gets_the_directory_when_the_other_run_ends(workdir, holder):
    holder.stdin.close()

    with workdir.lock(wait=True):
        assert holder.wait() == 0


def test_an_object_store_is_no_work_directory_and_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    remote = Workdir("gs://bucket/work")
    with pytest.raises(UsageError, match=r"--out gs://bucket/work: .*kubeflow\.root"), remote.lock(wait=False):
        pass

    assert not os.listdir(tmp_path)


def test_latest_is_replaced(workdir):
    for run_id in ("one", "two"):
        os.makedirs(workdir.run(run_id))
        workdir.point_latest(run_id)

    assert os.path.realpath(workdir.latest) == os.path.realpath(workdir.run("two"))


def test_a_folder_whose_lock_cannot_be_taken_is_named(workdir):
    os.makedirs(os.path.join(workdir.root, ".lock"))

    with pytest.raises(UsageError, match=r"work: found is a directory.*--out"), workdir.lock(wait=False):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match=r"file/work.*--out"):
        Workdir(str(tmp_path / "file" / "work")).create()


@pytest.mark.parametrize(("setting", "folder"), [("served", "{here}/served"), ("gs://b/served", "gs://b/served")])
def test_the_serving_folder_does_not_depend_on_the_current_folder(workdir, tmp_path, monkeypatch, setting, folder):
    monkeypatch.chdir(tmp_path)

    assert workdir.serving(setting) == folder.format(here=tmp_path)
