"""Runs the pipeline and reads finished runs, for the benchmarks that compare them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from components.errors import UsageError
from pipeline.storage.store import NodeExecution, Store
from pipeline.storage.workdir import SUMMARY_FILE, Workdir

# Settings of a gate that accepts every model.
OPEN_GATE = ("gate.min_mean_iou=0", "gate.min_class_iou={}", "gate.max_mean_drop=1", "gate.max_class_drop=1")


def run_pipeline(*options: str, work: str, settings: Sequence[str], quiet: bool = True) -> dict[str, Any]:
    """Runs the pipeline in a separate process and returns its summary.

    Args:
        options: options of `segpipe run`.
        work: the work directory.
        settings: values of `--set`.
        quiet: hide what the run prints.
    """
    command = [sys.executable, "-m", "pipeline.cli.main", "run", "--out", work, *options]
    command += [word for setting in settings for word in ("--set", setting)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL if quiet else None)
    with open(os.path.join(work, "latest", SUMMARY_FILE)) as file:
        return json.load(file)


def newest_training(root: str) -> tuple[dict[str, Any], dict[str, NodeExecution]]:
    """Returns the summary and the executions by node of the newest finished run that trained.

    Args:
        root: the work directory.

    Raises:
        UsageError: no finished run trained.
    """
    workdir = Workdir(root)
    store = Store(workdir.metadata)
    for run_id in reversed(store.run_ids()):
        executions = {execution.node_id: execution for execution in store.executions(run_id)}
        path = os.path.join(workdir.run(run_id), SUMMARY_FILE)
        if "Trainer" in executions and executions["Trainer"].state == "ran" and os.path.exists(path):
            with open(path) as file:
                return json.load(file), executions
    raise UsageError(f"{root}: found no finished run that trained, expected a work directory of `segpipe run`")


def named(argument: str) -> tuple[str, str]:
    """Splits `NAME=WORKDIR`; without a name, the work directory is the name."""
    name, _, root = argument.rpartition("=")
    return name or root, root
