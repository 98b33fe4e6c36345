"""What each pod of a multi-worker training runs: the chief the pipeline up to Trainer, the others its training alone.

`python -m pipeline.kubeflow.training_worker --run-id R --configuration JSON --parameters JSON [--workers A:1,B:1]`

`TF_CONFIG` says who is who. Where nobody sets it, as under a TrainJob, it is made of the workers'
addresses and of the index that Kubernetes gives each pod of an indexed job. Only the chief goes through
TFX's launcher, so there is one execution in the metadata; the others read their inputs from it.
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
_SECONDS_BETWEEN_LOOKS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a pod's part of a training and returns its exit code."""
    parser = argparse.ArgumentParser(description="Run one worker of a multi-worker training.")
    parser.add_argument("--run-id", required=True, help="name of the run in the metadata")
    parser.add_argument("--configuration", required=True, help="compiled settings, JSON")
    parser.add_argument("--parameters", required=True, help="the pipeline's parameters, JSON")
    parser.add_argument(
        "--workers", default="", help="addresses of all workers, chief first, where TF_CONFIG is not set"
    )
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
    """Makes `TF_CONFIG` of the workers' addresses and the pod's index, unless it is there.

    Raises:
        UsageError: neither it nor addresses and index are there.
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
    """Runs the tasks up to the Trainer's, each in a process of its own, as Kubeflow does."""
    executor_input = json.dumps({"inputs": {"parameterValues": values}})
    for task in list(TASKS)[: list(TASKS).index(TRAINER) + 1]:
        # Only the training itself has several workers.
        environment = {name: value for name, value in os.environ.items() if name != TF_CONFIG or task == TRAINER}
        command = [sys.executable, "-m", "pipeline.kubeflow.node", "--task", task]
        command += ["--configuration", configuration, "--executor-input", executor_input]
        code = subprocess.run(command, env=environment, check=False).returncode
        if code:
            return code
    return 0


def _follow(layers: Any, values: Mapping[str, Any]) -> int:
    """Trains beside the chief, once it does; returns where the chief took the model from the cache."""
    # The data set need not be looked for: the chief has.
    config = configure({**values, "data": ""}, layers)
    workdir = workdir_of(config)
    execution = await_chief(lambda: open_store(workdir, config.kubeflow.metadata.kind), values[RUN_ID])
    if execution is None:
        _LOG.info("the chief has a model already; nothing to train")
        return 0
    from trainer.run_fn import run_fn

    with tempfile.TemporaryDirectory() as scratch:
        run_fn(fn_args(execution, workdir.artifacts, config.data.train_split, config.data.eval_split, scratch))
    return 0


def await_chief(open_store: Any, run_id: str, seconds: float = _SECONDS_BETWEEN_LOOKS) -> NodeExecution | None:
    """Waits for the chief to begin training; how long it may take is for the job's deadline to say.

    Args:
        open_store: returns the metadata store, None while it is not there.
        run_id: the run.
        seconds: from one look to the next.

    Returns:
        Trainer's execution; None where it has ended already.
    """
    while True:
        store = open_store()
        executions = store.executions(run_id) if store is not None and store.has_run(run_id) else []
        of_trainer = [execution for execution in executions if execution.node_id == TRAINER]
        if of_trainer and of_trainer[-1].state in ("ran", "cached"):
            return None
        # A store says of what is running that it was interrupted, for it cannot know.
        if of_trainer and of_trainer[-1].state == "interrupted":
            return of_trainer[-1]
        time.sleep(seconds)


def open_store(workdir: Workdir, kind: str) -> Store | None:
    """Returns the metadata store; None while it is a file that the chief has yet to make."""
    if kind == "sqlite" and not os.path.exists(workdir.metadata):
        return None
    return Store(workdir.connection)


def fn_args(execution: NodeExecution, artifacts: str, train_split: str, eval_split: str, scratch: str) -> Any:
    """Returns what TFX's Trainer passes to `run_fn`, for a worker that is not the chief.

    Args:
        execution: the chief's, with Trainer's inputs and properties.
        artifacts: the pipeline's root.
        train_split: split to train on.
        eval_split: split to validate on.
        scratch: a folder for what only the chief's is kept of.
    """
    # The same paths as the chief's, of which the checkpoints' name is made.
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
