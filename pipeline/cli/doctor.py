"""`segpipe doctor`: show what training can use on this machine, and what is missing."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.tensorflow_start import prepare
from pipeline.cli.extras import require
from pipeline.cli.options import AsJson
from pipeline.cli.printing import console, print_json, say

if TYPE_CHECKING:
    from components.gpu import GpuInspection, Problem

_SHARED_MEMORY = "/dev/shm"
# In bytes, as NVIDIA advises for NCCL; see pipeline/configuration/kubeflow.py.
_ENOUGH_SHARED_MEMORY = 2**30


def doctor(
    require_gpu: Annotated[
        bool, typer.Option("--require-gpu", help="Exit with 2 if TensorFlow finds no GPU that it can use.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what training can use on this machine and in this installation, and how to fix what is missing.

    Lists versions, processor, memory, GPUs, NVIDIA's driver and libraries, and what training.precision and training.xla
    mean here. It imports TensorFlow, which takes a few seconds.

    Exit codes: 0; 2 with --require-gpu if TensorFlow can use no GPU.
    """
    require("tensorflow")
    prepare(quiet=True)
    with console(stderr=True).status("starting TensorFlow"):
        from components import gpu

        usable = gpu.usable_gpus()
        found = gpu.inspect()
        facts = describe(found, len(usable))
        problems = _problems(found, facts)
    if as_json:
        print_json({**facts, "problems": [problem._asdict() for problem in problems]})
    else:
        _print(facts, problems)
    if require_gpu:
        gpu.require_gpu(usable)


def describe(found: GpuInspection, usable: int) -> dict[str, Any]:
    """Returns the facts as plain JSON types, memory in bytes; `usable` is the number of GPUs that TensorFlow lists."""
    from trainer import memory, precision

    return {
        "python": platform.python_version(),
        # The markers in pyproject.toml choose a stack's packages by this version.
        "stack": "older" if sys.version_info < (3, 11) else "current",
        "packages": {name: _version(name) for name in ("tensorflow", "keras", "tfx")},
        "cores": len(os.sched_getaffinity(0)),
        "bfloat16_features": sorted(precision.cpu_flags() & precision.BFLOAT16_CPU_FLAGS),
        "available_memory": memory.available(),
        "shared_memory": shutil.disk_usage(_SHARED_MEMORY).total if os.path.isdir(_SHARED_MEMORY) else 0,
        "driver": found.driver or None,
        "driver_cuda": ".".join(map(str, found.driver_cuda)) if any(found.driver_cuda) else None,
        "gpus": [dataclasses.asdict(device) for device in found.devices],
        "usable_gpus": usable,
        "built_for": {"cuda": found.build.cuda or None, "cudnn": found.build.cudnn or None},
        "libraries": {name: reason or "found" for name, reason in found.libraries.items()},
        "precision": precision.detect("auto"),
        "xla": precision.use_xla("auto", max(1, usable)),
    }


def _problems(found: GpuInspection, facts: dict[str, Any]) -> list[Problem]:
    from components import gpu

    if not facts["usable_gpus"]:
        return gpu.find_problems(found)
    if facts["usable_gpus"] > 1 and facts["shared_memory"] < _ENOUGH_SHARED_MEMORY:
        return [
            gpu.Problem(
                f"{_SHARED_MEMORY} is smaller than 1 GiB; several GPUs exchange gradients through it",
                "Start the container with `docker run --shm-size=1g`",
            )
        ]
    return []


def _print(facts: dict[str, Any], problems: list[Problem]) -> None:
    rows = _rows(facts)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{name:{width}}  {value}")
    if problems:
        say("\nto do" if facts["usable_gpus"] else "\nto use a GPU", style="bold")
    for problem in problems:
        say(f"- {problem.what}. {problem.remedy}")


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    built_for = facts["built_for"]
    rows = [
        ("Python", f"{facts['python']}, {facts['stack']} stack"),
        *((name, version or "not installed") for name, version in facts["packages"].items()),
        ("processor", f"{facts['cores']} cores, bfloat16 by {', '.join(facts['bfloat16_features']) or 'nothing'}"),
        ("memory", f"{_gibibytes(facts['available_memory'])} available"),
        (_SHARED_MEMORY, _gibibytes(facts["shared_memory"])),
        ("NVIDIA driver", _driver(facts)),
    ]
    for device in facts["gpus"]:
        capability = ".".join(map(str, device["capability"]))
        rows.append(("GPU", f"{device['name']}, compute capability {capability}, {_gibibytes(device['memory'])}"))
    if built_for["cuda"]:
        rows.append(("built for", f"CUDA {built_for['cuda']}, cuDNN {built_for['cudnn']}"))
    return [
        *rows,
        *facts["libraries"].items(),
        ("GPUs that TensorFlow uses", str(facts["usable_gpus"])),
        ("training.precision auto", facts["precision"]),
        ("training.xla auto", "on in long trainings" if facts["xla"] else "off"),
    ]


def _driver(facts: dict[str, Any]) -> str:
    if not facts["driver"] and not facts["driver_cuda"]:
        return "not found"
    return f"{facts['driver'] or 'of unknown version'}, for CUDA {facts['driver_cuda'] or 'of unknown version'}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
