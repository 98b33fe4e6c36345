"""Describes past runs for `segpipe runs`, from ML Metadata."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from components import files
from components.errors import UsageError, WorkdirBusyError
from components.pusher.versions import version_number
from components.times import utc_text
from pipeline.history.figures import main_figure
from pipeline.history.related import RelatedModel, find_baseline, find_predecessor, find_report
from pipeline.history.served import ServedModels
from pipeline.storage.store import Artifact, NodeExecution, Store, find_output
from pipeline.storage.workdir import SUMMARY_FILE, Workdir


def describe_runs(workdir: Workdir, served: ServedModels | None = None, project: str = "") -> list[dict[str, Any]]:
    """Returns an overview of each run, oldest first: state, scores, verdict, pushed version and how it is served.

    Without `served`, the newest version of each model counts as served. An empty `project` selects all projects.

    Raises:
        UsageError: the metadata is missing, or has no run of the project.
    """
    store, running, served = Store(workdir.source), running_run(workdir), served or ServedModels()
    runs = [_overview(run.name, run.executions, run.name == running, served) for run in store.runs()]
    known = sorted({run["project"] for run in runs})
    if project and project not in known:
        raise UsageError(f"--project {project}: not found, expected one of: {', '.join(known) or 'none'}")
    return [run for run in runs if project in ("", run["project"])]


def describe_run(workdir: Workdir, run_id: str, served: ServedModels | None = None) -> dict[str, Any]:
    """Returns the overview of one run, its lineage and its components. An empty `run_id` means the last finished run.

    Raises:
        UsageError: the metadata is missing, or does not know the run.
    """
    store = Store(workdir.source)
    run_id = run_id or latest_run(workdir, store)
    executions = store.executions(run_id)
    is_running = run_id == running_run(workdir)
    overview = _overview(run_id, executions, is_running, served or ServedModels())
    predecessor = find_predecessor(store, overview["pushed"]) if overview["pushed"] else None
    return {
        **overview,
        "data_hash": property_of(executions, "ImageMaskExampleGen", "examples", "input_fingerprint"),
        "code_hashes": code_hashes(executions),
        "report": find_report(workdir, run_id, executions),
        "baseline": _describe_related(workdir, store, find_baseline(store, executions)),
        "predecessor": _describe_related(workdir, store, predecessor),
        "components": [
            {
                "name": execution.node_id,
                "state": state_now(execution.state, is_running),
                "seconds": round(execution.ended - execution.started, 3),
                "figure": main_figure(execution),
                "inputs": _uris(execution.inputs),
                "outputs": _uris(execution.outputs),
            }
            for execution in executions
        ],
    }


def latest_run(workdir: Workdir, store: Store) -> str:
    """Returns the run that finished last or, on a cluster, the newest run. Raises UsageError if there is no run."""
    if not files.is_remote(workdir.root) and os.path.islink(workdir.latest):
        return os.path.basename(os.path.realpath(workdir.latest))
    runs = store.run_ids()
    if not runs:
        raise UsageError(f"{workdir.root}: found no run, expected one. Start one: segpipe run --data DIR")
    return runs[-1]


def running_run(workdir: Workdir) -> str | None:
    """Returns the run that holds the lock of the work directory; None if no run is known to."""
    if not os.path.isdir(workdir.runs):
        return None
    # A run creates its folder as soon as it holds the lock, and writes its summary at its end.
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


def _overview(
    run_id: str, executions: Sequence[NodeExecution], is_running: bool, served: ServedModels
) -> dict[str, Any]:
    blessed = property_of(executions, "Evaluator", "blessing", "blessed")
    model = find_output(executions, "Pusher", "pushed_model")
    pushed = model.pushed if model else None
    started = min((execution.started for execution in executions), default=None)
    return {
        "run_id": run_id,
        "project": next((execution.project for execution in executions if execution.project), ""),
        "started": None if started is None else utc_text(started),
        "state": state_now(_state(executions), is_running),
        "mean_iou": property_of(executions, "Report", "report", "mean_iou"),
        "mean_dice": property_of(executions, "Report", "report", "mean_dice"),
        "mask_ap": property_of(executions, "Report", "report", "mask_ap"),
        "gate": {None: "", 0: "not blessed", 1: "blessed"}[blessed],
        "pushed": pushed,
        "version": version_number(pushed) if pushed else None,
        "served": [dataclasses.asdict(state) for state in served.states(pushed)] if pushed else [],
    }


def _describe_related(workdir: Workdir, store: Store, model: RelatedModel | None) -> dict[str, Any] | None:
    if model is None:
        return None
    report = find_report(workdir, model.run_id, store.executions(model.run_id)) if model.run_id else None
    found = {"run_id": model.run_id, "version": model.version, "pushed": model.pushed, "report": report}
    return {**found, "why": model.why} if model.why else found


def _state(executions: Sequence[NodeExecution]) -> str:
    for state in ("failed", "interrupted"):
        for execution in executions:
            if execution.state == state:
                return f"{state} in {execution.node_id}"
    return "finished" if any(execution.node_id == "Report" for execution in executions) else "interrupted"


def state_now(state: str, is_running: bool) -> str:
    """Corrects `interrupted` to `running`.

    ML Metadata cannot tell a running execution from an interrupted one; the run lock can.
    """
    return state.replace("interrupted", "running") if is_running else state


def property_of(executions: Sequence[NodeExecution], node_id: str, key: str, name: str) -> Any:
    """Returns a property of a node's first output artifact under a key; None if either is missing."""
    artifact = find_output(executions, node_id, key)
    return artifact.properties.get(name) if artifact else None


def code_hashes(executions: Sequence[NodeExecution]) -> dict[str, str]:
    """Returns the source hash of each component that has one, as a property or in its custom_config."""
    hashes = {}
    for execution in executions:
        custom_config = json.loads(execution.properties.get("custom_config") or "null") or {}
        if code := execution.properties.get("code") or custom_config.get("code"):
            hashes[execution.node_id] = str(code)
    return hashes


def _uris(artifacts: dict[str, list[Artifact]]) -> dict[str, list[str]]:
    return {key: [artifact.uri for artifact in group] for key, group in artifacts.items()}
