"""scripts/gpu-check.sh runs its parts, with a fake Python that logs its arguments."""

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
# Fails for UNet, and writes a result for each other model.
_PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in *"--model unet"*) exit 3 ;; esac
for last; do :; done
case "$last" in *.json) echo {} > "$last" ;; esac
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs the script and returns its exit code, its output and errors, and how Python was called."""
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    calls.touch()
    monkeypatch.setenv("PYTHON", str(python))
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("PARTS", "tests unet fcn8")
    monkeypatch.setenv("SEGPIPE_GPU_TESTS_ON_CPU", "1")

    def run(*arguments):
        script = str(_ROOT / "scripts" / "gpu-check.sh")
        done = subprocess.run(
            [script, str(tmp_path / "out"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.returncode, done.stdout, calls.read_text().splitlines()

    return run


def test_a_part_that_fails_does_not_stop_the_others(check, tmp_path):
    code, output, calls = check()

    assert code == 1
    assert "unet, XLA on: exit code 3" in output
    assert "fcn8, XLA off: exit code 0" in output
    assert [call for call in calls if call.endswith("tests/gpu")]
    assert calls[-1] == f"-m benchmarks.gpu_table {tmp_path / 'out'}"
    assert "unet, XLA off: exit code 3" in (tmp_path / "out" / "gpu-check.log").read_text()


def test_a_run_without_failures_ends_with_0(check, monkeypatch):
    monkeypatch.setenv("PARTS", "fcn8")

    code, _, calls = check()

    assert code == 0
    assert ["--only segpipe,segpipe-data,keras " in call for call in calls] == [False, True, False, False]


def test_no_part_is_started_after_the_time_limit(check):
    code, output, calls = check("0")

    assert (code, calls) == (1, [])
    assert "fcn8, XLA off: not started, no time left" in output


def test_nothing_is_measured_without_a_gpu(check, monkeypatch, tmp_path):
    monkeypatch.delenv("SEGPIPE_GPU_TESTS_ON_CPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("PYTHON", sys.executable)

    code, output, _ = check()

    assert code == 2
    assert "training.require_gpu: found no GPU that TensorFlow can use" in output
    assert list((tmp_path / "out").iterdir()) == []
