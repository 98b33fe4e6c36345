"""Version directories are complete or absent, despite kills, failures and concurrent readers."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from components.pusher.versions import new_version, next_version, remove_version, version_number

PUSH_AND_STOP_HALFWAY = """
import pathlib, sys
from components.pusher.versions import new_version

with new_version(sys.argv[1]) as version:
    pathlib.Path(version.staging, "variables").write_text("half")
    print("halfway", flush=True)
    sys.stdin.read()
    pathlib.Path(version.staging, "saved_model.pb").write_text("whole")
"""


def push(base: pathlib.Path, content: str = "whole") -> int:
    with new_version(str(base)) as version:
        for name in ("variables", "saved_model.pb"):
            pathlib.Path(version.staging, name).write_text(content)
    return version.number


def versions(base: pathlib.Path) -> list[int]:
    return sorted(int(entry.name) for entry in base.iterdir() if entry.name.isdigit())


def start_push(base: pathlib.Path) -> subprocess.Popen:
    """Starts a push in another process and returns once it is halfway."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUSH_AND_STOP_HALFWAY, str(base)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "halfway\n"
    return process


def test_a_push_makes_the_directory_and_a_version(tmp_path):
    base = tmp_path / "serving" / "fcn8"

    number = push(base)

    assert versions(base) == [number]
    assert (base / str(number) / "saved_model.pb").read_text() == "whole"


def test_versions_rise_within_one_second(tmp_path):
    numbers = [push(tmp_path) for _ in range(4)]
    assert numbers == sorted(set(numbers))
    assert versions(tmp_path) == numbers


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], 1000),
        (["7", "999", "latest", ".lock"], 1000),
        (["1000"], 1001),
        (["2000", "12"], 2001),
        (["²"], 1000),
    ],
)
def test_the_next_version_is_the_time_unless_a_larger_one_exists(names, expected):
    assert next_version(names, now=1000.9) == expected


@pytest.mark.parametrize(
    ("directory", "number"),
    [
        ("/w/serving/fcn8/12", 12),
        ("gs://b/fcn8/version-12-0123abcd", 12),
        ("gs://b/fcn8/12/", 12),
        ("/w/model", None),
        ("/w/version-12", None),
    ],
)
def test_a_version_s_number_is_read_from_the_name_of_its_directory(directory, number):
    assert version_number(directory) == number


def test_a_killed_push_leaves_the_old_version_and_the_next_push_cleans_up(tmp_path):
    old = push(tmp_path, "old")

    process = start_push(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert versions(tmp_path) == [old]
    assert (tmp_path / str(old) / "saved_model.pb").read_text() == "old"
    assert list(tmp_path.glob(".tmp-*"))

    new = push(tmp_path, "new")
    assert versions(tmp_path) == [old, new]
    assert (tmp_path / str(new) / "saved_model.pb").read_text() == "new"
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_second_push_waits_for_the_first_and_keeps_its_files(tmp_path):
    process = start_push(tmp_path)
    second = threading.Thread(target=push, args=(tmp_path, "second"))
    second.start()
    assert versions(tmp_path) == []

    process.communicate("go on")
    second.join()

    assert process.returncode == 0
    first_version, second_version = versions(tmp_path)
    assert (tmp_path / str(first_version) / "saved_model.pb").read_text() == "whole"
    assert (tmp_path / str(second_version) / "saved_model.pb").read_text() == "second"


def test_a_failed_push_leaves_nothing(tmp_path):
    def fail_halfway() -> None:
        with new_version(str(tmp_path)) as version:
            pathlib.Path(version.staging, "variables").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_halfway()

    assert versions(tmp_path) == []
    assert not list(tmp_path.glob(".tmp-*"))


def test_only_leftovers_of_pushes_are_removed(tmp_path):
    kept = [tmp_path / "12", tmp_path / "notes", tmp_path / ".hidden"]
    for path in kept:
        path.mkdir()

    push(tmp_path)

    assert all(path.is_dir() for path in kept)


def test_a_reader_never_sees_a_version_without_its_saved_model(tmp_path):
    done = threading.Event()
    seen: set[pathlib.Path] = set()
    torn: list[pathlib.Path] = []

    def read() -> None:
        while not done.is_set():
            for number in versions(tmp_path):
                directory = tmp_path / str(number)
                seen.add(directory)
                if (directory / "saved_model.pb").read_text() != "whole":
                    torn.append(directory)

    push(tmp_path)
    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 30
    while len(seen) < 30 and time.monotonic() < deadline:
        push(tmp_path)
    done.set()
    reader.join()

    assert len(seen) >= 30
    assert torn == []


@pytest.mark.parametrize(("answers", "removed"), [([False, False], True), ([True], False), ([False, True], False)])
def test_a_version_that_is_wanted_before_or_while_it_is_removed_stays(tmp_path, answers, removed):
    with new_version(str(tmp_path), 7) as version:
        pathlib.Path(version.staging, "saved_model.pb").write_bytes(b"model")
    asked = iter(answers)

    assert remove_version(str(tmp_path), 7, lambda: next(asked)) is removed

    assert list(asked) == []
    assert (tmp_path / "7" / "saved_model.pb").exists() is not removed
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ([] if removed else ["7"])
