"""What a container of a Kubeflow task runs: one node of the pipeline, through TFX's launcher.

`python -m pipeline.kubeflow.node --node Trainer --configuration JSON --executor-input JSON`
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from components.dataset.description import DatasetDescription
from components.errors import EXIT_FAILED, SegpipeError, UsageError
from components.tensorflow_start import prepare
from pipeline import logs, spans
from pipeline.config import RunConfig, describe
from pipeline.kubeflow import object_stores
from pipeline.kubeflow.connection import OLDEST_SERVER
from pipeline.kubeflow.parameters import RUN_ID, configure
from pipeline.tfx_start import without_cloud_clients
from pipeline.workdir import Workdir

_READS_DATA = "ImageMaskExampleGen"

_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a node and returns the task's exit code: 0, or the one of the error that stopped it."""
    parser = argparse.ArgumentParser(description="Run one node of the pipeline inside a Kubeflow task.")
    parser.add_argument("--node", required=True, help="the node's name")
    parser.add_argument("--configuration", required=True, help="compiled settings, JSON")
    parser.add_argument("--executor-input", required=True, help="what Kubeflow's launcher passes to a task, JSON")
    options = parser.parse_args(arguments)
    logs.log_everything()
    prepare()
    try:
        run_node(options.node, json.loads(options.configuration), json.loads(options.executor_input))
    except Exception as error:
        traceback.print_exc()
        # Kubeflow shows the end of the log first.
        print(f"segpipe: {options.node} failed: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, SegpipeError) else EXIT_FAILED
    return 0


def run_node(node_id: str, layers: Any, executor_input: dict[str, Any]) -> None:
    """Launches a node of a run and writes the outputs that Kubeflow expects of it.

    Args:
        node_id: the node.
        layers: the settings that the pipeline was compiled with.
        executor_input: Kubeflow's `ExecutorInput`, with the run's parameters.

    Raises:
        UsageError: the server is too old to tell its runs apart.
        SegpipeError: whatever stopped the node, explained; other exceptions come as they are.
    """
    values = executor_input["inputs"]["parameterValues"]
    run_id = values[RUN_ID]
    if run_id.startswith("{{"):
        # All runs would be one, and the second find everything done.
        raise UsageError(
            f"{RUN_ID}: found {run_id!r}, expected the id of the run, which Kubeflow Pipelines fills in from version "
            f"{OLDEST_SERVER} on; update the server"
        )
    config = configure(values, layers, lambda named: locate(named, run_id))
    config.kubeflow.check_shared(config.serving_dir)
    description = describe(config.data)
    config.gate.check_classes(description.class_map)
    workdir = workdir_of(config)
    workdir.create()
    result = _launch(node_id, run_id, config, workdir, description)
    _LOG.info("%s %s in %.1f s", node_id, result.state, result.seconds)
    if result.execution_id is not None:
        _show(result.execution_id, run_id, workdir, description, executor_input)


def workdir_of(config: RunConfig) -> Workdir:
    """Returns the folder of results that the tasks of all runs share."""
    return Workdir(config.kubeflow.root, config.kubeflow.metadata, shared=True)


def _launch(node_id: str, run_id: str, config: RunConfig, workdir: Workdir, description: DatasetDescription) -> Any:
    without_cloud_clients()
    from pipeline.create_pipeline import create_pipeline
    from pipeline.nodes import PipelineRun

    # TensorFlow and TFX change the loggers when they are imported.
    logs.log_everything()
    return PipelineRun(create_pipeline(config, workdir, description), run_id).launch(node_id)


def _show(
    execution_id: int, run_id: str, workdir: Workdir, description: DatasetDescription, executor_input: dict[str, Any]
) -> None:
    from pipeline.figures import main_figure
    from pipeline.kubeflow.outputs import write_outputs
    from pipeline.store import Store

    execution = next(e for e in Store(workdir.connection).executions(run_id) if e.id == execution_id)
    _LOG.info("%s: %s", execution.node_id, main_figure(execution))
    write_outputs(execution, description.class_map, executor_input)


def locate(config: RunConfig, run_id: str) -> str:
    """Returns the run's data folder: the one its ExampleGen took, so that a span that arrives meanwhile waits."""
    object_stores.prepare(config.kubeflow.root, config.data.dir, config.serving_dir)
    if spans.PLACEHOLDER in config.data.dir:
        from pipeline.store import Store

        workdir = workdir_of(config)
        # The store makes no folder.
        workdir.create()
        store = Store(workdir.connection)
        for execution in store.executions(run_id) if store.has_run(run_id) else []:
            if execution.node_id == _READS_DATA:
                return str(execution.properties["input_base"])
    return spans.locate(config.data.dir, config.data.span)


if __name__ == "__main__":
    sys.exit(main())
