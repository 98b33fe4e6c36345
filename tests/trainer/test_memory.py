import pathlib
import subprocess
import sys

from trainer import memory


def test_some_memory_is_available():
    assert 0 < memory.available() < 2**50


def test_a_container_has_what_its_control_group_leaves(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16384 kB\nMemAvailable:    8192 kB\n")
    limit, use = tmp_path / "memory.max", tmp_path / "memory.current"
    use.write_text("1000\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", ((limit, use), (pathlib.Path("/absent"), use)))

    found = []
    for text in ("5000\n", "max\n", "500\n"):
        limit.write_text(text)
        found.append(memory.available())

    assert found == [4000, 8192 * 1024, 0]


def test_the_peak_is_that_of_this_process_not_of_the_one_that_started_it():
    child = "from trainer import memory; print(memory.peak())"
    start = f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    parent = f"import subprocess, sys; held = b'1' * 2**30; {start}"

    peak = int(subprocess.run([sys.executable, "-c", parent], capture_output=True, check=True).stdout)

    assert 2**20 < peak < 2**29
