"""One run from a validated configuration to exit code: lock, log, pipeline, summary, report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from components import files
from components.dataset.description import DatasetDescription
from components.errors import SegpipeError
from components.gpu import require_gpu, usable_gpus
from components.tensorflow_start import prepare
from pipeline import logs
from pipeline.config import RunConfig, describe
from pipeline.console import RunConsole
from pipeline.tfx_start import without_cloud_clients
from pipeline.workdir import CONFIG_FILE, LOG_FILE, REPORT_FILE, Workdir


def run_pipeline(config: RunConfig, out: str, wait: bool = False) -> bool:
    """Runs the whole pipeline and prints its course.

    Args:
        config: every setting.
        out: the work directory.
        wait: whether to wait for another run in the same work directory.

    Returns:
        Whether the model was blessed.

    Raises:
        SegpipeError: whatever stopped the run, explained; other exceptions are wrapped with the log's path.
    """
    workdir = Workdir(out)
    files.refuse_pattern("--out", workdir.root)
    files.refuse_pattern("serving_dir", workdir.serving(config))
    description = describe(config.data)
    config.gate.check_classes(description.class_map)
    workdir.create()
    with workdir.lock(wait):
        run_id = _new_run_id(workdir, config.model.name)
        directory = workdir.run(run_id)
        os.makedirs(directory)
        with open(os.path.join(directory, CONFIG_FILE), "w") as file:
            yaml.safe_dump(config.model_dump(mode="json"), file, sort_keys=False)
        log = os.path.join(directory, LOG_FILE)
        with logs.captured(log) as stream, RunConsole(stream) as console:
            console.console.print(f"run {run_id}, log {log}", markup=False, emoji=False, soft_wrap=True)
            with _explained(log):
                return _run(config, description, workdir, run_id, console)


def _run(
    config: RunConfig, description: DatasetDescription, workdir: Workdir, run_id: str, console: RunConsole
) -> bool:
    start = time.monotonic()
    console.start("starting TensorFlow and TFX")
    logs.log_everything()
    prepare()
    if config.training.require_gpu:
        require_gpu(usable_gpus())
    without_cloud_clients()
    # Everything below needs TensorFlow and TFX, whose import takes longer than all that came before.
    from pipeline.create_pipeline import create_pipeline
    from pipeline.figures import main_figure
    from pipeline.local_runner import LocalRunner
    from pipeline.nodes import NodeResult
    from pipeline.store import Store

    logs.log_everything()
    pipeline = create_pipeline(config, workdir, description)
    startup_seconds = time.monotonic() - start
    console.end("start", "ran", startup_seconds, "imports")

    def on_end(result: NodeResult) -> None:
        figure = ""
        if result.execution_id is not None:
            execution = next(e for e in Store(workdir.metadata).executions(run_id) if e.id == result.execution_id)
            figure = main_figure(execution)
        console.end(result.node_id, result.state, result.seconds, figure)

    results = LocalRunner(console.start, on_end).run(pipeline, run_id)
    console.finish()
    return _conclude(workdir, run_id, description, results, startup_seconds, console)


def _conclude(
    workdir: Workdir,
    run_id: str,
    description: DatasetDescription,
    results: Sequence[Any],
    startup_seconds: float,
    console: RunConsole,
) -> bool:
    """Writes summary and report, prints the closing tables and returns whether the model was blessed."""
    from pipeline.resolvers import RESOLVERS
    from pipeline.store import Store
    from pipeline.summary import RunOutcome, check_served, write_summary
    from pipeline.tables import failure_table, score_table

    outcome = RunOutcome(run_id, Store(workdir.metadata).executions(run_id), description.class_map)
    directory = workdir.run(run_id)
    summary = write_summary(directory, outcome.to_dict(results, startup_seconds))
    report = _write_report(outcome.report_uri, directory, run_id, results)
    workdir.point_latest(run_id)

    say = functools.partial(console.console.print, markup=False, emoji=False)
    evaluation = outcome.evaluation
    candidate, before = evaluation.candidate, evaluation.baseline.scores if evaluation.baseline else None
    intervals = (candidate.intervals, evaluation.change_intervals)
    say()
    say(score_table(candidate.scores, before, description.class_map, *intervals))
    say()
    if outcome.evaluation.failures:
        say(failure_table(outcome.evaluation))
        say()
    if all(result.state == "cached" for result in results if result.node_id not in RESOLVERS):
        say("Nothing has changed since an earlier run: every component came from the cache.")
    say(f"summary  {summary}", soft_wrap=True)
    say(f"model    {outcome.pushed or 'not pushed: the gate withheld its blessing'}", soft_wrap=True)
    say(f"report   {report}", soft_wrap=True)
    say(f"Open the report: {_address(report)}", style="bold", soft_wrap=True)
    if outcome.pushed:
        check_served(outcome.pushed, outcome.output("Pusher", "pushed_model").uri)
    return outcome.blessed


def _address(path: str) -> str:
    """Returns a file's address for a browser, with blanks, %, # and letters outside ASCII escaped."""
    return Path(path).absolute().as_uri()


def _write_report(report_uri: str, directory: str, run_id: str, results: Sequence[Any]) -> str:
    """Draws the run's own page: the Report component's data with this run's timings."""
    from components.report.data import Timing, load
    from components.report.render import render

    data = load(report_uri)
    timings = tuple(Timing(result.node_id, result.seconds, result.state) for result in results)
    lineage = dataclasses.replace(data.lineage, run_id=run_id)
    path = os.path.join(directory, REPORT_FILE)
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(render(dataclasses.replace(data, timings=timings, lineage=lineage)))
    os.replace(path + ".tmp", path)
    return path


def _new_run_id(workdir: Workdir, model: str) -> str:
    """Returns a name that sorts by time and is not taken."""
    base = f"{datetime.now():%Y%m%d-%H%M%S}-{model}"
    run_id, number = base, 2
    while os.path.exists(workdir.run(run_id)):
        run_id, number = f"{base}-{number}", number + 1
    return run_id


@contextlib.contextmanager
def _explained(log: str) -> Any:
    """Lets explained failures pass and gives every other the log's path."""
    try:
        yield
    except SegpipeError:
        traceback.print_exc()
        raise
    except Exception as error:
        traceback.print_exc()
        raise SegpipeError(
            f"the run failed: {type(error).__name__}: {error}\nThe full log, with the traceback: {log}\n"
            "Run the same command again to go on from the last component that finished."
        ) from error
