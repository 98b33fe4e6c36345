"""Simulates a week of scheduled runs, and prints which version is served after each event, and why.

    python -m benchmarks.week --work /tmp/week

Two projects use the same MariaDB store, root and folder of served models. One server serves both, by labels. Each run
is a process that executes the tasks of the compiled pipeline in sequence. Everything else is done by segpipe commands.
Only the weekdays are simulated, and `segpipe gc` treats the runs as long finished.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from components.baseline.reasons import REASON_TEXTS
from components.dataset import synthetic
from components.errors import EXIT_DATA_REJECTED, EXIT_DRIFTED, SegpipeError
from pipeline.retention import plan
from serving.client import Client

# All spans have this size. New spans of `street` have other seeds; the second span of `yard` is darker.
PAIRS, SIZE = {"train": 24, "val": 8}, (64, 64)
FEWER_EPOCHS = (6, 3, 1)
SEEDS = {"street": 1, "yard": 11}
SETTINGS: dict[str, Any] = {
    "model": {"base_filters": 8},
    "training": {"warm_start": True},
    "gate": {
        "min_mean_iou": 0.1,
        "min_class_iou": {},
        "max_mean_drop": 0.05,
        "max_class_drop": 1.0,
        "best_of": 3,
        "significant_drops": False,
    },
}


@dataclasses.dataclass(frozen=True)
class Event:
    """An event, and the version that the server answered with after it."""

    day: str
    project: str
    what: str
    served: int | None
    why: str


class Week:
    """The folder, store and server of the simulation, and its events."""

    def __init__(self, work: Path, metadata: dict[str, Any]) -> None:
        """Writes the settings and the first span of both projects."""
        self.work, self.root, self.serving = work, work / "root", work / "serving"
        self.events: list[Event] = []
        self.day = ""
        self._released: set[tuple[str, int]] = set()
        self._metadata = metadata
        self._port = 0
        self._begin = time.monotonic()
        self.models = work / "models.config"  # LocalServer writes it
        for name, seed in SEEDS.items():
            (self.serving / name).mkdir(parents=True)
            self.add_span(name, 1, seed)
            self._settings_file(name).write_text(yaml.safe_dump(self.settings(name)))

    def settings(self, project: str) -> dict[str, Any]:
        """Returns the settings that a project's pipeline is compiled with."""
        return {
            **SETTINGS,
            "project": {"name": project},
            "serving_dir": str(self.serving),
            "kubeflow": {"root": str(self.root), "metadata": self._metadata},
            "retention": {"served_by": [str(self.models)]},
        }

    def add_span(self, project: str, number: int, seed: int) -> Path:
        """Makes a new span of a project and returns its folder."""
        folder = self.work / "data" / f"{project}-{number}"
        synthetic.make(str(folder), pairs=PAIRS, size=SIZE, seed=seed)
        return folder

    def start(self, project: str, run: str, epochs: int = 10, **training: Any) -> Run:
        """Starts a run on the newest span in a new process."""
        return Run(self, project, f"{self.day[:3].lower()}-{project}-{run}", epochs, training)

    def segpipe(self, *words: str, exit_code: int = 0) -> str:
        """Runs a segpipe command in this process and returns its output.

        Raises:
            SystemExit: the exit code is not `exit_code`.
        """
        from pipeline.cli.main import main

        printed, problems = io.StringIO(), io.StringIO()
        code: int | str | None = None
        sys.argv = ["segpipe", *words]
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(problems):
            try:
                main()
            except SystemExit as ended:
                code = ended.code
        if (code or 0) != exit_code:
            raise SystemExit(f"{' '.join(words)}: exit code {code}, expected {exit_code}\n{problems.getvalue()}")
        return printed.getvalue()

    def show(self, project: str, run_id: str) -> dict[str, Any]:
        """Returns the output of `segpipe show` for a run."""
        where = ["--out", str(self.root), "--config", str(self._settings_file(project))]
        return json.loads(self.segpipe("show", run_id, *where, "--config-file", str(self.models), "--json"))

    def release(self, project: str, *words: str) -> None:
        """Runs `segpipe release` on the server's configuration file."""
        where = ["--model", project, "--server", f"localhost:{self._port}", "--config-file", str(self.models)]
        self.segpipe("release", *words, *where)

    def watch(self, project: str, source: Path, exit_code: int) -> list[str]:
        """Runs `segpipe watch` and returns the features that drifted."""
        where = ["--project", project, "--out", str(self.root), "--config", str(self._settings_file(project))]
        found = self.segpipe("watch", str(source), *where, "--at-least", "20", "--json", exit_code=exit_code)
        return [each["feature"] for each in json.loads(found)["findings"] if each["drifted"]]

    def send_images(self, project: str, folder: Path, label: str | None = "stable") -> int | None:
        """Sends all training images of a span to the server and returns the one version that answered."""
        with Client(f"localhost:{self._port}", model=project, label=label) as client:
            versions = {client.segment(path.read_bytes()).version for path in sorted((folder / "train").glob("*.png"))}
        (version,) = versions
        return version

    def served(self, project: str) -> int | None:
        """Returns the version with the label `stable`; None if there is no such version yet."""
        try:
            with Client(f"localhost:{self._port}", model=project, label="stable") as client:
                image = next((self.work / "data" / f"{project}-1" / "train").glob("*.png"))
                return client.segment(image.read_bytes()).version
        except SegpipeError:
            return None

    def record(self, project: str, what: str, why: str) -> None:
        """Records an event with the version that the server answers with, and prints it."""
        event = Event(self.day, project, what, self.served(project), why)
        self.events.append(event)
        minutes, seconds = divmod(int(time.monotonic() - self._begin), 60)
        print(f"{minutes:2}:{seconds:02}  {self.day}  {project:6}  {what}; served: {event.served}; {why}", flush=True)

    def finish(self, run: Run, what: str) -> None:
        """Waits for a run, releases the version that it pushed, and records the event with the gate's result."""
        shown = run.end()
        new = shown["pushed"] if (run.project, shown["version"]) not in self._released else None
        if new:
            self._release(run.project, shown["version"])
        verdict = f"mean IoU {shown['mean_iou']:.3f}, {shown['gate']}, {'pushed' if new else 'not pushed'}"
        baseline = shown["baseline"]
        against = f"baseline {baseline['version']} ({REASON_TEXTS[baseline['why']]})" if baseline else "no baseline"
        self.record(run.project, what, f"{verdict}; {against}")

    def gc(self, *words: str) -> dict[str, Any]:
        """Runs `segpipe gc`, without its grace period after a run's end, and returns its output."""
        plan._FINISHING = 0
        keep = ["--keep-runs", "2", "--keep-versions", "2"]
        return json.loads(self.segpipe("gc", "--config", str(self._settings_file("street")), *keep, *words, "--json"))

    def wait_for_request_log(self) -> None:
        """Waits until the server closes its current request log file, which takes up to a minute."""
        logs = self.work / "requests"
        complete = set(logs.glob("*.tfrecord"))
        while set(logs.glob("*.tfrecord")) == complete:
            time.sleep(1)

    def _release(self, project: str, version: int) -> None:
        """Promotes a version to stable: the first one directly, later ones after a canary."""
        first = not any(project == name for name, _ in self._released)
        for words in [("promote", str(version))] if first else [("canary", str(version)), ("promote",)]:
            self.release(project, *words)
        self._released.add((project, version))

    @contextlib.contextmanager
    def server(self) -> Iterator[None]:
        """Runs a server of both projects, which serves the newest version of each until one is promoted."""
        from benchmarks.local_server import LocalServer, server_config  # imports TensorFlow

        models = "".join(
            f'config {{ name: "{name}" base_path: "{self.serving / name}" model_platform: "tensorflow" }} '
            for name in SEEDS
        )
        flags = ["--engine", "local", "--request_log_dir", str(self.work / "requests")]
        flags += ["--model_config_file_poll_wait_seconds", "1", "--file_system_poll_wait_seconds", "1"]
        # No model has a version yet, so there is nothing to wait for.
        server = LocalServer(self.work, server_config(models), flags, wait=False)
        self._port = server.port
        try:
            yield
        finally:
            server.stop()

    def _settings_file(self, project: str) -> Path:
        return self.work / f"{project}.yaml"


