"""Runs the pipeline on this machine: lock, log, components, summary and report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components import files
from components.dataset.data_files import forget, listed_once
from components.dataset.description import DatasetDescription
from components.errors import SegpipeError
from components.gpu import require_gpu, usable_gpus
from components.tensorflow_start import prepare
from pipeline.configuration.config import RunConfig
from pipeline.configuration.data import describe, with_gate_split
from pipeline.history.served import check_served_name
from pipeline.running import logs
from pipeline.running.console import RunConsole
from pipeline.running.notifications import Notifier
from pipeline.running.tfx_start import import_tfx
from pipeline.storage.workdir import CONFIG_FILE, LOG_FILE, REPORT_FILE, Workdir
from pipeline.wiring.beam_workers import refuse_remote_workers

if TYPE_CHECKING:
    from components.report.data import ReportData


@listed_once()
def run_pipeline(config: RunConfig, out: str, wait: bool = False) -> bool:
    """Runs the whole pipeline and prints its progress.

    Args:
        config: every setting.
        out: the work directory.
        wait: whether to wait for another run in the same work directory, instead of failing.

    Returns:
        Whether the model was blessed.

    Raises:
        SegpipeError: the run failed. Unexpected exceptions are wrapped, with the path of the log.
    """
    workdir = Workdir(out)
    files.refuse_pattern("--out", workdir.root)
    files.refuse_pattern("serving_dir", workdir.serving(config.serving_dir))
    description = describe(config.data, config.task, config.model.depth)
    config = with_gate_split(config, description)
    config.gate.check_classes(description.class_map, description.things)
    check_served_name(config, workdir)
    workdir.create()
    with workdir.lock(wait):
        if wait:
            # The data may have changed while this run waited.
            forget()
        run_id = _new_run_id(workdir, config.model.name)
        directory = workdir.run(run_id)
        os.makedirs(directory)
        with open(os.path.join(directory, CONFIG_FILE), "w") as file:
            yaml.safe_dump(config.model_dump(mode="json"), file, sort_keys=False)
        log = os.path.join(directory, LOG_FILE)
        with logs.captured(log) as stream, RunConsole(stream) as console:
            say = functools.partial(console.console.print, markup=False, emoji=False, soft_wrap=True)
            say(f"run {run_id}, log {log}")
            notices = Notifier(config.project.name, run_id, say, config.notify, {"log": log})
            with notices.of_failures(), _explained(log):
                blessed = _run(config, description, workdir, run_id, console, notices)
            if config.retention.after_run:
                _free_disk(config, workdir, say)
            return blessed


def _run(
    config: RunConfig,
    description: DatasetDescription,
    workdir: Workdir,
    run_id: str,
    console: RunConsole,
    notices: Notifier,
) -> bool:
    start = time.monotonic()
    console.start("starting TensorFlow and TFX")
    logs.log_everything()
    prepare()
    if config.training.require_gpu:
        require_gpu(usable_gpus())
    import_tfx()
    refuse_remote_workers(config.beam, workdir.artifacts)
    # Imported here, because the import of TensorFlow and TFX is slow, and a wrong setting should fail before it.
    from pipeline.history.figures import main_figure
    from pipeline.running.nodes import NodeResult, run_nodes
    from pipeline.storage.store import Store
    from pipeline.wiring.create_pipeline import create_pipeline

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

    results = run_nodes(pipeline, run_id, console.start, on_end)
    console.finish()
    return _conclude(config, workdir, run_id, description, results, startup_seconds, console, notices)


def _conclude(
    config: RunConfig,
    workdir: Workdir,
    run_id: str,
    description: DatasetDescription,
    results: Sequence[Any],
    startup_seconds: float,
    console: RunConsole,
    notices: Notifier,
) -> bool:
    """Writes summary and report, prints the scores, and returns whether the model was blessed."""
    from components.report.data import load
    from components.report.wording import split_note
    from pipeline.history.related import add_related, find_baseline
    from pipeline.running.after_run import announce
    from pipeline.running.summary import RunOutcome, check_served, push_text, write_summary
    from pipeline.running.tables import depth_line, failure_table, score_table
    from pipeline.storage.store import Store
    from pipeline.wiring.resolvers import RESOLVERS

    store = Store(workdir.metadata)
    executions = store.executions(run_id)
    outcome = RunOutcome(run_id, executions, description.class_map)
    directory = workdir.run(run_id)
    summary = write_summary(directory, outcome.to_dict(results, startup_seconds, find_baseline(store, executions)))
    reported = load(outcome.report_uri)
    lineage = add_related(reported.lineage, workdir, store, run_id, executions)
    report = _write_report(dataclasses.replace(reported, lineage=lineage), directory, results)
    workdir.point_latest(run_id)

    say = functools.partial(console.console.print, markup=False, emoji=False)
    evaluation = outcome.evaluation
    candidate, before = evaluation.candidate, evaluation.baseline.scores if evaluation.baseline else None
    intervals = (candidate.intervals, evaluation.change_intervals)
    say()
    say(score_table(candidate.scores, before, *intervals))
    if candidate.depth:
        say(depth_line(candidate.depth))
    say(split_note(reported), soft_wrap=True)
    say()
    if evaluation.failures:
        say(failure_table(evaluation))
        say()
    if all(result.state == "cached" for result in results if result.node_id not in RESOLVERS):
        say("Nothing changed since an earlier run: every component came from the cache.")
    say(f"summary  {summary}", soft_wrap=True)
    say(f"model    {push_text(outcome.pushed_model)}", soft_wrap=True)
    notices.links["report"] = report
    announce(config, executions, report, notices)
    say(f"Open the report: {_address(report)}", style="bold", soft_wrap=True)
    if outcome.pushed_model.pushed:
        check_served(outcome.pushed_model.pushed, outcome.pushed_model.uri)
    return outcome.blessed


def _free_disk(config: RunConfig, workdir: Workdir, say: Callable[[str], None]) -> None:
    """Removes what no kept run needs. A failure does not fail the run; the next call continues."""
    from pipeline.retention.collect import collect

    try:
        plan = collect(workdir, config)
        say(f"freed    {sum(item.bytes for item in plan.items) / 1e6:.1f} MB of {len(plan.removed)} old runs")
    except SegpipeError as error:
        say(f"warning: no disk space was freed: {error}")


def _address(path: str) -> str:
    """Returns a file's address for a browser, with escaped spaces, %, # and non-ASCII characters."""
    return Path(path).absolute().as_uri()


def _write_report(data: ReportData, directory: str, results: Sequence[Any]) -> str:
    """Writes the run's report: the Report component's data with this run's timings. Returns its path."""
    from components.report.data import Timing
    from components.report.render import render

    timings = tuple(Timing(result.node_id, result.seconds, result.state) for result in results)
    path = os.path.join(directory, REPORT_FILE)
    files.write_bytes(path, render(dataclasses.replace(data, timings=timings)).encode())
    return path


def _new_run_id(workdir: Workdir, model: str) -> str:
    base = f"{datetime.now():%Y%m%d-%H%M%S}-{model}"
    run_id, number = base, 2
    while os.path.exists(workdir.run(run_id)):
        run_id, number = f"{base}-{number}", number + 1
    return run_id


@contextlib.contextmanager
def _explained(log: str) -> Any:
    """Wraps unexpected exceptions in a SegpipeError with the path of the log."""
    try:
        yield
    except SegpipeError:
        traceback.print_exc()
        raise
    except Exception as error:
        traceback.print_exc()
        raise SegpipeError(
            f"the run failed: {type(error).__name__}: {error}\nThe full log, with the traceback: {log}\n"
            "Run the same command again to continue after the last component that finished."
        ) from error
