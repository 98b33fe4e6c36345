"""Posts what needs a person's attention to a webhook: a model not blessed, data rejected, a run failed, drift.

The body is JSON for programs; its field `text` is what Slack, Mattermost and other receivers of incoming webhooks show.
Sending never fails a run. The address is a secret, so no message and no log contains more of it than the host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from components import files
from components.errors import DataRejectedError
from pipeline.configuration.notifications import Event, NotifySettings

Say = Callable[[str], None]

_HEADLINES: dict[Event, str] = {
    "not_blessed": "the model was not blessed",
    "data_rejected": "the data was rejected",
    "failed": "the run failed",
    "drifted": "the data drifted",
}
_ATTEMPTS = 5
_LONGEST_ATTEMPT = 10  # seconds
_LONGEST_REASON = 2000  # characters
# Answers that another attempt may change.
_PASSING = {408, 429, 500, 502, 503, 504}


@dataclasses.dataclass(frozen=True)
class Notification:
    """One event.

    Attributes:
        event: what happened.
        pipeline: the pipeline's name.
        run_id: the run that it happened to, or that the drift was measured against.
        reason: why, for a person.
        scores: scores by metric name; those that are undefined are left out.
        links: paths or addresses by what they lead to: `report`, `log`.
    """

    event: Event
    pipeline: str
    run_id: str
    reason: str
    scores: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Returns what is posted; docs/reference.md describes every field."""
        reason = self.reason if len(self.reason) <= _LONGEST_REASON else self.reason[:_LONGEST_REASON] + " ..."
        lines = [f"{self.pipeline}, run {self.run_id}: {_HEADLINES[self.event]}", reason]
        return {
            "event": self.event,
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "reason": reason,
            "scores": {
                name: value for name, value in self.scores.items() if value is not None and math.isfinite(value)
            },
            "links": dict(self.links),
            "text": "\n".join([*lines, *(f"{name}: {link}" for name, link in self.links.items())]),
        }


def send(settings: NotifySettings, notification: Notification, say: Say, marker: str = "") -> None:
    """Posts an event if its kind is wanted and the environment has an address. Never raises.

    Args:
        settings: which events are sent, and where the address is found.
        notification: the event.
        say: gets a warning if it could not be sent.
        marker: a file, written once the event was sent, so that a task that is retried does not send it again; empty
            to send it each time.
    """
    url = os.environ.get(settings.webhook_url_env, "").strip()
    if not url or notification.event not in settings.events:
        return
    try:
        if marker and files.exists(marker):
            return
        failure = _failure(url, notification.body(), settings.timeout)
        if marker and not failure:
            files.write_bytes(marker, notification.event.encode())
    # The store of the markers may be what failed.
    except Exception as error:
        failure = f"{marker}: {type(error).__name__}: {error}"
    if failure:
        say(f"warning: {settings.webhook_url_env}: the event {notification.event} was not sent: {failure}")


def _failure(url: str, body: Mapping[str, Any], timeout: float) -> str:
    """Posts JSON, with retries, and returns what went wrong; empty if nothing did."""
    host = _host(url)
    if not host:
        return "found no address of a webhook, expected one such as https://hooks.example.com/services/TOKEN"
    # urllib3 and tenacity are needed here alone, and the command line imports this module for its settings.
    import tenacity
    import urllib3

    end = time.monotonic() + timeout

    def post() -> int:
        left = max(min(end - time.monotonic(), _LONGEST_ATTEMPT), 0.1)
        # A redirected POST would become a GET. The body of the answer does not matter, so it is not waited for.
        with (
            urllib3.PoolManager() as pool,
            contextlib.closing(
                pool.request("POST", url, json=body, timeout=left, retries=False, redirect=False, preload_content=False)
            ) as answer,
        ):
            return answer.status

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(urllib3.exceptions.HTTPError)
        | tenacity.retry_if_result(lambda status: status in _PASSING),
        wait=tenacity.wait_exponential(max=8),
        stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_before_delay(timeout),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else 0,
    )
    try:
        status = retrying(post)
    # A notification must never fail a run. Messages of urllib3 may hold the address, so only the kind is told.
    except Exception as error:
        return f"{host}: {type(error).__name__}; check the address, and that the receiver can be reached from here"
    if 200 <= status < 300:
        return ""
    return f"{host} answered {status}, expected 200 to 299; check the address, and the receiver's log"


def _host(url: str) -> str:
    """Returns the host that an address names; empty if it is not one that can be posted to."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts.hostname or "" if parts.scheme in ("http", "https") else ""


@dataclasses.dataclass
class RunNotices:
    """What the events of a run have in common; filled in as the run goes on.

    Attributes:
        pipeline: the pipeline's name.
        run_id: the run.
        say: gets warnings.
        settings: which events are sent; the defaults until the run's own are known.
        links: see `Notification`.
        markers: start of the paths of markers, see `send`; empty to send each time.
    """

    pipeline: str
    run_id: str
    say: Say
    settings: NotifySettings = dataclasses.field(default_factory=NotifySettings)
    links: dict[str, str] = dataclasses.field(default_factory=dict)
    markers: str = ""

    def send(self, event: Event, reason: str, scores: Mapping[str, float | None] | None = None) -> None:
        """Sends an event of this run."""
        notification = Notification(event, self.pipeline, self.run_id, reason, scores or {}, self.links)
        send(self.settings, notification, self.say, self.markers and f"{self.markers}{event}")

    @contextlib.contextmanager
    def of_failures(self) -> Iterator[None]:
        """Sends `data_rejected` or `failed` for an error that leaves the block, which goes on."""
        try:
            yield
        except Exception as error:
            event: Event = "data_rejected" if isinstance(error, DataRejectedError) else "failed"
            self.send(event, str(error) or type(error).__name__)
            raise