class Run:
    """A run of a project in a separate process."""

    def __init__(self, week: Week, project: str, run_id: str, epochs: int, training: dict[str, Any]) -> None:
        """Starts the run on the project's newest span."""
        self._week, self.project, self.id = week, project, run_id
        settings = week.settings(project)
        layers = [(project, {**settings, "training": {**settings["training"], **training}})]
        data = str(week.work / "data" / f"{project}-{{span}}")
        self._log = week.work / f"{run_id}.log"
        arguments = (run_id, layers, data, epochs, self._log)
        self._process = _PROCESSES.Process(target=_run_tasks, args=arguments)
        self._process.start()

    def end(self, exit_code: int = 0) -> dict[str, Any]:
        """Waits for the run to end and returns the output of `segpipe show`.

        Raises:
            SystemExit: the exit code is not `exit_code`.
        """
        self._process.join()
        if self._process.exitcode != exit_code:
            text = self._log.read_text()[-3000:]
            raise SystemExit(f"{self.id}: exit code {self._process.exitcode}, expected {exit_code}\n{text}")
        return self._week.show(self.project, self.id)

    @property
    def error(self) -> str:
        """The first line of the run's error message."""
        return self._log.read_text().rpartition("segpipe: ")[2].strip().partition("\n")[0]


# Each run is forked from a process that has imported TensorFlow and TFX but not used them.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pipeline.wiring.create_pipeline"])


