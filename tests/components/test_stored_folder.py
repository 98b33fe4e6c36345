"""Processes that share a folder for temporary files, as pods of one node can, share the local copies in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.stored_folder import Manifest, copy_files, write_manifest

_FETCH = """
import os, sys, time
from components import stored_folder

address, log, is_killed, processes = sys.argv[1], sys.argv[2], sys.argv[3] == "killed", int(sys.argv[4])
copy_file, copy_published = stored_folder._copy_file, stored_folder.copy_published


def copy_one(source, target):
    if is_killed and source.endswith("9"):
        os._exit(9)
    return copy_file(source, target)


def copy_all(*arguments):
    with open(log, "a") as file:
        file.write("copied\\n")
    while len(os.listdir(f"{log}-started")) < processes:
        time.sleep(0.1)
    time.sleep(1)  # Meanwhile the other processes reach the lock.
    copy_published(*arguments)


stored_folder._copy_file, stored_folder.copy_published = copy_one, copy_all
os.makedirs(f"{log}-started/{os.getpid()}")
print(stored_folder.fetch(address))
"""


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts a process which fetches the same folder of 20 files."""
    source, address = tmp_path / "source", f"{(tmp_path / 'store').as_uri()}/folder"
    source.mkdir()
    for number in range(20):
        (source / str(number)).write_bytes(bytes([number]) * 100_000)
    write_manifest(address, Manifest(files=copy_files(str(source), address)))
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(Path(__file__).parents[2])}

    def start_one(how="alive", processes=1):
        command = [sys.executable, "-c", _FETCH, address, str(tmp_path / "log"), how, str(processes)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    return start_one


def _sizes(folder):
    return {path.name: path.stat().st_size for path in Path(folder).iterdir()}


def test_processes_that_share_a_temporary_folder_copy_once(start, tmp_path):
    printed = [process.communicate(timeout=60)[0] for process in [start(processes=3) for _ in range(3)]]

    (folder,) = {text.strip() for text in printed}
    assert folder.startswith(f"{tmp_path}/temporary/segpipe-{os.getuid()}/")
    assert _sizes(folder) == {str(number): 100_000 for number in range(20)}
    assert (tmp_path / "log").read_text() == "copied\n"


def test_the_incomplete_copy_of_a_killed_process_is_made_again(start, tmp_path):
    killed = start("killed")
    killed.communicate(timeout=60)
    folder = start().communicate(timeout=60)[0].strip()

    assert killed.returncode == 9
    assert _sizes(folder) == {str(number): 100_000 for number in range(20)}
    assert (tmp_path / "log").read_text() == "copied\n" * 2
