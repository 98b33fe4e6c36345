"""Describes past runs from ML Metadata, for the console and for other programs."""

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
from pipeline.storage.store import Artifact, NodeExecution, Store
from pipeline.storage.workdir import SUMMARY_FILE, Workdir


def describe_runs(workdir: Workdir, served: ServedModels | None = None, project: str = "") -> list[dict[str, Any]]:
    """Returns an overview of each run, oldest first: state, score, verdict, pushed version and how it is served.

    Args:
        workdir: the work directory.
        served: tells how versions are served; None for the newest version of each model.
        project: the project whose runs to list; empty for all.

    Raises:
        UsageError: there is no metadata, or no run of that project.
    """
    store, running, served = Store(workdir.source), running_run(workdir), served or ServedModels()
    runs = [_overview(run_id, store.executions(run_id), run_id == running, served) for run_id in store.run_ids()]
    known = sorted({run["project"] for run in runs})
    if project and project not in known:
        raise UsageError(f"--project {project}: found no run of it, expected one of: {', '.join(known) or 'none'}")
    return [run for run in runs if project in ("", run["project"])]


def describe_run(workdir: Workdir, run_id: str, served: ServedModels | None = None) -> dict[str, Any]:
    """Returns everything known of one run, its components included.

    Args:
        workdir: the work directory.
        run_id: the run; empty for the one that finished last.
        served: tells how versions are served; None for the newest version of each model.

    Raises:
        UsageError: the metadata is missing, or does not know the run.
    """
    store = Store(workdir.source)
    run_id = run_id or latest_run(workdir, store)
    executions = store.executions(run_id)
    under_way = run_id == running_run(workdir)
    overview = _overview(run_id, executions, under_way, served or ServedModels())
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
                "state": state_now(execution.state, under_way),
                "seconds": round(execution.ended - execution.started, 3),
                "figure": main_figure(execution),
                "inputs": _uris(execution.inputs),
                "outputs": _uris(execution.outputs),
            }
            for execution in executions
        ],
    }


def latest_run(workdir: Workdir, store: Store) -> str:
    """Returns the run that finished last; on a cluster, which has no link to it, the newest one.

    Raises:
        UsageError: there is no run yet.
    """
    if not files.is_remote(workdir.root) and os.path.islink(workdir.latest):
        return os.path.basename(os.path.realpath(workdir.latest))
    runs = store.run_ids()
    if not runs:
        raise UsageError(f"{workdir.root}: found no run, expected one. Start one: segpipe run --data DIR")
    return runs[-1]


def running_run(workdir: Workdir) -> str | None:
    """Returns the run that holds the work directory; None if none does, or if it is not known."""
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


def _overview(
    run_id: str, executions: Sequence[NodeExecution], under_way: bool, served: ServedModels
) -> dict[str, Any]:
    blessed = property_of(executions, "Evaluator", "blessing", "blessed")
    done = property_of(executions, "Pusher", "pushed_model", "pushed")
    pushed = property_of(executions, "Pusher", "pushed_model", "pushed_destination") if done else None
    started = min((execution.started for execution in executions), default=None)
    return {
        "run_id": run_id,
        "project": next((execution.project for execution in executions if execution.project), ""),
        "started": None if started is None else utc_text(started),
        "state": state_now(_state(executions), under_way),
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


def state_now(state: str, under_way: bool) -> str:
    """Returns a state as the run lock has it: ML Metadata cannot tell a running execution from an interrupted one."""
    return state.replace("interrupted", "running") if under_way else state


def property_of(executions: Sequence[NodeExecution], node_id: str, key: str, name: str) -> Any:
    """Returns a property of a node's first output artifact under a key; None without one."""
    for execution in executions:
        if execution.node_id == node_id and execution.outputs.get(key):
            return execution.outputs[key][0].properties.get(name)
    return None


def code_hashes(executions: Sequence[NodeExecution]) -> dict[str, str]:
    """Returns the hash of each component's source, of those that carry one."""
    return {execution.node_id: code for execution in executions if (code := _code_hash(execution))}


def _code_hash(execution: NodeExecution) -> str | None:
    """Returns the hash of a component's source, which it carries as a property of its own or in custom_config."""
    if "code" in execution.properties:
        return str(execution.properties["code"])
    custom_config = json.loads(execution.properties.get("custom_config") or "null") or {}
    return custom_config.get("code")


def _uris(artifacts: dict[str, list[Artifact]]) -> dict[str, list[str]]:
    return {key: [artifact.uri for artifact in group] for key, group in artifacts.items()}
