"""The Dockerfiles follow a policy, and the command runs with the files and packages that they copy and install.

The tests do not build the images. They copy the files of the COPY instructions into a folder, and link the packages of
this environment. On the current stack it has the versions of the lock, which the images install.
"""

import mmap
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
from dockerfiles import chain, copied, copy_into, read
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from project import PROJECT, ROOT, pins, removed, requirements

_FILES = sorted((ROOT / "kubernetes" / "images").glob("*.Dockerfile"))
_TARGETS = {
    "pipeline": "pipeline",
    "pipeline-gpu": "pipeline",
    "beam-worker": "pipeline",
    "serving-tools": "serving-tools",
}
# The extras of pyproject.toml that each image installs.
_EXTRAS = {
    "pipeline": {"pipeline", "kubeflow", "mlflow"},
    "pipeline-gpu": {"pipeline", "kubeflow", "mlflow", "gpu"},
    "beam-worker": {"pipeline", "kubeflow", "mlflow"},
    "serving-tools": {"serving"},
}
_INSTALL = (
    "uv pip install --no-cache --require-hashes --constraints requirements/current.txt"
    " --build-constraints requirements/current.txt --requirements pyproject.toml"
)

current_stack = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the images have the packages of the current stack"
)


def _stages(target):
    return read(ROOT / "kubernetes" / "images" / f"{_TARGETS[target]}.Dockerfile")


def _built_from(target):
    """Returns the stages that an image is built from or copies from, its own stage last."""
    stages = _stages(target)
    by_name = {one.name: one for one in stages}
    pending, found = [target], []
    while pending:
        stage = by_name[pending.pop()]
        found.insert(0, stage)
        pending += [name for name in (stage.base, *_copied_from(stage)) if name in by_name]
    return found


def _copied_from(stage):
    return [one.words[0].removeprefix("--from=") for one in stage.all("COPY") if one.words[0].startswith("--from=")]


def _commands(stages):
    """Yields the commands of all RUN instructions, with single spaces."""
    for stage in stages:
        for run in stage.all("RUN"):
            yield from (" ".join(command.split()) for command in run.text.split("&&"))


def _closure(wanted):
    """Returns the installed distributions that the requirements need on this platform, by name."""
    found, gone = {}, removed()
    pending = [(one.name, tuple(sorted(one.extras))) for one in wanted if not one.marker or one.marker.evaluate()]
    while pending:
        name, extras = pending.pop()
        key = canonicalize_name(name)
        if (key, extras) in found or key in gone:
            continue
        found[key, extras] = distribution = metadata.distribution(name)
        for text in distribution.requires or ():
            needed = Requirement(text)
            environments = [{**default_environment(), "extra": extra} for extra in (*extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(one) for one in environments):
                pending.append((needed.name, tuple(sorted(needed.extras))))
    return {name: distribution for (name, _), distribution in found.items()}


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_every_base_image_is_an_earlier_stage_or_pinned_to_a_patch_version(file):
    seen = set()
    for stage in read(file):
        assert stage.base in seen or re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-[\w-]+)?", stage.base), stage.base
        seen.add(stage.name)


@pytest.mark.parametrize("target", _TARGETS)
def test_an_image_runs_as_a_non_root_user(target):
    users = [one.text for one in chain(_stages(target), target) if one.name == "USER"]

    assert users
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)


@pytest.mark.parametrize("target", _TARGETS)
def test_packages_come_from_the_lock_with_hashes_and_no_cache_stays_in_a_layer(target):
    installs = {
        command for command in _commands(_built_from(target)) if re.search(r"\b(pip|uv) (install|sync)", command)
    }
    extras = set()
    for command in installs:
        options, *names = command.split(" --extra ")
        if options == "pip install --no-cache-dir --require-hashes --requirement requirements/bootstrap.txt":
            continue
        assert options == _INSTALL
        extras |= set(names)

    assert extras == _EXTRAS[target]
    assert extras <= set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_images_fetch_only_packages_and_install_no_compiler(file):
    stages = read(file)

    assert not any(stage.all("ADD") for stage in stages)
    for command in _commands(stages):
        assert not re.search(r"\b(curl|wget|sudo|git|apt|apt-get|dpkg|gcc|g\+\+|clang|make)\b", command), command


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_packages_are_installed_with_compiled_bytecode(file):
    stages = read(file)

    for stage in stages:
        instructions = chain(stages, stage.name)
        if any(re.search(r"uv pip (sync|install)", one.text) for one in stage.all("RUN")):
            assert any("UV_COMPILE_BYTECODE=1" in one.words for one in instructions if one.name == "ENV")


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_sources_are_compiled_after_they_are_copied(file):
    for stage in read(file):
        texts = [one.text for one in stage.instructions if one.name in ("COPY", "RUN")]
        copies = [place for place, text in enumerate(texts) if " /app/" in text]
        assert not copies or "python -m compileall -q /app" in texts[copies[-1] :]


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_copied_files_exist_and_are_in_the_build_context(file):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    passed = [line[1:] for line in ignored if line.startswith("!")]
    stages = read(file)
    names = {stage.name for stage in stages}
    assert "*" in ignored

    for stage in stages:
        for instruction in stage.all("COPY"):
            sources, _ = copied(instruction)
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(source == name or source.startswith(f"{name}/") for name in passed), source
            if not sources:
                assert instruction.words[0].removeprefix("--from=") in names


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_requirement_files_are_copied_before_they_are_read(file):
    for stage in read(file):
        instructions = chain(read(file), stage.name)
        there = set()
        for instruction in instructions:
            if instruction.name == "COPY":
                there |= set(copied(instruction)[0])
            elif instruction.name == "RUN":
                read_files = set(re.findall(r"requirements/[\w.]+|pyproject\.toml", instruction.text))
                assert read_files <= there, instruction.text


