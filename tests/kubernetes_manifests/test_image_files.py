"""The Dockerfiles keep to a policy, and what they copy and install suffices to run the command.

No container engine builds them here: their COPY steps are done into a folder, and this environment, made from the same
requirement files, stands in for what their RUN steps install.
"""

import os
import re
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import pytest
from dockerfiles import chain, copied, copy_into, read
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parent.parent.parent
_FILES = sorted((_ROOT / "kubernetes" / "images").glob("*.Dockerfile"))
_TARGETS = {"pipeline": "pipeline", "pipeline-gpu": "pipeline", "serving-tools": "serving-tools"}


def _stages(target):
    return read(_ROOT / "kubernetes" / "images" / f"{_TARGETS[target]}.Dockerfile")


def _pins(name):
    """Returns the versions that a requirement file pins."""
    lines = (_ROOT / "requirements" / name).read_text().splitlines()
    return dict(re.match(r"([^=\[]+)(?:\[.*\])?==(\S+)", line).groups() for line in lines if re.match(r"\w.*==", line))


def _closure(names):
    """Returns the installed distributions that names need, themselves included, with every marker of this platform."""
    found, pending = {}, [(Requirement(name).name, ()) for name in names]
    while pending:
        name, extras = pending.pop()
        key = canonicalize_name(name)
        if (key, extras) in found:
            continue
        found[key, extras] = distribution = metadata.distribution(name)
        for text in distribution.requires or ():
            needed = Requirement(text)
            environments = [{**default_environment(), "extra": extra} for extra in (*extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(one) for one in environments):
                pending.append((needed.name, tuple(sorted(needed.extras))))
    return {name: distribution for (name, _), distribution in found.items()}


def _serving_requirements():
    lines = (_ROOT / "requirements" / "serving.in").read_text().splitlines()
    return [line for line in lines if line and line[0] not in "#-"]


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_every_base_is_pinned_to_a_patch_version_or_a_stage_before(file):
    seen = set()
    for stage in read(file):
        assert stage.base in seen or re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+-[\w-]+", stage.base), stage.base
        seen.add(stage.name)


@pytest.mark.parametrize("target", _TARGETS)
def test_an_image_runs_as_a_user_who_is_not_root(target):
    users = [one.text for one in chain(_stages(target), target) if one.name == "USER"]

    assert users
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_nothing_is_fetched_but_packages_and_no_cache_stays_in_a_layer(file):
    for stage in read(file):
        assert not stage.all("ADD")
        for run in stage.all("RUN"):
            assert not re.search(r"\b(curl|wget|sudo|git)\b|:latest", run.text), run.text
            for command in re.split(r"&&", run.text):
                if "pip install" in command or "pip sync" in command:
                    assert "--no-cache" in command, command
                    assert "requirements/" in command, command
                if "apt-get install" in command:
                    assert "--no-install-recommends" in command
                    assert "rm -rf /var/lib/apt/lists" in run.text


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_packages_are_installed_with_the_bytecode_that_a_container_cannot_keep(file):
    stages = read(file)

    for stage in stages:
        instructions = chain(stages, stage.name)
        if any(re.search(r"uv pip (sync|install)", one.text) for one in stage.all("RUN")):
            assert any("UV_COMPILE_BYTECODE=1" in one.words for one in instructions if one.name == "ENV")


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_what_is_copied_is_in_the_repository_and_reaches_the_builder(file):
    ignored = (_ROOT / ".dockerignore").read_text().splitlines()
    passed = [line[1:] for line in ignored if line.startswith("!")]
    stages = read(file)
    names = {stage.name for stage in stages}
    assert "*" in ignored

    for stage in stages:
        for instruction in stage.all("COPY"):
            sources, _ = copied(instruction)
            for source in sources:
                assert (_ROOT / source).exists(), source
                assert any(source == name or source.startswith(f"{name}/") for name in passed), source
            if not sources:
                assert instruction.words[0].removeprefix("--from=") in names


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_every_requirement_file_that_a_step_reads_was_copied_before(file):
    for stage in read(file):
        instructions = chain(read(file), stage.name)
        there = set()
        for instruction in instructions:
            if instruction.name == "COPY":
                there |= set(copied(instruction)[0])
            elif instruction.name == "RUN":
                assert set(re.findall(r"requirements/[\w.]+", instruction.text)) <= there, instruction.text


@pytest.mark.parametrize("target", _TARGETS)
def test_make_images_builds_every_image_and_no_other(target):
    makefile = (_ROOT / "Makefile").read_text()

    built = re.findall(r"--file (\S+)(?: --target \S+)? --tag \$\(REGISTRY\)/(\S+):\$\(TAG\)", makefile)
    assert {name for _, name in built} == set(_TARGETS)
    assert (f"kubernetes/images/{_TARGETS[target]}.Dockerfile", target) in built
    assert all(Path(file).name in {one.name for one in _FILES} for file, _ in built)


def test_the_interpreter_is_the_project_s():
    version = (_ROOT / ".python-version").read_text().strip()

    for file in _FILES:
        assert all(stage.base.startswith(f"python:{version}.") for stage in read(file) if ":" in stage.base)


def test_the_gpu_image_has_the_cuda_that_tensorflow_names():
    named = [Requirement(text) for text in metadata.requires("tensorflow")]
    cuda = {one.name: str(one.specifier) for one in named if one.marker and one.marker.evaluate({"extra": "and-cuda"})}
    everything = {one.name for one in named if not one.marker or one.marker.evaluate({"extra": ""})}

    assert {name: f"=={version}" for name, version in _pins("gpu.txt").items()} == {
        name: specifier for name, specifier in cuda.items() if name not in everything
    }


def test_the_gpu_image_finds_every_library_it_installs():
    (settings,) = (one.text for one in _stages("pipeline-gpu")[-1].instructions if one.name == "ENV")
    packages = {name.removeprefix("nvidia-").removesuffix("-cu12").replace("-", "_") for name in _pins("gpu.txt")}

    named = set(re.findall(r"/opt/cuda/nvidia/(\w+)/(?:lib|bin)", settings))
    assert named == packages


def test_the_serving_tools_need_nothing_that_the_lock_does_not_pin():
    pins = {canonicalize_name(name): version for name, version in _pins("segpipe.txt").items()}

    needed = {name: distribution.version for name, distribution in _closure(_serving_requirements()).items()}
    assert needed == {name: pins.get(name) for name in needed}
    assert not {"tfx", "apache-beam", "kfp"} & set(needed)


@pytest.fixture(scope="module")
def expose(tmp_path_factory):
    """Returns a function that makes an image's file system: its copied files, and the packages that it installs."""

    def build(target):
        root = tmp_path_factory.mktemp(target)
        copy_into(root, chain(_stages(target), target), _ROOT)
        interpreter = root / "opt" / "segpipe"
        venv.create(interpreter, symlinks=True)
        (site,) = interpreter.glob("lib/python*/site-packages")
        if target == "serving-tools":
            for distribution in _closure(_serving_requirements()).values():
                _link(distribution, site)
        else:
            # A path without its .pth files: the finder that leads to this checkout's packages stays out.
            (site / "packages.pth").write_text(str(Path(metadata.distribution("tfx").locate_file("."))))
        return root

    return build


def _link(distribution, site):
    """Links what a distribution installed into another environment."""
    for file in distribution.files:
        place = site / file.parts[0]
        if file.parts[0] != ".." and not place.is_symlink() and len(file.parts) > 1:
            place.symlink_to(distribution.locate_file(file.parts[0]))
        elif len(file.parts) == 1 and not place.exists() and place.suffix != ".pth":
            place.symlink_to(distribution.locate_file(file))


def _run(root, *words):
    environment = {
        "PATH": f"{root}/opt/segpipe/bin:{os.environ['PATH']}",
        "PYTHONPATH": f"{root}/app",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HOME": str(root),
    }
    command = [f"{root}/opt/segpipe/bin/python", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["pipeline", "serving-tools"])
def test_what_an_image_copies_and_installs_runs_the_command(expose, target):
    root = expose(target)
    modules = {
        "pipeline": "pipeline.config, pipeline.cli.run, components.dataset.description",
        "serving-tools": "serving.release.rollout, serving.release.records, serving.predictor, kubernetes.client",
    }[target]

    helped = _run(root, f"{root}/usr/local/bin/segpipe", "--help")
    made = _run(root, f"{root}/usr/local/bin/segpipe", "data", "make", "data", "--train", "2", "--val", "1")
    imported = _run(
        root,
        "-c",
        f"import sys, pipeline, components, trainer, serving, {modules}\n"
        "print(*{getattr(module, '__file__', None) or '' for name, module in list(sys.modules.items())"
        " if name.partition('.')[0] in ('pipeline', 'components', 'trainer', 'serving')}, sep='\\n')",
    )

    assert helped.returncode == 0, helped.stderr
    assert "release" in helped.stdout
    assert made.returncode == 0, made.stderr
    assert imported.returncode == 0, imported.stderr
    assert all(path.startswith(f"{root}/app/") for path in imported.stdout.split())


def test_the_packages_that_stand_in_are_those_that_the_images_pin():
    for name in ("segpipe.txt", "edges.txt"):
        for package, version in _pins(name).items():
            assert metadata.version(package) == version
