"""The layout of a work directory, and the lock that allows one run at a time.

Other programs may rely on `runs/<run_id>/`, `latest` and `serving/<name>/<version>/`; the rest is internal.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from filelock import FileLock, Timeout

from components import files
from components.errors import UsageError, WorkdirBusyError
from pipeline.storage.settings import MetadataSettings

CONFIG_FILE = "config.yaml"
LOG_FILE = "log.txt"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"


class Workdir:
    """Paths inside one work directory, and its metadata store.

    Attributes:
        root: the work directory, local or, for runs on a cluster, on an object store.
        metadata: file of the metadata store, if it is a file.
        shared: whether several runs may use it at once.
    """

    def __init__(self, root: str, store: MetadataSettings | None = None, shared: bool = False) -> None:
        """Sets the root and the store. The default store is a file in the work directory."""
        self.root = root.rstrip("/") if files.is_remote(root) else os.path.abspath(root)
        self.shared = shared
        self.artifacts = files.join(self.root, "artifacts")
        self.checkpoints = files.join(self.root, "checkpoints")
        self.schemas = files.join(self.root, "schemas")
        self.index = files.join(self.root, "index")
        self.runs = files.join(self.root, "runs")
        self.latest = files.join(self.root, "latest")
        self._store = store or MetadataSettings()
        self.metadata = self._store.path or files.join(self.root, "metadata.sqlite")
        self._lock = files.join(self.root, ".lock")

    @property
    def connection(self) -> Any:
        """ML Metadata's connection to the store."""
        from pipeline.storage.metadata import connection_config

        return connection_config(self._store, self.metadata)

    @property
    def source(self) -> Any:
        """The argument of `pipeline.storage.store.Store`: the file of the metadata store, else its connection."""
        return self.metadata if self._store.kind == "sqlite" else self.connection

    def run(self, run_id: str) -> str:
        """Returns the folder of one run: configuration, log, summary and report."""
        return files.join(self.runs, run_id)

    def serving(self, serving_dir: str) -> str:
        """Returns the folder that holds the served models, for the setting `serving_dir`."""
        if not serving_dir:
            return files.join(self.root, "serving")
        return serving_dir if files.is_remote(serving_dir) else os.path.abspath(serving_dir)

    def create(self) -> None:
        """Creates the folders, unless the root is on an object store.

        Raises:
            UsageError: the folders cannot be created, or several pods would share an SQLite file on a network volume.
        """
        if self.shared and self._store.kind == "sqlite":
            self._refuse_network_volume()
        if files.is_remote(self.root):
            return
        try:
            for folder in (self.artifacts, self.schemas, self.runs):
                os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _refuse_network_volume(self) -> None:
        from pipeline.storage.metadata import network_file_system

        kind = network_file_system(self.metadata)
        if kind:
            raise UsageError(
                f"kubeflow.metadata: found an SQLite file on a network volume ({kind}), {self.metadata}, where file "
                "locks do not work across machines and the file may be damaged. Set kubeflow.metadata.kind=mysql and "
                "kubeflow.metadata.host"
            )

    @contextlib.contextmanager
    def lock(self, wait: bool) -> Iterator[None]:
        """Locks the work directory for one run. If another run holds the lock, waits for it or fails at once.

        Raises:
            WorkdirBusyError: another run holds the lock and `wait` is False.
            UsageError: the folder cannot be written, or is on an object store.
        """
        if files.is_remote(self.root):
            raise UsageError(
                f"--out {self.root}: found an object store, expected a local folder. "
                "A pipeline compiled by `segpipe kubeflow compile` keeps its results there, by kubeflow.root"
            )
        lock = FileLock(self._lock, timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            raise WorkdirBusyError(
                f"{self.root}: another run is using this work directory. Wait for it (--wait does), "
                "or give this run its own with --out"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            yield
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"{self.root}: found {str(error.strerror).lower()}, expected a writable folder. Name another one with --out"
        )

    def point_latest(self, run_id: str) -> None:
        """Points `latest` to a run, and replaces the link atomically."""
        temporary = f"{self.latest}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join("runs", run_id), temporary)
        os.replace(temporary, self.latest)
