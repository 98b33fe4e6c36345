"""Recurring runs of a pipeline: apply them by name, pause, resume, delete and list them.

The API cannot change a recurring run. A change therefore creates the new one before it deletes the old one: a failure
in between leaves both, and never neither.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from components.errors import SegpipeError, UsageError
from pipeline.kubeflow import cron
from pipeline.kubeflow.client import Kubeflow, named, utc

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclasses.dataclass(frozen=True)
class Trigger:
    """When a schedule starts runs: a cron expression of six fields, or an interval in seconds."""

    cron: str = ""
    seconds: int = 0

    def __str__(self) -> str:
        return self.cron or _duration(self.seconds)


@dataclasses.dataclass(frozen=True)
class ScheduleState:
    """A recurring run on the API server; times are in UTC."""

    name: str
    trigger: Trigger
    enabled: bool
    created: datetime | None
    last: datetime | None

    def next_run(self, now: datetime) -> datetime | None:
        """Returns the time of the next run, if the last one has ended by then; None if paused or unknown."""
        if not self.enabled:
            return None
        if self.trigger.cron:
            try:
                return cron.parse(self.trigger.cron).next_after(now)
            except UsageError:  # Another client may use other forms, such as @every.
                return None
        interval = timedelta(seconds=self.trigger.seconds)
        if self.last:
            return max(now, self.last + interval)
        # An earlier start may be older than the listed runs.
        first = (self.created or now) + interval
        return first if first >= now else None


def read_trigger(cron_text: str | None, every: str | None) -> Trigger:
    """Reads --cron or --every. Raises UsageError unless exactly one of them is given, and valid."""
    if bool(cron_text) == bool(every):
        raise UsageError("expected either --cron, such as '0 3 * * *', or --every, such as 6h")
    if cron_text:
        return Trigger(cron=cron.parse(cron_text).text)
    match = re.fullmatch(r"(\d+)([smhd])", every or "")
    if not match or int(match[1]) < 1:
        raise UsageError(f"--every {every}: expected a number and a unit, such as 30m, 6h or 7d")
    return Trigger(seconds=int(match[1]) * _UNITS[match[2]])


def apply(
    kubeflow: Kubeflow,
    name: str,
    trigger: Trigger,
    version: Any,
    parameters: dict[str, Any],
    experiment_id: str,
    service_account: str = "",
) -> str:
    """Creates or replaces a recurring run: one run at a time, missed times are skipped. A paused one stays paused.

    Args:
        kubeflow: the server.
        name: name of the schedule, which identifies it.
        trigger: when it starts runs.
        version: the version to run, a `kfp_server_api.V2beta1PipelineVersion`.
        parameters: the runs' parameters by name.
        experiment_id: experiment of its runs.
        service_account: service account of its pods; empty for the server's default.

    Returns:
        `created`, `updated` or `unchanged`.

    Raises:
        SegpipeError: the server refused; the earlier recurring run is still there.
    """
    wanted = {
        "experiment_id": experiment_id,
        "cron_expression": trigger.cron or None,
        "interval_second": trigger.seconds or None,
        "max_concurrency": 1,
        "no_catchup": True,
        "params": parameters,
        "version_id": version.pipeline_version_id,
        **({"service_account": service_account} if service_account else {}),
    }
    # Other clients may have made several of the same name.
    found = _list(kubeflow, filter=named(name))
    kept = next((item for item in found if _has(item, wanted)), None)
    outcome = "unchanged" if kept else "updated" if found else "created"
    if kept is None:
        paused = bool(found) and not any(_enabled(item) for item in found)
        with kubeflow.explained():
            kept = kubeflow.api.create_recurring_run(
                job_name=name, pipeline_id=version.pipeline_id, enabled=not paused, **wanted
            )
    others = [item for item in found if item.recurring_run_id != kept.recurring_run_id]
    for item in others:
        try:
            with kubeflow.explained():
                kubeflow.api.delete_recurring_run(item.recurring_run_id)
        except SegpipeError as error:
            raise SegpipeError(
                f"schedule {name}: the new recurring run is in place, but the old one ({item.recurring_run_id}) could "
                f"not be deleted, so both fire. Run the same command again to delete it. {error}"
            ) from None
    return "updated" if others else outcome


def change(kubeflow: Kubeflow, name: str, action: str) -> None:
    """Applies the action `pause`, `resume` or `delete` to a schedule; its runs stay. Raises UsageError if unknown."""
    api = kubeflow.api
    call = {"pause": api.disable_recurring_run, "resume": api.enable_recurring_run, "delete": api.delete_recurring_run}
    found = _list(kubeflow, filter=named(name))
    if not found:
        raise UsageError(
            f"schedule {name!r}: {kubeflow.host} has no schedule of that name; list them with: segpipe kubeflow list"
        )
    with kubeflow.explained():
        for item in found:
            call[action](item.recurring_run_id)


def states(kubeflow: Kubeflow, runs: Iterable[Any]) -> list[ScheduleState]:
    """Returns all schedules by name; the server's latest runs show the last start of each."""
    last: dict[str, datetime] = {}
    for run in runs:
        time = utc(run.scheduled_at) or utc(run.created_at)
        if run.recurring_run_id and time:
            last[run.recurring_run_id] = max(time, last.get(run.recurring_run_id, time))
    states = [
        ScheduleState(
            name=item.display_name,
            trigger=_trigger(item),
            enabled=_enabled(item),
            created=utc(item.created_at),
            last=last.get(item.recurring_run_id),
        )
        for item in _list(kubeflow)
    ]
    return sorted(states, key=lambda state: state.name)


def _list(kubeflow: Kubeflow, **arguments: str) -> list[Any]:
    with kubeflow.explained():
        return list(kubeflow.pages(kubeflow.api.list_recurring_runs, "recurring_runs", **arguments))


def _has(item: Any, wanted: dict[str, Any]) -> bool:
    """Tells whether a recurring run has the wanted arguments. Whether it is paused does not matter."""
    arguments = _arguments(item)
    return all(arguments[name] == value for name, value in wanted.items())


def _arguments(item: Any) -> dict[str, Any]:
    """Returns the arguments of `kfp.Client.create_recurring_run` that would make the same recurring run."""
    reference, runtime, trigger = item.pipeline_version_reference, item.runtime_config, _trigger(item)
    return {
        "experiment_id": item.experiment_id,
        "cron_expression": trigger.cron or None,
        "interval_second": trigger.seconds or None,
        "max_concurrency": int(item.max_concurrency or 0),
        "no_catchup": bool(item.no_catchup),
        "params": (runtime.parameters if runtime else None) or {},
        "version_id": reference.pipeline_version_id if reference else None,
        "service_account": item.service_account,
    }


def _trigger(item: Any) -> Trigger:
    trigger = item.trigger
    if trigger and trigger.cron_schedule:
        return Trigger(cron=trigger.cron_schedule.cron or "")
    if trigger and trigger.periodic_schedule:
        return Trigger(seconds=int(trigger.periodic_schedule.interval_second or 0))
    return Trigger()


def _enabled(item: Any) -> bool:
    return item.status == "ENABLED"


def _duration(seconds: int) -> str:
    for unit, length in reversed(_UNITS.items()):
        if seconds % length == 0:
            return f"every {seconds // length}{unit}"
    return ""
