"""Recurring runs: applied by name, changed without a gap, paused, resumed, deleted, and listed with their next time."""

import dataclasses
from datetime import datetime, timedelta, timezone

import pytest
from compiled_package import write_package

from components.errors import SegpipeError, UsageError
from pipeline.kubeflow import schedule as schedules
from pipeline.kubeflow.client import Kubeflow
from pipeline.kubeflow.connection import Connection
from pipeline.kubeflow.package import read_package


@pytest.fixture
def kubeflow(server):
    return Kubeflow(Connection(server.host))


@pytest.fixture
def apply(kubeflow, package):
    """Returns a function that applies the schedule `nightly` with some settings changed."""

    def apply_schedule(cron=None, every=None, path=package, **arguments):
        trigger = schedules.read_trigger(cron if cron or every else "0 3 * * *", every)
        version, experiment = kubeflow.upload(read_package(path)), kubeflow.experiment("segpipe")
        return schedules.apply(kubeflow, "nightly", trigger, version, {"data": "/data", **arguments}, experiment)

    return apply_schedule


def test_a_schedule_runs_one_at_a_time_and_never_catches_up(server, apply):
    change = apply(cron="0 3 * * *")

    (made,) = server.all("recurringruns")
    assert change == "created"
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (made["max_concurrency"], made["no_catchup"], made["status"]) == ("1", True, "ENABLED")
    assert made["runtime_config"]["parameters"] == {"data": "/data"}


def test_an_interval_is_sent_in_seconds(server, apply):
    apply(every="6h")

    (made,) = server.all("recurringruns")
    assert made["trigger"] == {"periodic_schedule": {"interval_second": "21600"}}


@pytest.mark.parametrize("trigger", [{"cron": "0 3 * * *"}, {"every": "6h"}])
def test_applying_twice_changes_nothing(server, apply, trigger):
    apply(epochs=3, **trigger)
    before, asked = server.all("recurringruns"), len(server.requests)

    change = apply(epochs=3, **trigger)

    assert change == "unchanged"
    assert server.all("recurringruns") == before
    assert {method for method, _ in server.requests[asked:]} == {"GET"}


def test_a_changed_time_parameter_or_pipeline_replaces_the_schedule(server, apply, tmp_path):
    apply()
    other = write_package(tmp_path / "other.yaml", image="example.com/segpipe:2")

    changes = [
        apply(cron="0 4 * * *"),
        apply(cron="0 4 * * *", epochs=3),
        apply(cron="0 4 * * *", epochs=3, path=other),
    ]

    assert changes == ["updated"] * 3
    (left,) = server.all("recurringruns")
    assert left["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    assert left["runtime_config"]["parameters"]["epochs"] == 3


def test_a_paused_schedule_that_changes_stays_paused(server, kubeflow, apply):
    apply()
    schedules.change(kubeflow, "nightly", "pause")

    apply(cron="0 4 * * *")

    (left,) = server.all("recurringruns")
    assert left["status"] == "DISABLED"


def test_a_change_that_the_server_refuses_leaves_the_old_schedule(server, apply):
    apply()
    server.refuse = {("POST", "/recurringruns"): 500}

    with pytest.raises(SegpipeError, match="refused on purpose"):
        apply(cron="0 4 * * *")

    (left,) = server.all("recurringruns")
    assert left["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert left["status"] == "ENABLED"


def test_an_old_schedule_that_cannot_be_deleted_is_deleted_by_the_next_apply(server, apply):
    apply()
    (old,) = server.all("recurringruns")
    server.refuse = {("DELETE", old["recurring_run_id"]): 500}

    with pytest.raises(SegpipeError, match=f"{old['recurring_run_id']}.*both fire.*same command again"):
        apply(cron="0 4 * * *")
    assert len(server.all("recurringruns")) == 2
    server.refuse = {}

    assert apply(cron="0 4 * * *") == "updated"
    (left,) = server.all("recurringruns")
    assert left["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"


def test_other_schedules_are_not_changed(server, kubeflow, apply):
    apply()
    server.all("recurringruns")[0]["display_name"] = "weekly"

    assert apply() == "created"
    schedules.change(kubeflow, "nightly", "delete")

    assert [item["display_name"] for item in server.all("recurringruns")] == ["weekly"]


def test_a_schedule_is_paused_resumed_and_deleted(server, kubeflow, apply):
    apply()

    schedules.change(kubeflow, "nightly", "pause")
    (paused,) = schedules.states(kubeflow, [])
    schedules.change(kubeflow, "nightly", "resume")
    (resumed,) = schedules.states(kubeflow, [])
    schedules.change(kubeflow, "nightly", "delete")

    assert (paused.enabled, resumed.enabled) == (False, True)
    assert schedules.states(kubeflow, []) == []
    with pytest.raises(UsageError, match="has no schedule of that name"):
        schedules.change(kubeflow, "nightly", "pause")


def test_the_next_run_is_known(server, kubeflow, apply):
    apply(every="6h")
    (made,) = server.all("recurringruns")
    server.fire(made["recurring_run_id"], "2030-01-01T00:00:00Z")
    now = datetime(2030, 1, 1, 1, tzinfo=timezone.utc)

    (state,) = schedules.states(kubeflow, kubeflow.runs(limit=10))

    assert state.last == datetime(2030, 1, 1, tzinfo=timezone.utc)
    assert state.next_run(now) == datetime(2030, 1, 1, 6, tzinfo=timezone.utc)
    assert state.next_run(now + timedelta(days=1)) == now + timedelta(days=1)
    without_its_run = dataclasses.replace(state, created=now, last=None)
    assert without_its_run.next_run(now) == now + timedelta(hours=6)
    assert without_its_run.next_run(now + timedelta(days=40)) is None
    schedules.change(kubeflow, "nightly", "pause")
    assert schedules.states(kubeflow, [])[0].next_run(now) is None


@pytest.mark.parametrize(
    ("cron", "every"), [(None, None), ("0 3 * * *", "6h"), (None, "6"), (None, "0h"), (None, "6 weeks"), ("0 3", None)]
)
def test_a_wrong_time_is_refused(cron, every):
    with pytest.raises(UsageError, match=r"--cron|--every"):
        schedules.read_trigger(cron, every)
