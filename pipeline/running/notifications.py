"""Posts events that need attention to a webhook: model not blessed, data rejected, run failed, data drifted.

The body is JSON. Slack, Mattermost and others show its field `text`. Sending never fails a run. The address is a
secret, so messages and logs contain only its host.
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
from pipeline.configuration.config import Event, NotifySettings

_HEADLINES: dict[Event, str] = {
    "not_blessed": "the model was not blessed",
    "data_rejected": "the data was rejected",
    "failed": "the run failed",
    "drifted": "the data drifted",
}
_ATTEMPTS = 5
_LONGEST_ATTEMPT = 10  # seconds
_LONGEST_REASON = 2000  # characters
# HTTP statuses to retry.
_TEMPORARY = {408, 429, 500, 502, 503, 504}


@dataclasses.dataclass
class Notifier:
    """Posts the events of one run. The fields may be completed while the run learns its configuration.

    Attributes:
        pipeline: the pipeline's name.
        run_id: the run, or the run that drift is measured against.
        say: prints a warning.
        settings: which events to send, and the variable with the webhook's address.
        links: paths or addresses by name: `report`, `log`.
        markers: path prefix of marker files. A marker is written after an event was sent, so that a retried task does
            not send it again. Empty to send it each time.
    """

    pipeline: str
    run_id: str
    say: Callable[[str], None]
    settings: NotifySettings = dataclasses.field(default_factory=NotifySettings)
    links: dict[str, str] = dataclasses.field(default_factory=dict)
    markers: str = ""

    def send(self, event: Event, reason: str, scores: Mapping[str, float | None] | None = None) -> None:
        """Posts an event, if the settings select it and the address is set. Never raises.

        Args:
            event: what happened.
            reason: why, for a person.
            scores: scores by metric name; undefined ones are left out.
        """
        url = os.environ.get(self.settings.webhook_url_env, "").strip()
        if not url or event not in self.settings.events:
            return
        marker = f"{self.markers}{event}" if self.markers else ""
        try:
            if marker and files.exists(marker):
                return
            failure = _post(url, self._body(event, reason, scores or {}), self.settings.timeout)
            if marker and not failure:
                files.write_bytes(marker, event.encode())
        # The store of the markers may be what failed.
        except Exception as error:
            failure = f"{marker}: {type(error).__name__}: {error}"
        if failure:
            self.say(f"warning: {self.settings.webhook_url_env}: the event {event} was not sent: {failure}")

    def _body(self, event: Event, reason: str, scores: Mapping[str, float | None]) -> dict[str, Any]:
        """Returns the JSON to post; docs/reference.md describes every field."""
        if len(reason) > _LONGEST_REASON:
            reason = reason[:_LONGEST_REASON] + " ..."
        lines = [f"{self.pipeline}, run {self.run_id}: {_HEADLINES[event]}", reason]
        return {
            "event": event,
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "reason": reason,
            "scores": {name: value for name, value in scores.items() if value is not None and math.isfinite(value)},
            "links": dict(self.links),
            "text": "\n".join([*lines, *(f"{name}: {link}" for name, link in self.links.items())]),
        }

    @contextlib.contextmanager
    def of_failures(self) -> Iterator[None]:
        """Sends `data_rejected` or `failed` if an exception leaves the block, and raises it again."""
        try:
            yield
        except Exception as error:
            event: Event = "data_rejected" if isinstance(error, DataRejectedError) else "failed"
            self.send(event, str(error) or type(error).__name__)
            raise


def _post(url: str, body: Mapping[str, Any], timeout: float) -> str:
    """Posts JSON, with retries. Returns the error; empty on success."""
    host = _host(url)
    if not host:
        return "the address is not valid, expected one such as https://hooks.example.com/services/TOKEN"
    # Imported here, because most runs send nothing.
    import tenacity
    import urllib3

    end = time.monotonic() + timeout

    def post() -> int:
        left = max(min(end - time.monotonic(), _LONGEST_ATTEMPT), 0.1)
        # A redirect would turn the POST into a GET. The body of the response is not read.
        with (
            urllib3.PoolManager() as pool,
            contextlib.closing(
                pool.request("POST", url, json=body, timeout=left, retries=False, redirect=False, preload_content=False)
            ) as response,
        ):
            return response.status

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(urllib3.exceptions.HTTPError)
        | tenacity.retry_if_result(lambda status: status in _TEMPORARY),
        wait=tenacity.wait_exponential(max=8),
        stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_before_delay(timeout),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else 0,
    )
    try:
        status = retrying(post)
    # A notification must never fail a run. Messages of urllib3 may contain the address, so only the type is shown.
    except Exception as error:
        return f"{host}: {type(error).__name__}; check the address, and that this machine can reach the receiver"
    if 200 <= status < 300:
        return ""
    return f"{host} answered {status}, expected 200 to 299; check the address, and the receiver's log"


def _host(url: str) -> str:
    """Returns the host of an address; empty if the address is not HTTP or HTTPS."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts.hostname or "" if parts.scheme in ("http", "https") else ""
