"""The layout of a work directory, and the lock that keeps two runs from sharing it.

`runs/<run_id>/`, `latest` and `serving/<model>/<version>/` are for other programs to rely on; the
rest is segpipe's own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from components.errors import UsageError, WorkdirBusyError

if TYPE_CHECKING:
    from pipeline.config import RunConfig


CONFIG_FILE = "config.yaml"
LOG_FILE = "log.txt"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"


class Workdir:
    """Paths inside one work directory."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.artifacts = os.path.join(self.root, "artifacts")
        self.metadata = os.path.join(self.root, "metadata.sqlite")
        self.checkpoints = os.path.join(self.root, "checkpoints")
        self.schemas = os.path.join(self.root, "schemas")
        self.runs = os.path.join(self.root, "runs")
        self.latest = os.path.join(self.root, "latest")
        self._lock = os.path.join(self.root, ".lock")

    def run(self, run_id: str) -> str:
        """Returns the folder of one run: configuration, log, summary and report."""
        return os.path.join(self.runs, run_id)

    def serving(self, config: RunConfig) -> str:
        """Returns the folder that holds the served models."""
        return config.serving_dir or os.path.join(self.root, "serving")

    def create(self) -> None:
        """Makes the folders. Raises UsageError where that is not possible."""
        try:
            for folder in (self.artifacts, self.schemas, self.runs):
                os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self.root}: found {str(error.strerror).lower()}, expected a folder that can be written. "
                "Name another one with --out"
            ) from None

    @contextlib.contextmanager
    def lock(self, wait: bool) -> Iterator[None]:
        """Holds the work directory for one run.

        Args:
            wait: whether to wait for a run that holds it, or to refuse at once.

        Raises:
            WorkdirBusyError: another run holds it and `wait` is False.
        """
        lock = FileLock(self._lock, timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            raise WorkdirBusyError(
                f"{self.root}: another run is using this work directory. Wait for it (--wait does), "
                "or give this run its own with --out"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def point_latest(self, run_id: str) -> None:
        """Points `latest` to a run, replacing the link in one step."""
        temporary = f"{self.latest}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join("runs", run_id), temporary)
        os.replace(temporary, self.latest)
