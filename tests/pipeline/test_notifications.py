"""Events reach a webhook, or a warning says why not; neither fails a run nor tells the secret address."""

import json
import logging

import pytest
from webhook_receiver import receiving

from components.errors import DataRejectedError, SegpipeError, UsageError
from pipeline.cli.run import build_config
from pipeline.configuration.config import load_config
from pipeline.kubeflow import node
from pipeline.kubeflow.parameters import RUN_ID, defaults
from pipeline.running import run
from pipeline.running.notifications import Notification, NotifySettings, send

_EVENT = Notification(
    "not_blessed",
    "street-scenes",
    "run-1",
    "mean_iou is 0.300, the minimum is 0.400: 0.100 short",
    scores={"mean_iou": 0.3, "class_iou/road": None, "class_iou/sky": float("nan")},
    links={"report": "/results/report.html"},
)
_SETTINGS = NotifySettings()


@pytest.fixture
def receiver(monkeypatch):
    with receiving() as running:
        monkeypatch.setenv("SEGPIPE_WEBHOOK_URL", running.address)
        yield running


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


def test_the_body_serves_programs_and_people(receiver):
    warnings = []

    send(_SETTINGS, _EVENT, warnings.append)

    (body,) = receiver.bodies
    assert warnings == []
    assert body == {
        "event": "not_blessed",
        "pipeline": "street-scenes",
        "run_id": "run-1",
        "reason": _EVENT.reason,
        "scores": {"mean_iou": 0.3},
        "links": {"report": "/results/report.html"},
        "text": f"street-scenes, run run-1: the model was not blessed\n{_EVENT.reason}\nreport: /results/report.html",
    }


def test_a_long_reason_is_cut(receiver):
    send(_SETTINGS, Notification("failed", "street-scenes", "run-1", "x" * 5000), pytest.fail)

    assert receiver.bodies[0]["reason"] == "x" * 2000 + " ..."
    assert len(receiver.bodies[0]["text"]) < 2100


@pytest.mark.parametrize("settings", [{"events": ["failed"]}, {"webhook_url_env": "OTHER_WEBHOOK_URL"}])
def test_an_event_that_is_not_wanted_or_has_no_address_is_not_sent(receiver, settings):
    send(NotifySettings(**settings), _EVENT, pytest.fail)

    assert receiver.seen == 0


def test_a_receiver_that_fails_for_a_moment_is_asked_again(receiver, no_pauses):
    receiver.answers = [500, 503, 204]

    send(_SETTINGS, _EVENT, pytest.fail)

    assert len(receiver.bodies) == 1


@pytest.mark.parametrize(
    ("answer", "asked"), [(500, 5), (404, 1), (302, 1)], ids=["server error", "not found", "redirect"]
)
def test_a_receiver_that_refuses_is_a_warning_without_the_address(receiver, no_pauses, caplog, answer, asked):
    receiver.answers = [answer]
    caplog.set_level(logging.INFO)
    warnings = []

    send(_SETTINGS, _EVENT, warnings.append)

    (warning,) = warnings
    assert warning.startswith("warning: SEGPIPE_WEBHOOK_URL: the event not_blessed was not sent: 127.0.0.1 answered")
    assert f"answered {answer}, expected 200 to 299" in warning
    assert receiver.seen == asked
    assert "secret-token" not in warning + caplog.text


def test_a_receiver_that_hangs_is_given_up(receiver):
    receiver.hangs = True
    warnings = []

    send(NotifySettings(timeout=0.5), _EVENT, warnings.append)

    (warning,) = warnings
    assert "127.0.0.1: ReadTimeoutError; check the address" in warning
    assert "secret-token" not in warning


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:1/secret-token", "127.0.0.1: NewConnectionError"),
        ("hooks.example.com/secret-token", "found no address of a webhook"),
        ("http://[secret-token", "found no address of a webhook"),
        ("http://host:secret-token/", "host: LocationParseError"),
    ],
    ids=["no server", "no scheme", "broken host", "broken port"],
)
def test_an_address_that_leads_nowhere_is_a_warning(monkeypatch, no_pauses, caplog, address, message):
    monkeypatch.setenv("SEGPIPE_WEBHOOK_URL", address)
    caplog.set_level(logging.INFO)
    warnings = []

    send(_SETTINGS, _EVENT, warnings.append)

    assert message in warnings[0]
    assert "secret-token" not in warnings[0] + caplog.text


