"""Settings of the webhook that events are posted to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings import Settings

Event = Literal["not_blessed", "data_rejected", "failed", "drifted"]


class NotifySettings(Settings):
    """Which events are posted to a webhook."""

    webhook_url_env: str = Field(
        "SEGPIPE_WEBHOOK_URL",
        description="environment variable that holds the webhook's address, a secret; nothing is sent if it is not set",
    )
    events: tuple[Event, ...] = Field(
        ("not_blessed", "data_rejected", "failed", "drifted"), description="events that are sent"
    )
    timeout: float = Field(30, gt=0, le=600, description="seconds that sending may take, with all retries")
