"""Talks to a Kubeflow Pipelines API server through the kfp client: uploads, runs, and failures that say what to do."""

from __future__ import annotations

import contextlib
import dataclasses
import io
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
CANCELING = "CANCELING"

_PAGE_SIZE = 100
_CONFLICT = 409


@dataclasses.dataclass(frozen=True)
class Version:
    """One uploaded version of a pipeline; `created` says whether this call uploaded it."""

    pipeline_id: str
    version_id: str
    name: str
    created: bool


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, as the API server has it; times are in UTC."""

    run_id: str
    name: str
    state: str
    created: datetime | None
    finished: datetime | None
    scheduled: datetime | None
    schedule_id: str | None


class Kubeflow:
    """One API server; every failure is a SegpipeError that names the address and what to do."""

    def __init__(self, connection: Connection) -> None:
        """Connects. Raises UsageError for an address or a file that cannot be right, SegpipeError for a refusal."""
        self.connection = connection
        host = connection.host.rstrip("/")
        if not host.startswith(("http://", "https://")):
            raise UsageError(f"--host {connection.host!r}: expected an address with http:// or https://")
        if connection.ca_file and not os.path.isfile(connection.ca_file):
            raise UsageError(f"--ca {connection.ca_file}: found no file, expected certificates in PEM format")
        check_health(connection, host)
        self.host = host
        with self.explained(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            self.api = kfp.client.Client(
                host=host,
                # The client's default means: as its own settings file says.
                namespace=connection.namespace or "kubeflow",
                existing_token=connection.token or None,
                cookies=connection.cookie or None,
                ssl_ca_cert=connection.ca_file or None,
            )
        self.namespace = self.api.get_user_namespace() or None

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns the kfp client's exceptions into messages that say what to do."""
        try:
            yield
        except kfp_server_api.ApiException as error:
            raise SegpipeError(refusal(self.connection, error.status, message(error.body) or error.reason)) from None
        except urllib3.exceptions.HTTPError as error:
            raise SegpipeError(unreachable(self.connection.host, error)) from None

    def upload(self, package: Package) -> Version:
        """Uploads a pipeline under its name, and its file as a version named after its content.

        What is there already is kept, so that uploading twice changes nothing.
        """
        with self._quiet():
            pipeline_id = self._pipeline_id(package.name) or self._create_pipeline(package.name)
            found = self._version(pipeline_id, package.version)
            if found:
                return Version(pipeline_id, found, package.version, created=False)
            try:
                made = self.api.upload_pipeline_version(package.path, package.version, pipeline_id=pipeline_id)
                return Version(pipeline_id, made.pipeline_version_id, package.version, created=True)
            except kfp_server_api.ApiException as error:
                # Another client was faster by a moment.
                found = self._version(pipeline_id, package.version) if error.status == _CONFLICT else None
                if not found:
                    raise
                return Version(pipeline_id, found, package.version, created=False)

    def experiment(self, name: str) -> str:
        """Returns the id of an experiment, which groups runs; makes it where there is none."""
        with self._quiet():
            return self.api.create_experiment(name, namespace=self.namespace).experiment_id

    def submit(
        self, version: Version, name: str, arguments: dict[str, Any], experiment_id: str, service_account: str = ""
    ) -> Run:
        """Starts one run of an uploaded version."""
        with self._quiet():
            started = self.api.run_pipeline(
                experiment_id,
                name,
                params=arguments,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=service_account or None,
            )
        return _run(started)

    def runs(self, limit: int) -> list[Run]:
        """Returns the latest runs, newest first."""
        with self._quiet():
            pages = self.pages(self.api.list_runs, "runs", sort_by="created_at desc", namespace=self.namespace)
            return [_run(item) for item, _ in zip(pages, range(limit), strict=False)]

    def unfinished(self, version: Version, experiment_id: str) -> Run | None:
        """Returns a run of a pipeline, of whatever version, that has not ended; None where there is none."""
        with self._quiet():
            page = self.api.list_runs(
                page_size=_PAGE_SIZE, sort_by="created_at desc", experiment_id=experiment_id, namespace=self.namespace
            )
        for item in page.runs or []:
            reference, run = item.pipeline_version_reference, _run(item)
            if reference and reference.pipeline_id == version.pipeline_id and run.state not in FINISHED:
                return run
        return None

    def find_run(self, name: str) -> Run:
        """Returns a run by its id or, the newest of that name, by its name. Raises UsageError for an unknown one."""
        with self._quiet():
            pages = self.pages(
                self.api.list_runs,
                "runs",
                sort_by="created_at desc",
                namespace=self.namespace,
                filter=named(name),
            )
            found = next(pages, None)
            if found is None:
                try:
                    found = self.api.get_run(name)
                except kfp_server_api.ApiException as error:
                    if error.status not in (400, 404):
                        raise
                    raise UsageError(
                        f"{name}: no run of that name or id at {self.host}; see what runs with: segpipe kubeflow list"
                    ) from None
        return _run(found)

    def stop(self, run: Run) -> None:
        """Asks the server to end a run; its tasks are killed, and a later run goes on from what is finished.

        Raises:
            SegpipeError: the server cannot. If somebody removed the run's workflow, it marks the run as CANCELING, then
                fails to find the workflow and answers 500, and 400 whenever it is asked again (`TerminateRun` in
                resource/resource_manager.go and storage/run_store.go, kubeflow/pipelines 7b70c7b).
        """
        try:
            if run.state == CANCELING:
                raise SegpipeError("it is being stopped already")
            with self._quiet():
                self.api.terminate_run(run.run_id)
        except SegpipeError as error:
            raise SegpipeError(
                f"run {run.name}: {error}. If it stays in this state, look for its workflow: kubectl get workflows "
                f"--all-namespaces --selector pipeline/runid={run.run_id}. Without a workflow nothing of the "
                f"run is left to stop: delete the run at {self.page_of('runs', run.run_id)}"
            ) from None

    def page_of(self, kind: str, identity: str) -> str:
        """Returns the address of a page in Kubeflow's own interface; `kind` is runs or recurringrun."""
        return f"{self.host}/#/{kind}/details/{identity}"

    def pages(self, call: Callable[..., Any], field: str, **arguments: Any) -> Iterator[Any]:
        """Yields every item of a listing, page after page."""
        token = ""
        while True:
            page = call(page_token=token, page_size=_PAGE_SIZE, **arguments)
            yield from getattr(page, field) or []
            token = page.next_page_token or ""
            if not token:
                return

    def _pipeline_id(self, name: str) -> str | None:
        pages = self.pages(self.api.list_pipelines, "pipelines", namespace=self.namespace, filter=named(name))
        return next((item.pipeline_id for item in pages), None)

    def _create_pipeline(self, name: str) -> str:
        # Not Client.upload_pipeline, which also makes a version that is named after the pipeline.
        pipeline = kfp_server_api.V2beta1Pipeline(display_name=name, namespace=self.namespace)
        return self.api.pipelines.pipeline_service_create_pipeline(pipeline).pipeline_id

    def _version(self, pipeline_id: str, name: str) -> str | None:
        pages = self.pages(
            self.api.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline_id, filter=named(name)
        )
        return next((item.pipeline_version_id for item in pages), None)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        # The kfp client prints a link at every call.
        with self.explained(), contextlib.redirect_stdout(io.StringIO()):
            yield


def named(name: str) -> str:
    """Returns the filter of a listing that keeps what has a name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def utc(time: datetime | None) -> datetime | None:
    """Returns a server's time in UTC; the time before all others, which Go sends for none, is none."""
    if time is None or time.year < 1971:
        return None
    return time.astimezone(timezone.utc)


def _run(item: Any) -> Run:
    return Run(
        run_id=item.run_id,
        name=item.display_name,
        state=item.state or "PENDING",
        created=utc(item.created_at),
        finished=utc(item.finished_at),
        scheduled=utc(item.scheduled_at),
        schedule_id=item.recurring_run_id or None,
    )
