"""Recurring runs of a pipeline: applied by name, paused, resumed, deleted and listed.

The API creates and deletes recurring runs and cannot change one. A change therefore makes the new
one before it deletes the old, so that a failure half-way leaves one too many and never none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal

from components.errors import SegpipeError, UsageError
from pipeline.kubeflow import cron
from pipeline.kubeflow.client import Kubeflow, Run, Version, named, utc

Change = Literal["created", "updated", "unchanged"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclasses.dataclass(frozen=True)
class Trigger:
    """When a schedule fires: by a cron expression of six fields, or every so many seconds."""

    cron: str = ""
    seconds: int = 0

    def __str__(self) -> str:
        return self.cron or _duration(self.seconds)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What a recurring run is to be. One run at a time and no catching up are not for choice.

    Attributes:
        name: identifies it.
        trigger: when it fires.
        version: the pipeline's version that it runs.
        arguments: the runs' parameters.
        experiment_id: groups its runs.
        service_account: of its pods; the server's default where empty.
    """

    name: str
    trigger: Trigger
    version: Version
    arguments: dict[str, Any]
    experiment_id: str
    service_account: str = ""


@dataclasses.dataclass(frozen=True)
class ScheduleState:
    """A recurring run as the API server has it; times are in UTC."""

    schedule_id: str
    name: str
    trigger: Trigger
    enabled: bool
    created: datetime | None
    last: datetime | None

    def next_run(self, now: datetime) -> datetime | None:
        """Returns when it fires next, if its last run has ended by then; None while paused, and where nobody knows."""
        if not self.enabled:
            return None
        if self.trigger.cron:
            try:
                return cron.parse(self.trigger.cron).next_after(now)
            except UsageError:  # made by another client, in a form of its own such as @every
                return None
        interval = timedelta(seconds=self.trigger.seconds)
        if self.last:
            return max(now, self.last + interval)
        # It may have fired since, before the runs that were looked at.
        first = (self.created or now) + interval
        return first if first >= now else None


def read_trigger(cron_text: str | None, every: str | None) -> Trigger:
    """Reads --cron or --every. Raises UsageError where neither, both, or a wrong one is given."""
    if bool(cron_text) == bool(every):
        raise UsageError("expected either --cron, such as '0 3 * * *', or --every, such as 6h")
    if cron_text:
        return Trigger(cron=cron.parse(cron_text).text)
    match = re.fullmatch(r"(\d+)([smhd])", every or "")
    if not match or int(match[1]) < 1:
        raise UsageError(f"--every {every}: expected a number and a unit, such as 30m, 6h or 7d")
    return Trigger(seconds=int(match[1]) * _UNITS[match[2]])


def apply(kubeflow: Kubeflow, wanted: Schedule) -> Change:
    """Makes the one recurring run of a name what it is to be; a paused one stays paused.

    Raises:
        SegpipeError: the server refused; what was scheduled before then still is.
    """
    found = _find(kubeflow, wanted.name)
    kept = next((item for item in found if _fits(item, wanted)), None)
    change: Change = "unchanged" if kept else "updated" if found else "created"
    if kept is None:
        paused = bool(found) and not any(_enabled(item) for item in found)
        kept = _create(kubeflow, wanted, enabled=not paused)
    others = [item for item in found if item.recurring_run_id != kept.recurring_run_id]
    _delete(kubeflow, others, wanted.name)
    return "updated" if others else change


def pause(kubeflow: Kubeflow, name: str) -> None:
    """Stops a schedule from firing; a run that is under way goes on. Raises UsageError for an unknown one."""
    for item in _find_some(kubeflow, name):
        with kubeflow.explained():
            kubeflow.api.disable_recurring_run(item.recurring_run_id)


def resume(kubeflow: Kubeflow, name: str) -> None:
    """Lets a paused schedule fire again; what it missed is not made up for. Raises UsageError for an unknown one."""
    for item in _find_some(kubeflow, name):
        with kubeflow.explained():
            kubeflow.api.enable_recurring_run(item.recurring_run_id)


def delete(kubeflow: Kubeflow, name: str) -> None:
    """Deletes a schedule; its runs stay. Raises UsageError for an unknown one."""
    for item in _find_some(kubeflow, name):
        with kubeflow.explained():
            kubeflow.api.delete_recurring_run(item.recurring_run_id)


def states(kubeflow: Kubeflow, runs: Iterable[Run]) -> list[ScheduleState]:
    """Returns all schedules by name.

    Args:
        kubeflow: the server.
        runs: its latest runs, which tell when a schedule fired last.
    """
    last: dict[str, datetime] = {}
    for run in runs:
        time = run.scheduled or run.created
        if run.schedule_id and time:
            last[run.schedule_id] = max(time, last.get(run.schedule_id, time))
    with kubeflow.explained():
        items = list(kubeflow.pages(kubeflow.api.list_recurring_runs, "recurring_runs", namespace=kubeflow.namespace))
    return sorted((_state(item, last) for item in items), key=lambda state: state.name)


def _create(kubeflow: Kubeflow, wanted: Schedule, enabled: bool) -> Any:
    with kubeflow.explained():
        return kubeflow.api.create_recurring_run(
            wanted.experiment_id,
            wanted.name,
            cron_expression=wanted.trigger.cron or None,
            interval_second=wanted.trigger.seconds or None,
            max_concurrency=1,
            no_catchup=True,
            params=wanted.arguments,
            pipeline_id=wanted.version.pipeline_id,
            version_id=wanted.version.version_id,
            enabled=enabled,
            service_account=wanted.service_account or None,
        )


def _delete(kubeflow: Kubeflow, items: Iterable[Any], name: str) -> None:
    for item in items:
        try:
            with kubeflow.explained():
                kubeflow.api.delete_recurring_run(item.recurring_run_id)
        except SegpipeError as error:
            raise SegpipeError(
                f"schedule {name}: the new recurring run is in place, but the old one ({item.recurring_run_id}) could "
                f"not be deleted, so both fire. Run the same command again to delete it. {error}"
            ) from None


def _find(kubeflow: Kubeflow, name: str) -> list[Any]:
    """Returns all recurring runs of a name; other clients may have made more than one."""
    with kubeflow.explained():
        return list(
            kubeflow.pages(
                kubeflow.api.list_recurring_runs, "recurring_runs", namespace=kubeflow.namespace, filter=named(name)
            )
        )


def _find_some(kubeflow: Kubeflow, name: str) -> list[Any]:
    found = _find(kubeflow, name)
    if not found:
        raise UsageError(
            f"schedule {name!r}: {kubeflow.host} has none of that name; see what there is with: segpipe kubeflow list"
        )
    return found


def _fits(item: Any, wanted: Schedule) -> bool:
    """Tells whether a recurring run is already what is wanted; whether it is paused does not matter."""
    reference, runtime = item.pipeline_version_reference, item.runtime_config
    return (
        _trigger(item) == wanted.trigger
        and reference is not None
        and reference.pipeline_version_id == wanted.version.version_id
        and ((runtime.parameters if runtime else None) or {}) == wanted.arguments
        and item.experiment_id == wanted.experiment_id
        and int(item.max_concurrency or 0) == 1
        and bool(item.no_catchup)
        and wanted.service_account in ("", item.service_account)
    )


def _state(item: Any, last: dict[str, datetime]) -> ScheduleState:
    return ScheduleState(
        schedule_id=item.recurring_run_id,
        name=item.display_name,
        trigger=_trigger(item),
        enabled=_enabled(item),
        created=utc(item.created_at),
        last=last.get(item.recurring_run_id),
    )


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