@pytest.mark.parametrize("target", _TARGETS)
def test_make_images_builds_every_image_and_no_other(target):
    makefile = (ROOT / "Makefile").read_text()

    built = re.findall(r"--file (\S+)(?: --target \S+)? --tag \$\(REGISTRY\)/(\S+):\$\(TAG\)", makefile)
    assert {name for _, name in built} == set(_TARGETS)
    assert (f"kubernetes/images/{_TARGETS[target]}.Dockerfile", target) in built
    assert all(Path(file).name in {one.name for one in _FILES} for file, _ in built)


def test_base_images_have_a_supported_python_and_the_glibc_that_tfx_needs():
    bases = {stage.base for file in _FILES for stage in read(file) if stage.base.startswith("python:")}

    # TFX 1.21 needs glibc 2.39; Debian 13 has 2.41.
    (version,) = {re.fullmatch(r"python:([\d.]+)-slim-trixie", base).group(1) for base in bases}
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])
    for file in _FILES:
        folders = set(re.findall(r"lib/(python[\d.]+)/site-packages", file.read_text()))
        assert folders <= {f"python{version.rpartition('.')[0]}"}


def test_a_beam_worker_has_the_entry_point_of_the_locked_beam():
    stages = _stages("beam-worker")
    with_pip, worker = stages[-2:]
    instructions = {one.name: one.text for one in worker.instructions}
    (entry_point,) = (stage.base for stage in stages if stage.name == "beam")
    (python,) = {stage.base for stage in stages if stage.base.startswith("python:")}

    minor = python.removeprefix("python:").rpartition(".")[0]
    assert entry_point == f"apache/beam_python{minor}_sdk:{pins()['apache-beam']}"
    assert instructions["ENTRYPOINT"] == '["/opt/apache/beam/boot"]'
    assert worker.all("COPY")[1].words == ["--from=beam", "/opt/apache/beam", "/opt/apache/beam"]
    # tests/pipeline/test_portable_runner.py starts a worker in the same way: with this variable, and with pip.
    assert instructions["ENV"] == "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1"
    assert "include-system-site-packages = true" in with_pip.all("RUN")[0].text
    assert worker.all("COPY")[0].words[0] == f"--from={with_pip.name}"


@current_stack
def test_the_lock_has_the_cuda_that_tensorflow_requires():
    named = [Requirement(text) for text in metadata.requires("tensorflow")]
    cuda = [one for one in named if one.marker and "and-cuda" in str(one.marker)]
    pinned = pins()

    assert cuda
    for one in cuda:
        assert pinned[one.name] in one.specifier
        # The Dockerfile moves packages with this prefix.
        assert one.name.startswith("nvidia-")


@current_stack
def test_the_gpu_image_sets_the_path_of_libraries_that_tensorflow_does_not_find():
    # TensorFlow registers no GPU unless `DsoLoader::TryDlopenCUDALibraries` loads all of these. It loads them from
    # libtensorflow_framework.so.2, so that library's search path counts.
    needed = {"cublas", "cuda_runtime", "cudnn", "cufft", "cusolver", "cusparse"}
    library = metadata.distribution("tensorflow").locate_file("tensorflow/libtensorflow_framework.so.2")
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        searched = {name.decode() for name in re.findall(rb"\$ORIGIN/\.\./nvidia/(\w+)/lib", content)}

    (stage,) = (one for one in _stages("pipeline-gpu") if one.name == "pipeline-gpu")
    (settings,) = (one.text for one in stage.all("ENV"))
    (paths,) = re.findall(r"^LD_LIBRARY_PATH=(\S+)$", settings)
    folder = "/opt/segpipe/lib/python3.13/site-packages/nvidia"
    assert paths.split(":") == [f"{folder}/{name}/lib" for name in sorted(needed - searched)]


@current_stack
@pytest.mark.parametrize("target", ["serving-tools", "pipeline"])
def test_the_lock_pins_everything_that_an_image_needs(target):
    pinned = pins()

    needed = {name: one.version for name, one in _closure(requirements(*_EXTRAS[target])).items()}
    assert needed == {name: pinned.get(name) for name in needed}
    assert ({"tfx", "apache-beam", "kfp"} & set(needed) != set()) == (target == "pipeline")


@pytest.fixture(scope="module")
def expose(tmp_path_factory):
    """Returns a function that creates an image's file system: its copied files and its packages."""

    def build(target):
        root = tmp_path_factory.mktemp(target)
        copy_into(root, chain(_stages(target), target), ROOT)
        interpreter = root / "opt" / "segpipe"
        venv.create(interpreter, symlinks=True)
        (site,) = interpreter.glob("lib/python*/site-packages")
        if target == "serving-tools":
            for distribution in _closure(requirements("serving")).values():
                _link(distribution, site)
        else:
            # Python does not read the .pth files in this path, so this checkout's editable install is not found.
            (site / "packages.pth").write_text(str(Path(metadata.distribution("tfx").locate_file("."))))
        return root

    return build


def _link(distribution, site):
    """Links the files of a distribution into another environment."""
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
def test_the_files_and_packages_of_an_image_run_the_command(expose, target):
    root = expose(target)
    modules = {
        "pipeline": "pipeline.configuration.loading, pipeline.cli.run, components.dataset.description",
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
