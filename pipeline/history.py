"""Describes past runs from ML Metadata, for the console and for other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from components.errors import UsageError, WorkdirBusyError
from pipeline.figures import main_figure
from pipeline.store import Artifact, NodeExecution, Store
from pipeline.workdir import REPORT_FILE, SUMMARY_FILE, Workdir


def describe_runs(workdir: Workdir) -> list[dict[str, Any]]:
    """Returns one line a run, oldest first: state, score, verdict and where it was pushed."""
    store, running = Store(workdir.metadata), _running(workdir)
    return [_overview(run_id, store.executions(run_id), run_id == running) for run_id in store.run_ids()]


def describe_run(workdir: Workdir, run_id: str) -> dict[str, Any]:
    """Returns everything known of one run, its components included. Raises UsageError for an unknown run."""
    executions = Store(workdir.metadata).executions(run_id)
    under_way = run_id == _running(workdir)
    report = os.path.join(workdir.run(run_id), REPORT_FILE)
    return {
        **_overview(run_id, executions, under_way),
        "data_hash": _property(executions, "ImageMaskExampleGen", "examples", "input_fingerprint"),
        "code_hashes": {e.node_id: code for e in executions if (code := _code_hash(e))},
        "report": report if os.path.exists(report) else None,
        "components": [
            {
                "name": execution.node_id,
                "state": _as_of_now(execution.state, under_way),
                "seconds": round(execution.ended - execution.started, 3),
                "figure": main_figure(execution),
                "inputs": _uris(execution.inputs),
                "outputs": _uris(execution.outputs),
            }
            for execution in executions
        ],
    }


def _running(workdir: Workdir) -> str | None:
    """Returns the run that holds the work directory; None where none does, or where it cannot be told."""
    if not os.path.isdir(workdir.runs):
        return None
    # A run makes its folder as soon as it holds the lock, and its summary at its end.
    newest = max(os.listdir(workdir.runs), default=None)
    if newest is None or os.path.exists(os.path.join(workdir.run(newest), SUMMARY_FILE)):
        return None
    try:
        with workdir.lock(wait=False):
            return None
    except WorkdirBusyError:
        return newest
    except UsageError:
        return None


def _overview(run_id: str, executions: Sequence[NodeExecution], under_way: bool) -> dict[str, Any]:
    blessed = _property(executions, "Evaluator", "blessing", "blessed")
    pushed = _property(executions, "Pusher", "pushed_model", "pushed")
    return {
        "run_id": run_id,
        "started": min((execution.started for execution in executions), default=None),
        "state": _as_of_now(_state(executions), under_way),
        "mean_iou": _property(executions, "Report", "report", "mean_iou"),
        "mean_dice": _property(executions, "Report", "report", "mean_dice"),
        "gate": {None: "", 0: "not blessed", 1: "blessed"}[blessed],
        "pushed": _property(executions, "Pusher", "pushed_model", "pushed_destination") if pushed else None,
    }


def _state(executions: Sequence[NodeExecution]) -> str:
    for state in ("failed", "interrupted"):
        for execution in executions:
            if execution.state == state:
                return f"{state} in {execution.node_id}"
    return "finished" if any(execution.node_id == "Report" for execution in executions) else "interrupted"


def _as_of_now(state: str, under_way: bool) -> str:
    """Returns a state as it is: the metadata says of what is running that it was interrupted, for it cannot know."""
    return state.replace("interrupted", "running") if under_way else state


def _property(executions: Sequence[NodeExecution], node_id: str, key: str, name: str) -> Any:
    for execution in executions:
        if execution.node_id == node_id and execution.outputs.get(key):
            return execution.outputs[key][0].properties.get(name)
    return None


def _code_hash(execution: NodeExecution) -> str | None:
    """Returns the hash of a component's source, which it carries as a property of its own or in custom_config."""
    if "code" in execution.properties:
        return str(execution.properties["code"])
    custom_config = json.loads(execution.properties.get("custom_config") or "null") or {}
    return custom_config.get("code")


def _uris(artifacts: dict[str, list[Artifact]]) -> dict[str, list[str]]:
    return {key: [artifact.uri for artifact in group] for key, group in artifacts.items()}
