"""Events are posted to a webhook, or a warning gives the reason. Neither fails a run or shows the secret address."""

import json
import logging

import pytest
from webhook_receiver import receiving

from components.errors import DataRejectedError, SegpipeError, UsageError
from pipeline.cli.run import build_config
from pipeline.configuration.loading import load_config
from pipeline.kubeflow import node
from pipeline.kubeflow.parameters import RUN_ID, defaults
from pipeline.running import run
from pipeline.running.notifications import Notifier, NotifySettings

_REASON = "mean_iou is 0.300, 0.100 below its minimum of 0.400"


def _send(say, markers="", **settings):
    notifier = Notifier(
        "street-scenes", "run-1", say, NotifySettings(**settings), {"report": "/results/report.html"}, markers
    )
    notifier.send("not_blessed", _REASON, {"mean_iou": 0.3, "class_iou/road": None, "class_iou/sky": float("nan")})


@pytest.fixture
def receiver(monkeypatch):
    with receiving() as running:
        monkeypatch.setenv("SEGPIPE_WEBHOOK_URL", running.address)
        yield running


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


def test_the_body_has_fields_and_a_text(receiver):
    warnings = []

    _send(warnings.append)

    (body,) = receiver.bodies
    assert warnings == []
    assert body == {
        "event": "not_blessed",
        "pipeline": "street-scenes",
        "run_id": "run-1",
        "reason": _REASON,
        "scores": {"mean_iou": 0.3},
        "links": {"report": "/results/report.html"},
        "text": f"street-scenes, run run-1: the model was not blessed\n{_REASON}\nreport: /results/report.html",
    }


def test_a_long_reason_is_cut(receiver):
    Notifier("street-scenes", "run-1", pytest.fail).send("failed", "x" * 5000)

    assert receiver.bodies[0]["reason"] == "x" * 2000 + " ..."
    assert len(receiver.bodies[0]["text"]) < 2100


@pytest.mark.parametrize("settings", [{"events": ["failed"]}, {"webhook_url_env": "OTHER_WEBHOOK_URL"}])
def test_an_event_that_is_not_wanted_or_has_no_address_is_not_sent(receiver, settings):
    _send(pytest.fail, **settings)

    assert receiver.seen == 0


def test_a_temporary_failure_of_the_receiver_is_retried(receiver, no_pauses):
    receiver.answers = [500, 503, 204]

    _send(pytest.fail)

    assert len(receiver.bodies) == 1


@pytest.mark.parametrize(
    ("answer", "asked"), [(500, 5), (404, 1), (302, 1)], ids=["server error", "not found", "redirect"]
)
def test_a_receiver_that_refuses_is_a_warning_without_the_address(receiver, no_pauses, caplog, answer, asked):
    receiver.answers = [answer]
    caplog.set_level(logging.INFO)
    warnings = []

    _send(warnings.append)

    (warning,) = warnings
    assert warning.startswith("warning: SEGPIPE_WEBHOOK_URL: the event not_blessed was not sent: 127.0.0.1 answered")
    assert f"answered {answer}, expected 200 to 299" in warning
    assert receiver.seen == asked
    assert "secret-token" not in warning + caplog.text


def test_a_receiver_that_hangs_is_given_up(receiver):
    receiver.hangs = True
    warnings = []

    _send(warnings.append, timeout=0.5)

    (warning,) = warnings
    assert "127.0.0.1: ReadTimeoutError; check the address" in warning
    assert "secret-token" not in warning


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:1/secret-token", "127.0.0.1: NewConnectionError"),
        ("hooks.example.com/secret-token", "the address is not valid"),
        ("http://[secret-token", "the address is not valid"),
        ("http://host:secret-token/", "host: LocationParseError"),
    ],
    ids=["no server", "no scheme", "broken host", "broken port"],
)
def test_a_wrong_address_is_a_warning(monkeypatch, no_pauses, caplog, address, message):
    monkeypatch.setenv("SEGPIPE_WEBHOOK_URL", address)
    caplog.set_level(logging.INFO)
    warnings = []

    _send(warnings.append)

    assert message in warnings[0]
    assert "secret-token" not in warnings[0] + caplog.text


def test_a_marker_prevents_a_second_notification(receiver, no_pauses, tmp_path):
    marker = tmp_path / "runs" / "r" / "notified-not_blessed"
    markers = str(tmp_path / "runs" / "r" / "notified-")
    receiver.answers = [404, 200]

    _send(lambda warning: None, markers)
    assert not marker.exists()
    for _ in range(2):
        _send(pytest.fail, markers)

    assert receiver.seen == 2


def test_a_marker_that_cannot_be_written_is_a_warning(receiver, tmp_path):
    (tmp_path / "file").write_text("")
    warnings = []

    _send(warnings.append, str(tmp_path / "file" / "notified-"))

    assert str(tmp_path / "file" / "notified-not_blessed") in warnings[0]


@pytest.mark.parametrize(
    ("error", "event", "reason"),
    [
        (DataRejectedError("7 bad pairs"), "data_rejected", "7 bad pairs"),
        (UsageError("no such split"), "failed", "no such split"),
        (MemoryError(), "failed", "MemoryError"),
    ],
    ids=["rejected", "usage", "other"],
)
def test_the_failure_of_a_local_run_is_sent(receiver, street_scenes, tmp_path, monkeypatch, error, event, reason):
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


def test_the_interruption_of_a_run_is_not_sent(receiver, street_scenes, tmp_path, monkeypatch):
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


def test_the_failure_of_a_kubeflow_task_is_sent_once_despite_retries(receiver, street_scenes, tmp_path, monkeypatch):
    def fail(*_):
        raise DataRejectedError("7 bad pairs")

    monkeypatch.setattr(node, "_launch", fail)

    assert [_task(tmp_path, street_scenes, **{RUN_ID: "r"}) for _ in range(2)] == [4, 4]

    (body,) = receiver.bodies
    assert (body["event"], body["run_id"], body["reason"]) == ("data_rejected", "r", "7 bad pairs")
    assert body["links"] == {"log": f"{tmp_path}/work/runs/r/Trainer.log"}


def test_the_failure_of_a_kubeflow_task_with_wrong_settings_is_sent(receiver, street_scenes, tmp_path):
    assert _task(tmp_path, street_scenes, **{RUN_ID: "r", "push_destination": "served"}) == 2

    (body,) = receiver.bodies
    assert body["event"] == "failed"
    assert body["reason"].startswith("serving_dir: found 'served'")


def test_unknown_events_are_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="notify.events.*'drift'.*not_blessed.*drifted"):
        load_config([("test", {"notify": {"events": ["drift"]}})])
