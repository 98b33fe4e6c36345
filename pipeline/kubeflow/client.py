"""Uploads, starts, lists and stops runs through the kfp client, with errors that say what to do."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import kfp.client
import kfp_server_api  # type: ignore[import-untyped]
import urllib3

from components.errors import SegpipeError, UsageError
from pipeline.kubeflow.connection import Connection, check_health, message, refusal, unreachable
from pipeline.kubeflow.package import Package

FINISHED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")

_PAGE_SIZE = 100
_NEWEST_FIRST = "created_at desc"


class Kubeflow:
    """One API server. Every failure is a SegpipeError that names the address and what to do.

    Runs, versions and recurring runs are the kfp client's objects: `kfp_server_api.V2beta1Run` and the like.
    """

    def __init__(self, connection: Connection) -> None:
        """Connects. Raises UsageError for a malformed address or a missing file, SegpipeError for a refusal."""
        self.connection = connection
        self.host = connection.host.rstrip("/")
        if not self.host.startswith(("http://", "https://")):
            raise UsageError(f"--host {connection.host!r}: expected an address with http:// or https://")
        if connection.ca_file and not os.path.isfile(connection.ca_file):
            raise UsageError(f"--ca {connection.ca_file}: found no file, expected certificates in PEM format")
        check_health(connection, self.host)
        with self.explained(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.api = kfp.client.Client(
                host=self.host,
                # "kubeflow" is the client's default: it then takes the namespace of its own settings file.
                namespace=connection.namespace or "kubeflow",
                existing_token=connection.token or None,
                cookies=connection.cookie or None,
                ssl_ca_cert=connection.ca_file or None,
            )
        self.namespace = self.api.get_user_namespace() or None

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns the kfp client's exceptions into messages that say what to do, and hides the links that it prints."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except kfp_server_api.ApiException as error:
            raise SegpipeError(refusal(self.connection, error.status, message(error.body) or error.reason)) from None
        except urllib3.exceptions.HTTPError as error:
            raise SegpipeError(unreachable(self.connection.host, error)) from None

    def upload(self, package: Package) -> Any:
        """Uploads a pipeline, and its file as a version named after its content; returns the version.

        A version that the server has is not uploaded again.
        """
        with self.explained():
            pipeline_id = self._pipeline_id(package.name)
            found = self._version(pipeline_id, package.version)
            if found:
                return found
            try:
                return self.api.upload_pipeline_version(package.path, package.version, pipeline_id=pipeline_id)
            except kfp_server_api.ApiException as error:
                # Another client may have uploaded it in the meantime.
                found = self._version(pipeline_id, package.version) if error.status == 409 else None
                if not found:
                    raise
                return found

    def experiment(self, name: str) -> str:
        """Returns the id of an experiment, which groups runs; creates it if it does not exist."""
        with self.explained():
            return self.api.create_experiment(name, namespace=self.namespace).experiment_id

    def submit(
        self, version: Any, name: str, arguments: dict[str, Any], experiment_id: str, service_account: str = ""
    ) -> Any:
        """Starts a run of an uploaded version and returns it."""
        with self.explained():
            return self.api.run_pipeline(
                experiment_id,
                name,
                params=arguments,
                pipeline_id=version.pipeline_id,
                version_id=version.pipeline_version_id,
                service_account=service_account or None,
            )

    def runs(self, limit: int) -> list[Any]:
        """Returns the latest runs, newest first."""
        with self.explained():
            return list(itertools.islice(self._runs(), limit))

    def unfinished(self, version: Any) -> Any | None:
        """Returns a run of any version of the same pipeline that has not ended; None if there is no such run."""
        with self.explained():
            for run in self._runs(filter=_matching("NOT_EQUALS", "state", *FINISHED)):
                reference = run.pipeline_version_reference
                if reference and reference.pipeline_id == version.pipeline_id and run.state not in FINISHED:
                    return run
        return None

    def find_run(self, name: str) -> Any:
        """Returns the newest run of a name, or the run of an id. Raises UsageError for an unknown one."""
        with self.explained():
            found = next(self._runs(filter=named(name)), None)
            if found:
                return found
            try:
                return self.api.get_run(name)
            except kfp_server_api.ApiException as error:
                if error.status not in (400, 404):
                    raise
                raise UsageError(
                    f"{name}: no run of that name or id at {self.host}; list them with: segpipe kubeflow list"
                ) from None

    def stop(self, run: Any) -> None:
        """Asks the server to end a run; its tasks are killed, and a later run continues from the finished ones.

        Raises:
            SegpipeError: the server cannot. If the run's workflow was removed, the server marks the run as CANCELING,
                fails to find the workflow and answers 500, then 400 to each further request (`TerminateRun` in
                resource/resource_manager.go and storage/run_store.go, kubeflow/pipelines 7b70c7b).
        """
        try:
            if run.state == "CANCELING":
                raise SegpipeError("it is being stopped already")
            with self.explained():
                self.api.terminate_run(run.run_id)
        except SegpipeError as error:
            raise SegpipeError(
                f"run {run.display_name}: {error}. If it stays in this state, look for its workflow: kubectl get "
                f"workflows --all-namespaces --selector pipeline/runid={run.run_id}. If it has no workflow, nothing is "
                f"running: delete the run at {self.run_page(run)}"
            ) from None

    def run_page(self, run: Any) -> str:
        """Returns the address of a run's page."""
        return f"{self.host}/#/runs/details/{run.run_id}"

    def pages(self, call: Callable[..., Any], field: str, **arguments: Any) -> Iterator[Any]:
        """Yields every item of a listing, page after page."""
        token: str | None = ""
        while token is not None:
            page = call(page_token=token, page_size=_PAGE_SIZE, namespace=self.namespace, **arguments)
            yield from getattr(page, field) or []
            token = page.next_page_token or None

    def _runs(self, **arguments: Any) -> Iterator[Any]:
        return self.pages(self.api.list_runs, "runs", sort_by=_NEWEST_FIRST, **arguments)

    def _pipeline_id(self, name: str) -> str:
        """Returns the id of a pipeline; creates it if it does not exist."""
        # Client.get_pipeline_id does not see the pipelines of a namespace.
        found = next(self.pages(self.api.list_pipelines, "pipelines", filter=named(name)), None)
        if found:
            return found.pipeline_id
        # Client.upload_pipeline would also make a version, named after the pipeline.
        pipeline = kfp_server_api.V2beta1Pipeline(display_name=name, namespace=self.namespace)
        return self.api.pipelines.pipeline_service_create_pipeline(pipeline).pipeline_id

    def _version(self, pipeline_id: str, name: str) -> Any | None:
        # A pipeline has at most one version of a name, so its first page is enough.
        return next(
            iter(self.api.list_pipeline_versions(pipeline_id, filter=named(name)).pipeline_versions or []), None
        )


def named(name: str) -> str:
    """Returns the filter of a listing for items of a name."""
    return _matching("EQUALS", "display_name", name)


def _matching(operation: str, key: str, *values: str) -> str:
    """Returns the filter of a listing for items whose field compares so with every value."""
    return json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": each} for each in values]})


def utc(time: datetime | None) -> datetime | None:
    """Returns a server's time in UTC; None for Go's zero time, which the server sends for no time."""
    return None if time is None or time.year < 1971 else time.astimezone(timezone.utc)
