"""Runs a task's nodes of the pipeline in order in a container on Kubeflow, through TFX's launcher.

`python -m pipeline.kubeflow.node --task Trainer --configuration JSON --executor-input JSON`

The task's log has about a dozen lines. The output of TensorFlow, TFX and Beam goes to a file in the run's folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components import files
from components.dataset.data_files import listed_once
from components.dataset.description import DatasetDescription
from components.errors import EXIT_FAILED, SegpipeError, UsageError
from components.tensorflow_start import prepare
from pipeline.configuration import spans
from pipeline.configuration.config import ProjectSettings, RunConfig
from pipeline.configuration.data import describe, with_gate_split
from pipeline.history.served import check_served_name
from pipeline.kubeflow.connection import OLDEST_SERVER
from pipeline.kubeflow.parameters import RUN_ID, configure
from pipeline.kubeflow.tasks import TASKS, tasks_of
from pipeline.running import logs
from pipeline.running.console import RunConsole
from pipeline.running.notifications import Notifier
from pipeline.running.tfx_start import import_tfx
from pipeline.storage.store import NodeExecution
from pipeline.storage.workdir import Workdir
from pipeline.wiring.beam_workers import refuse_remote_workers

_CLASS_BOUNDS = "min_class_iou"
# Nodes of the first task. Their properties record the data that the run found.
_READS_DATA = "ImageMaskExampleGen"
_CHOOSES_SPLIT = "QuarantineGate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a task and returns its exit code: 0, or that of the error."""
    parser = argparse.ArgumentParser(description="Run a task of the pipeline on Kubeflow.")
    parser.add_argument("--task", required=True, choices=TASKS, help="the task's name")
    parser.add_argument("--configuration", required=True, help="compiled settings, JSON")
    parser.add_argument("--defaults", default="{}", help="values of the parameters that the task does not take, JSON")
    parser.add_argument("--executor-input", required=True, help="what Kubeflow's launcher passes to a task, JSON")
    options = parser.parse_args(arguments)
    prepare()
    executor_input = json.loads(options.executor_input)
    given = executor_input["inputs"]["parameterValues"]
    values = {**json.loads(options.defaults), **given}
    try:
        run_task(options.task, json.loads(options.configuration), values, executor_input)
    except Exception as error:
        traceback.print_exc()
        # The last line, because Kubeflow shows the end of the log first.
        print(f"segpipe: {options.task} failed: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, SegpipeError) else EXIT_FAILED
    return 0


@listed_once()
def run_task(name: str, layers: Any, values: Mapping[str, Any], executor_input: Mapping[str, Any]) -> None:
    """Launches the nodes of a task in order and writes the outputs that Kubeflow expects of it.

    Args:
        name: the task.
        layers: `Layers`, the settings that the pipeline was compiled with.
        values: the pipeline's parameters by name.
        executor_input: Kubeflow's `ExecutorInput`.

    Raises:
        UsageError: the server is too old to pass the id of the run.
        SegpipeError: a node failed for a known reason; other exceptions are passed on.
    """
    run_id = values[RUN_ID]
    if run_id.startswith("{{"):
        # All runs would have the same id, and the second would find every node done.
        raise UsageError(
            f"{RUN_ID}: found {run_id!r}, expected the id of the run, which Kubeflow Pipelines fills in from version "
            f"{OLDEST_SERVER} on; update the server"
        )
    notices = Notifier(ProjectSettings().name, run_id, functools.partial(print, file=sys.stderr))

    def found(named: RunConfig) -> tuple[str, DatasetDescription]:
        # Set first, so that missing data is notified too.
        notices.pipeline, notices.settings = named.project.name, named.notify
        return find(named, run_id)[:2]

    with notices.of_failures():
        config = configure(values, layers, found)
        if _CLASS_BOUNDS not in TASKS[name].parameters:
            # The run may have replaced the compiled bounds, because its data has other classes.
            gate = config.gate.model_copy(update={_CLASS_BOUNDS: {}})
            config = config.model_copy(update={"gate": gate})
        _, description, gate_split = find(config, run_id)
        config = with_gate_split(config, description, gate_split)
        config.gate.check_classes(description.class_map, description.things)
        workdir = workdir_of(config)
        workdir.create()
        check_served_name(config, workdir)
        own = files.join(workdir.run(run_id), name.replace(" ", "-"))
        notices.links["log"], notices.markers = f"{own}.log", f"{own}-notified-"
        with logs.captured_anywhere(f"{own}.log") as stream, RunConsole(stream) as console:
            console.console.print(f"run {run_id}, full log {own}.log", markup=False, emoji=False, soft_wrap=True)
            _launch(name, config, description, executor_input, console, notices)


def workdir_of(config: RunConfig) -> Workdir:
    """Returns the work directory of all runs and tasks."""
    return Workdir(config.kubeflow.root, config.kubeflow.metadata, shared=True)


def _launch(
    name: str,
    config: RunConfig,
    description: DatasetDescription,
    executor_input: Mapping[str, Any],
    console: RunConsole,
    notices: Notifier,
) -> None:
    """Launches the nodes of a task, and writes its outputs and notices."""
    start, run_id, workdir = time.monotonic(), notices.run_id, workdir_of(config)
    logs.log_everything()
    import_tfx()
    refuse_remote_workers(config.beam, config.kubeflow.root)
    from components.report.data import PAGE_FILE
    from pipeline.history.figures import main_figure
    from pipeline.history.related import complete_report
    from pipeline.kubeflow.outputs import write_outputs
    from pipeline.running.after_run import announce
    from pipeline.running.nodes import PipelineRun
    from pipeline.running.summary import check_served
    from pipeline.storage.store import Store
    from pipeline.wiring.create_pipeline import create_pipeline

    # TensorFlow and TFX change the loggers when they are imported.
    logs.log_everything()
    say = functools.partial(console.console.print, markup=False, emoji=False, soft_wrap=True)
    run = PipelineRun(create_pipeline(config, workdir, description), run_id)
    console.end("start", "ran", time.monotonic() - start, "imports")
    executions: list[NodeExecution] = []
    for node in tasks_of(run.node_ids)[name]:
        start = time.monotonic()
        try:
            result = run.launch(node)
        except Exception:
            console.end(node, "failed", time.monotonic() - start, "")
            raise
        store = Store(workdir.connection)
        found = [e for e in store.executions(run_id) if e.id == result.execution_id]
        executions += found
        if node == "Report" and result.state == "ran":
            complete_report(found[0].outputs["report"][0].uri, workdir, store, run_id)
        console.end(node, result.state, result.seconds, main_figure(found[0]) if found else "")
        for execution in found:
            for arrow, group in (("<-", execution.inputs), ("->", execution.outputs)):
                if group:
                    say(f"    {arrow} {', '.join(f'{key} {each.uri}' for key in group for each in group[key])}")
    write_outputs(executions, description.class_map, executor_input)
    for execution in executions:
        if execution.node_id == "Report":
            page = files.join(execution.outputs["report"][0].uri, PAGE_FILE)
            links = {"report": page, **notices.links}
            of_run = Store(workdir.connection).executions(run_id)
            announce(config, of_run, page, dataclasses.replace(notices, say=say, links=links))
    _check_served(executions, check_served)


def _check_served(executions: Sequence[NodeExecution], check: Callable[[str, str], None]) -> None:
    """Checks that a version from the cache is still served. Raises SegpipeError."""
    for execution in executions:
        for pushed in execution.outputs.get("pushed_model", []) if execution.node_id == "Pusher" else []:
            # A parallel run may replace the version that this run has just pushed.
            if execution.state == "cached" and pushed.pushed:
                check(pushed.pushed, pushed.uri)


def find(config: RunConfig, run_id: str) -> tuple[str, DatasetDescription, str]:
    """Returns the run's data folder, its description, and the split that the gate uses.

    The first task reads the data. Later tasks read the metadata instead, so they list no folder, and a span or a file
    that arrives during the run waits for the next run.

    Returns:
        The folder, the description, and the split; the split is empty until QuarantineGate has chosen it.

    Raises:
        UsageError: the tasks do not share results and metadata, or the data set is not as configured.
    """
    config.kubeflow.check_shared(config.serving_dir)
    workdir = workdir_of(config)
    # The store does not create its folder.
    workdir.create()
    from pipeline.storage.store import Store

    store = Store(workdir.connection)
    recorded = {each.node_id: each for each in (store.executions(run_id) if store.has_run(run_id) else [])}
    read, gate = recorded.get(_READS_DATA), recorded.get(_CHOOSES_SPLIT)
    folder = str(read.properties["input_base"]) if read else spans.locate(config.data.dir, config.data.span)
    if read and gate and gate.finished:
        description = DatasetDescription.from_json(read.properties["description"])
        return folder, description, str(gate.properties["gate_split"])
    return folder, describe(config.data.model_copy(update={"dir": folder}), config.task, config.model.depth), ""


if __name__ == "__main__":
    # Import kfp without its compiler and client, as kfp's own components do (kfp/__init__.py in 2.13 and 2.17).
    os.environ.setdefault("_KFP_RUNTIME", "true")
    sys.exit(main())
