"""The machine-readable format of times: ISO 8601 in UTC, in whole seconds, such as 2026-01-31T12:00:00Z."""

from __future__ import annotations

import datetime


def now() -> datetime.datetime:
    """Returns the current time in UTC, in whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def utc_text(time: datetime.datetime | float) -> str:
    """Returns a time, with a time zone or in seconds since 1970, as ISO 8601 in UTC."""
    if not isinstance(time, datetime.datetime):
        time = datetime.datetime.fromtimestamp(time, datetime.timezone.utc)
    return time.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
