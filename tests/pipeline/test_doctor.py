"""`segpipe doctor` shows what was found, and what to do about what is missing."""

import json

import pytest
from typer.testing import CliRunner

from components import gpu
from components.errors import UsageError
from components.gpu import Build, Device, GpuInspection
from pipeline.cli import doctor
from pipeline.cli.main import app

_BUILD = Build("2.21.0", "12.5.1", "9", ((6, 0), (9, 0)))
_GPU = Device("NVIDIA H100 80GB HBM3", (9, 0), 80 * 2**30)


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that makes up the machine: the GPUs that TensorFlow lists, and what it needs for them."""

    def make(usable, **found):
        monkeypatch.setattr(gpu, "usable_gpus", lambda: usable)
        monkeypatch.setattr(gpu, "inspect", lambda: GpuInspection(_BUILD, **found))

    return make


def _doctor(*options):
    return CliRunner().invoke(app, ["doctor", *options])


def test_it_shows_the_machine_and_exits_with_0_without_a_gpu(machine):
    machine([], driver_problem="not there", libraries={"libcudart.so.12": "", "libcudnn.so.9": "not found"})

    done = _doctor()

    assert done.exit_code == 0, done.output
    rows = dict(line.strip().split("  ", 1) for line in done.stdout.splitlines() if "  " in line.strip())
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows["NVIDIA driver"] == "not found"
    assert rows["built for"] == "CUDA 12.5.1, cuDNN 9"
    assert (rows["libcudart.so.12"], rows["libcudnn.so.9"]) == ("found", "not found")
    assert (rows["GPUs that TensorFlow uses"], rows["training.xla auto"]) == ("0", "off")
    assert rows["training.precision auto"] in ("float32", "mixed_bfloat16")
    assert {"Python", "tensorflow", "keras", "tfx", "processor", "memory", "/dev/shm"} <= set(rows)
    todo = done.stdout.partition("to use a GPU\n")[2].splitlines()
    assert [line.partition(":")[0] for line in todo] == ["- no NVIDIA driver", "- TensorFlow cannot load this library"]


def test_json_has_the_same_facts(machine):
    machine(["GPU:0"], driver="550.54.15", driver_cuda=(12, 4), devices=(_GPU,), libraries={"libcudart.so.12": ""})

    facts = json.loads(_doctor("--json").stdout)

    assert facts["gpus"] == [{"name": _GPU.name, "capability": [9, 0], "memory": 80 * 2**30}]
    assert (facts["driver"], facts["driver_cuda"], facts["usable_gpus"]) == ("550.54.15", "12.4", 1)
    assert facts["libraries"] == {"libcudart.so.12": "found"}
    assert facts["packages"]["tensorflow"]
    assert facts["problems"] == []


def test_a_gpu_is_shown_with_its_memory_and_capability(machine):
    machine(["GPU:0"], driver="550.54.15", driver_cuda=(12, 4), devices=(_GPU,))

    shown = _doctor().stdout

    assert "NVIDIA H100 80GB HBM3, compute capability 9.0, 80.0 GiB" in shown
    assert "550.54.15, for CUDA 12.4" in shown
    assert "to use a GPU" not in shown


@pytest.mark.parametrize(("gpus", "size", "told"), [(2, 64 * 2**20, True), (1, 64 * 2**20, False), (2, 2**30, False)])
def test_several_gpus_need_shared_memory(machine, monkeypatch, tmp_path, gpus, size, told):
    machine(["GPU"] * gpus, driver="550.54.15", driver_cuda=(12, 4), devices=(_GPU,) * gpus)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: doctor.shutil._ntuple_diskusage(size, 0, size))

    done = _doctor()

    assert done.exit_code == 0, done.output
    assert ("docker run --shm-size=1g" in done.stdout) == told


def test_a_gpu_that_is_required_and_missing_is_an_error(machine):
    machine([], driver_problem="not there")

    with pytest.raises(UsageError, match="no NVIDIA driver") as raised:
        CliRunner().invoke(app, ["doctor", "--require-gpu"], catch_exceptions=False)

    assert raised.value.exit_code == 2
    machine(["GPU:0"], devices=(_GPU,))
    assert _doctor("--require-gpu").exit_code == 0