def test_a_marker_keeps_retries_from_sending_again(receiver, no_pauses, tmp_path):
    marker = tmp_path / "runs" / "r" / "notified"
    receiver.answers = [404, 200]

    send(_SETTINGS, _EVENT, lambda warning: None, str(marker))
    assert not marker.exists()
    for _ in range(2):
        send(_SETTINGS, _EVENT, pytest.fail, str(marker))

    assert receiver.seen == 2


def test_a_marker_that_cannot_be_written_is_a_warning(receiver, tmp_path):
    (tmp_path / "file").write_text("")
    warnings = []

    send(_SETTINGS, _EVENT, warnings.append, str(tmp_path / "file" / "notified"))

    assert str(tmp_path / "file" / "notified") in warnings[0]


@pytest.mark.parametrize(
    ("error", "event", "reason"),
    [
        (DataRejectedError("7 bad pairs"), "data_rejected", "7 bad pairs"),
        (UsageError("no such split"), "failed", "no such split"),
        (MemoryError(), "failed", "MemoryError"),
    ],
    ids=["rejected", "usage", "other"],
)
def test_a_local_run_that_fails_is_told(receiver, street_scenes, tmp_path, monkeypatch, error, event, reason):
    def fail(*_):
        raise error

    monkeypatch.setattr(run, "_run", fail)
    config = build_config(street_scenes, "unet", "smoke", None, None, None, [])

    with pytest.raises(SegpipeError) as raised:
        run.run_pipeline(config, str(tmp_path / "work"))

    (body,) = receiver.bodies
    (folder,) = (tmp_path / "work" / "runs").iterdir()
    assert (body["event"], body["run_id"]) == (event, folder.name)
    assert reason in body["reason"]
    assert body["reason"] == str(raised.value)
    assert body["links"] == {"log": str(folder / "log.txt")}


def test_an_interrupted_run_is_not_told(receiver, street_scenes, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_run", interrupt)

    with pytest.raises(KeyboardInterrupt):
        run.run_pipeline(load_config([("test", {"data": {"dir": street_scenes}})]), str(tmp_path / "work"))

    assert receiver.seen == 0


def _task(tmp_path, data, **values):
    layers = [("test", {"kubeflow": {"root": str(tmp_path / "work")}})]
    executor_input = {"inputs": {"parameterValues": {**defaults(data, "unet", "smoke", None, None), **values}}}
    return node.main(
        ["--task", "Trainer", "--configuration", json.dumps(layers), "--executor-input", json.dumps(executor_input)]
    )


def test_a_kubeflow_task_that_fails_tells_once_however_often_it_is_retried(
    receiver, street_scenes, tmp_path, monkeypatch
):
    def fail(*_):
        raise DataRejectedError("7 bad pairs")

    monkeypatch.setattr(node, "_launch", fail)

    assert [_task(tmp_path, street_scenes, **{RUN_ID: "r"}) for _ in range(2)] == [4, 4]

    (body,) = receiver.bodies
    assert (body["event"], body["run_id"], body["reason"]) == ("data_rejected", "r", "7 bad pairs")
    assert body["links"] == {"log": f"{tmp_path}/work/runs/r/Trainer.log"}


def test_a_kubeflow_task_with_wrong_settings_tells_too(receiver, street_scenes, tmp_path):
    assert _task(tmp_path, street_scenes, **{RUN_ID: "r", "push_destination": "served"}) == 2

    (body,) = receiver.bodies
    assert body["event"] == "failed"
    assert body["reason"].startswith("serving_dir: found 'served'")


def test_unknown_events_are_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="notify.events.*'drift'.*not_blessed.*drifted"):
        load_config([("test", {"notify": {"events": ["drift"]}})])
