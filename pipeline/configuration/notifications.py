"""Settings of webhook notifications."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings import Settings

Event = Literal["not_blessed", "data_rejected", "failed", "drifted"]


class NotifySettings(Settings):
    """The webhook, and which events are posted to it."""

    webhook_url_env: str = Field(
        "SEGPIPE_WEBHOOK_URL",
        description="environment variable with the address of the webhook, a secret; if it is not set, nothing is sent",
    )
    events: tuple[Event, ...] = Field(
        ("not_blessed", "data_rejected", "failed", "drifted"), description="events to send"
    )
    timeout: float = Field(30, gt=0, le=600, description="longest time to send an event, with all retries, in seconds")