def _run_tasks(run_id: str, layers: Any, data: str, epochs: int, log: Path) -> None:
    """Runs the tasks of the compiled pipeline in sequence in this process, as their containers would."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from components.tensorflow_start import prepare

    prepare()
    from pipeline.kubeflow.node import run_task
    from pipeline.kubeflow.parameters import RUN_ID, defaults
    from pipeline.kubeflow.tasks import TASKS

    values = {**defaults(data, "unet", "smoke", "x".join(map(str, SIZE)), epochs), RUN_ID: run_id}
    try:
        for task in TASKS:
            if task != "Optimizer":
                run_task(task, layers, values, {})
    except SegpipeError as error:
        print(f"segpipe: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def main() -> None:
    """Runs the simulation and prints the table of events."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="new or empty folder for all files")
    work = parser.parse_args().work.resolve()
    # Not imported at the top, because the runs import this module too. There, TFX imports IPython, which puts a folder
    # with another `tests` package on the path.
    from tests import mariadb

    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        raise SystemExit(f"--work {work}: found files in it, expected a new or empty folder. Choose another folder")
    os.environ |= {"SEGPIPE_METADATA_PASSWORD": mariadb.PASSWORD, "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["PYTHONWARNINGS"] = "ignore::FutureWarning"
    (work / "mariadb").mkdir()
    with mariadb.running(work / "mariadb") as port:
        where = {"host": "127.0.0.1", "port": port, "database": mariadb.DATABASE, "user": mariadb.USER}
        week = Week(work, {"kind": "mysql", **where})
        with week.server():
            simulate(week)
        print()
        print_table(week.events)


def simulate(week: Week) -> None:
    """Runs the events of Monday to Sunday."""
    week.day = "Monday"
    for run in [week.start(name, "first") for name in SEEDS]:
        week.finish(run, "first run, in parallel with the other project's")

    week.day = "Tuesday"
    week.add_span("street", 2, seed=2)
    week.finish(week.start("street", "new-data"), "new data")
    dark = darken(week.add_span("yard", 2, seed=12))
    week.send_images("yard", dark)
    week.send_images("street", week.work / "data" / "street-1")
    week.record("yard", "clients send darker images", "drift is not checked yet")

    week.day = "Wednesday"
    week.wait_for_request_log()
    drifted = week.watch("yard", week.work / "requests", EXIT_DRIFTED)
    week.record("yard", "segpipe watch, exit code 5", f"drifted: {', '.join(drifted)}; a run is started")
    week.finish(week.start("yard", "drifted"), "run after the drift, on darker data")

    week.day = "Thursday"
    spoiled = spoil(week.add_span("street", 3, seed=3))
    run = week.start("street", "spoiled")
    state = run.end(EXIT_DATA_REJECTED)["state"]
    week.record("street", "rejected batch, exit code 4", f"{state}: {run.error}")
    shutil.rmtree(spoiled)

    week.day = "Friday"
    week.finish(
        week.start("street", "worse", learning_rate=1e-7, warm_start=False), "a worse model: learning rate 1e-7"
    )

    week.day = "Saturday"
    week.release("street", "rollback", "--why", "misses poles in rain")
    (record,) = json.loads((week.serving / "street" / "withdrawn.json").read_text()).items()
    week.record("street", "rollback", f"version {record[0]} is withdrawn: {record[1]['why']}")
    week.finish(week.start("street", "again"), "the nightly run, without new data")
    week.finish(week.start("street", "after-rollback", 12), "a different training: 12 epochs")

    week.day = "Sunday"
    for epochs in FEWER_EPOCHS:
        week.finish(week.start("yard", f"{epochs}-epochs", epochs), f"{epochs} epochs instead of 10")
    for words in (["--dry-run"], []):
        found = week.gc(*words)
        sizes = {
            kind: sum(item["kind"] == kind for item in found["items"]) for kind in ("artifacts", "versions", "runs")
        }
        text = ", ".join(f"{number} {kind}" for kind, number in sizes.items())
        for name in SEEDS:
            week.record(
                name, " ".join(["gc", *words]), f"{text}, {found['bytes'] / 1e6:.0f} MB; {len(found['kept'])} runs kept"
            )


def darken(folder: Path) -> Path:
    """Darkens all images of a data set to a third of their brightness."""
    for path in folder.glob("*/*.png"):
        if path.parent.name in PAIRS:
            with Image.open(path) as image:
                image.convert("RGB").point(lambda level: level // 3).save(path)
    return folder


def spoil(folder: Path) -> Path:
    """Truncates every second training mask of a data set to 100 bytes."""
    for path in sorted((folder / "trainannot").glob("*.png"))[::2]:
        path.write_bytes(path.read_bytes()[:100])
    return folder


def print_table(events: list[Event]) -> None:
    """Prints the events as a table."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column in ("day", "project", "event", "served", "why"):
        table.add_column(column, overflow="fold")
    for event in events:
        table.add_row(event.day, event.project, event.what, str(event.served or "-"), event.why)
    Console(width=160, highlight=False, markup=False, emoji=False).print(table)


if __name__ == "__main__":
    main()
