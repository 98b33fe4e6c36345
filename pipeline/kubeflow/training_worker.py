"""Runs a pod of a multi-worker training: the chief runs the pipeline up to Trainer, the others only train with it.

`python -m pipeline.kubeflow.training_worker --run-id R --configuration JSON --parameters JSON [--workers A:1,B:1]`

`TF_CONFIG` names the workers and this pod's index. If no operator sets it, as for a TrainJob, it is made from
`--workers` and the index that Kubernetes gives each pod of an indexed job. Only the chief runs TFX's launcher, so the
metadata has one execution; the others read their inputs from it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

from components import files
from components.errors import SegpipeError, UsageError
from components.stored_folder import fetch, scratch_path
from components.tensorflow_start import prepare
from pipeline.kubeflow.node import workdir_of
from pipeline.kubeflow.parameters import RUN_ID, configure
from pipeline.kubeflow.tasks import TASKS
from pipeline.running import logs
from pipeline.storage.store import NodeExecution, Store
from pipeline.storage.workdir import Workdir
from trainer import cluster
from trainer.cluster import TF_CONFIG

TRAINER = "Trainer"
INDEX = "JOB_COMPLETION_INDEX"

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one worker and returns its exit code."""
    parser = argparse.ArgumentParser(description="Run one worker of a multi-worker training.")
    parser.add_argument("--run-id", required=True, help="name of the run in the metadata")
    parser.add_argument("--configuration", required=True, help="compiled settings, JSON")
    parser.add_argument("--parameters", required=True, help="the pipeline's parameters, JSON")
    parser.add_argument("--workers", default="", help="addresses of all workers, chief first, if TF_CONFIG is not set")
    options = parser.parse_args(arguments)
    logs.log_everything()
    prepare()
    try:
        set_tf_config(os.environ, options.workers)
        values = {**json.loads(options.parameters), RUN_ID: options.run_id}
        if cluster.this_worker().is_chief:
            return _lead(options.configuration, values)
        return _follow(json.loads(options.configuration), values)
    except SegpipeError as error:
        print(f"segpipe: {error}", file=sys.stderr)
        return error.exit_code


def set_tf_config(environment: Any, workers: str) -> None:
    """Sets `TF_CONFIG` from the workers' addresses and the pod's index, unless it is set.

    Raises:
        UsageError: the addresses or the index are missing too.
    """
    if environment.get(TF_CONFIG):
        return
    if not workers or INDEX not in environment:
        raise UsageError(
            f"found neither {TF_CONFIG} nor --workers with {INDEX}, expected one of them to say which worker this is. "
            "Start workers with: segpipe kubeflow training-job"
        )
    addresses = {"worker": workers.split(",")}
    environment[TF_CONFIG] = json.dumps(
        {"cluster": addresses, "task": {"type": "worker", "index": int(environment[INDEX])}}
    )


def _lead(configuration: str, values: Mapping[str, Any]) -> int:
    """Runs the tasks up to Trainer, each in its own process, as Kubeflow does."""
    executor_input = json.dumps({"inputs": {"parameterValues": values}})
    for task in list(TASKS)[: list(TASKS).index(TRAINER) + 1]:
        # Only the task Trainer has several workers.
        environment = {name: value for name, value in os.environ.items() if name != TF_CONFIG or task == TRAINER}
        command = [sys.executable, "-m", "pipeline.kubeflow.node", "--task", task]
        command += ["--configuration", configuration, "--executor-input", executor_input]
        code = subprocess.run(command, env=environment, check=False).returncode
        if code:
            return code
    return 0


def _follow(layers: Any, values: Mapping[str, Any]) -> int:
    """Waits for the chief's training and joins it; returns at once if the chief has the model from the cache."""
    # The chief has checked the data set.
    config = configure({**values, "data": ""}, layers)
    workdir = workdir_of(config)
    execution = await_chief(lambda: open_store(workdir, config.kubeflow.metadata.kind), values[RUN_ID])
    if execution is None:
        _LOG.info("the chief has the model already; nothing to train")
        return 0
    from trainer.run_fn import run_fn

    with tempfile.TemporaryDirectory() as scratch:
        run_fn(fn_args(execution, workdir.artifacts, config.data.train_split, config.data.eval_split, scratch))
    return 0


def await_chief(open_store: Any, run_id: str, seconds: float = _POLL_SECONDS) -> NodeExecution | None:
    """Waits until the chief starts to train. Only the job's deadline limits the time.

    Args:
        open_store: returns the metadata store, or None while it does not exist.
        run_id: the run.
        seconds: time between two reads of the store.

    Returns:
        Trainer's execution; None if it has ended already.
    """
    while True:
        store = open_store()
        executions = store.executions(run_id) if store is not None and store.has_run(run_id) else []
        of_trainer = [execution for execution in executions if execution.node_id == TRAINER]
        if of_trainer and of_trainer[-1].finished:
            return None
        # The store cannot tell a running execution from an interrupted one.
        if of_trainer and of_trainer[-1].state == "interrupted":
            return of_trainer[-1]
        time.sleep(seconds)


def open_store(workdir: Workdir, kind: str) -> Store | None:
    """Returns the metadata store; None until the chief has created its file."""
    if kind == "sqlite" and not os.path.exists(workdir.metadata):
        return None
    return Store(workdir.connection)


def fn_args(execution: NodeExecution, artifacts: str, train_split: str, eval_split: str, scratch: str) -> Any:
    """Returns the arguments of `run_fn` that TFX's Trainer would pass to a worker that is not the chief.

    `execution` is the chief's execution of Trainer, `artifacts` the pipeline's root. This worker's copy of the model
    goes to the folder `scratch`, to be discarded.
    """
    # The name of the checkpoints depends on these paths, so they are the chief's.
    examples, graph = (fetch(execution.inputs[name][0].uri) for name in ("examples", "transform_graph"))
    base = execution.inputs.get("base_model")
    # TFX's own layout.
    model_run = files.join(artifacts, TRAINER, "model_run", str(execution.id))
    return types.SimpleNamespace(
        custom_config=json.loads(execution.properties["custom_config"]),
        train_files=[files.join(examples, f"Split-{train_split}", "*")],
        eval_files=[files.join(examples, f"Split-{eval_split}", "*")],
        transform_output=graph,
        base_model=files.join(fetch(base[0].uri), "Format-Serving") if base else None,
        serving_model_dir=files.join(scratch, "model"),
        model_run_dir=scratch_path(model_run) if files.is_remote(model_run) else model_run,
    )


if __name__ == "__main__":
    sys.exit(main())
