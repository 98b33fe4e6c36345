"""Reads finished runs, for the benchmarks that compare them."""

from __future__ import annotations

import json
import os
from typing import Any

from components.errors import UsageError
from pipeline.storage.store import NodeExecution, Store
from pipeline.storage.workdir import SUMMARY_FILE, Workdir


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
