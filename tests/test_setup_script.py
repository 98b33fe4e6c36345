"""The set-up script: the stack that it chooses, the packages that it installs, and its error messages.

The machine is simulated: the PATH has a few tools, `getconf` and the Pythons print what the test sets, and the
installer logs its arguments.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_TOOLS = ("sh", "cat", "dirname", "grep", "head", "printf", "rm", "sed", "sort", "tr", "mkdir", "touch")
_UV_VERSION = next(
    line.split()[0].removeprefix("uv==")
    for line in (_ROOT / "requirements" / "bootstrap.txt").read_text().splitlines()
    if line.startswith("uv==")
)
# Creates an environment's folder for `venv`, and fails if the first two arguments are $FAILS_AT.
_UV = f"""#!/bin/sh
echo "$*" >> "$UV_LOG"
[ "$1 $2" != "$FAILS_AT" ] || {{ echo "error: no network" >&2; exit 1; }}
case "$1 $2" in
--version*) echo uv {_UV_VERSION} ;;
venv*) rm -rf .venv; mkdir -p .venv ;;
"python find") [ -e "$MANAGED" ] && echo "$MANAGED" ;;
"python install") : > "$MANAGED" ;;
"pip install") echo " + numpy==2"; echo "Installed 1 package" ;;
esac
"""


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class Machine:
    """A checkout on a machine with a glibc and some Pythons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in _TOOLS:
            (self.bin / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} not found"))
        for name in ("scripts", "requirements"):
            shutil.copytree(_ROOT / name, folder / name)
        (folder / ".cache" / "uv" / "bin").mkdir(parents=True)
        _script(folder / ".cache" / "uv" / "bin" / "uv", _UV)
        self.python("python3", "3.9")

    def glibc(self, version: str) -> None:
        _script(self.bin / "getconf", f"#!/bin/sh\necho glibc {version}\n")

    def python(self, name: str, version: str, where: str = "bin") -> None:
        (self.folder / where).mkdir(parents=True, exist_ok=True)
        _script(
            self.folder / where / name,
            f'#!/bin/sh\n[ "$1" = --version ] && echo Python {version}.7 || echo {version}\n',
        )

    def set_up(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.folder),
            "UV_LOG": str(self.folder / "uv.log"),
            "MANAGED": str(self.folder / "managed-python"),
            **variables,
        }
        return subprocess.run(
            ["/bin/sh", "scripts/setup.sh"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> str:
        return (self.folder / "uv.log").read_text()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_new_glibc_and_a_python_that_tfx_supports_get_the_current_stack(machine, version):
    machine.glibc("2.39")
    machine.python("python3", version)

    done = machine.set_up()

    assert done.returncode == 0, done.stderr
    assert "stack: current (TFX 1.21, TensorFlow 2.21), because glibc 2.39 is 2.39 or newer" in done.stderr
    assert f"--python {machine.bin}/python3" in machine.calls
    assert "--require-hashes --constraints requirements/current.txt" in machine.calls
    assert (machine.folder / ".venv" / ".ready").read_text() == "current pipeline kubeflow dev\n"


def test_old_glibc_gets_the_older_stack_on_a_python_of_pyenv(machine):
    machine.glibc("2.36")
    machine.python("python3", "3.11")
    machine.python("python", "3.10", ".pyenv/versions/3.10.13/bin")

    done = machine.set_up()

    assert done.returncode == 0, done.stderr
    assert "stack: older (TFX 1.16, TensorFlow 2.16), because glibc 2.36 is older than 2.39" in done.stderr
    assert ".pyenv/versions/3.10.13/bin/python" in machine.calls
    assert "--constraints requirements/older.txt" in machine.calls
    assert "--overrides requirements/older-overrides.txt" in machine.calls
    assert "python install" not in machine.calls


def test_variable_overrides_the_choice(machine):
    machine.glibc("2.41")
    machine.python("python3.10", "3.10")
    machine.python("python3.13", "3.13")

    assert "stack: older" in machine.set_up(SEGPIPE_STACK="older").stderr
    assert (machine.folder / ".venv" / ".ready").read_text() == "older pipeline kubeflow dev\n"


def test_unknown_stack_is_refused(machine):
    machine.glibc("2.41")

    done = machine.set_up(SEGPIPE_STACK="newest")

    assert done.returncode == 1
    assert "SEGPIPE_STACK is 'newest', expected current or older" in done.stderr


@pytest.mark.parametrize(("glibc", "version"), [("2.36", "3.10"), ("2.41", "3.13")])
def test_python_that_is_missing_is_downloaded_and_announced_in_one_line(machine, glibc, version):
    machine.glibc(glibc)

    done = machine.set_up()

    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "downloading" in line]
    assert f"Python {version} not found: downloading it (30 MB)" in line
    assert "UV_PYTHON_DOWNLOADS=never refuses" in line
    assert f"python install --quiet {version}" in machine.calls


def test_failed_downloads_are_explained(machine):
    machine.glibc("2.36")

    refused = machine.set_up(UV_PYTHON_DOWNLOADS="never")
    offline = machine.set_up(FAILS_AT="python install")

    assert (refused.returncode, offline.returncode) == (1, 1)
    assert "Install Python 3.10 and put it on the PATH, or unset that variable" in refused.stderr
    assert "Without a network, install Python 3.10 another way" in offline.stderr
    assert not (machine.folder / ".venv").exists()


def test_failed_installation_does_not_look_complete(machine):
    machine.glibc("2.41")
    machine.python("python3", "3.13")
    machine.set_up()

    done = machine.set_up(FAILS_AT="pip install")

    assert done.returncode == 1
    assert "error: no network" in done.stderr
    assert "could not install the pinned packages: see uv's message above" in done.stderr
    assert not (machine.folder / ".venv" / ".ready").exists()


@pytest.mark.parametrize("driver", ["/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1", None])
def test_cuda_libraries_are_installed_with_nvidia_s_driver(machine, driver):
    machine.glibc("2.41")
    machine.python("python3", "3.13")
    script = machine.folder / "scripts" / "setup.sh"
    # The path of the driver on the simulated machine.
    text, places = re.subn(r"(?<= )/(?=proc/driver/nvidia/|usr/lib/wsl/)", f"{machine.folder}/", script.read_text())
    script.write_text(text)
    if driver:
        file = machine.folder / driver[1:]
        file.parent.mkdir(parents=True)
        file.touch()

    done = machine.set_up()

    assert done.returncode == 0, done.stderr
    assert places == 2
    assert ("--extra gpu" in machine.calls) == bool(driver)


def test_set_up_shows_what_is_installed_without_a_line_for_each_package(machine):
    machine.glibc("2.41")
    machine.python("python3", "3.13")

    done = machine.set_up(SEGPIPE_EXTRAS="gpu")

    assert "installing current.txt into .venv with Python 3.13.7: about" in done.stderr
    assert "Installed 1 package" in done.stderr
    assert "+ numpy" not in done.stderr
    assert "--extra gpu" in machine.calls


@pytest.mark.parametrize("command", ["", "exit 1"])
def test_python_without_venv_is_explained_with_what_to_install(machine, command):
    shutil.rmtree(machine.folder / ".cache")
    machine.glibc("2.41")
    if command:
        _script(machine.bin / "python3", f"#!/bin/sh\n{command}\n")
    else:
        (machine.bin / "python3").unlink()

    done = machine.set_up()

    assert done.returncode == 1
    assert done.stderr.endswith("apt-get install python3-venv\n")


@pytest.mark.parametrize(
    ("variables", "reinstalled"),
    [
        ({}, False),
        ({"SEGPIPE_STACK": "older"}, False),
        ({"SEGPIPE_STACK": "current"}, True),
        ({"SEGPIPE_EXTRAS": "dev,kubeflow"}, False),
        ({"SEGPIPE_EXTRAS": "dev,gpu"}, True),
    ],
)
def test_make_reinstalls_an_environment_that_lacks_what_is_asked_for(tmp_path, variables, reinstalled):
    shutil.copy(_ROOT / "Makefile", tmp_path)
    for name in ("scripts/setup.sh", "scripts/installer.sh", "pyproject.toml", ".venv/.ready"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("older pipeline kubeflow dev\n")

    planned = subprocess.run(
        ["make", "--just-print", "setup"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ("scripts/setup.sh" in planned.stdout) == reinstalled


def test_clean_removes_what_make_run_wrote_and_no_folder_of_the_environment(tmp_path):
    done = subprocess.run(
        ["make", "--just-print", "clean"],
        cwd=_ROOT,
        env={"PATH": os.environ["PATH"], "WORK": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == 'rm -rf "work"\n'
