"""Checks cron expressions as Kubeflow's scheduler reads them, and finds their next time.

Kubeflow reads six fields, seconds first (github.com/robfig/cron, version 1). It reads the usual five fields as six
without the last one, so `0 3 * * *` would run at three minutes past every hour. Here, five fields get a 0 for seconds.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

from components.errors import UsageError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Name, lowest value, highest value, names of values.
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_SHORTHAND = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
# The scheduler gives up after five years too.
_HORIZON = timedelta(days=5 * 366)


@dataclasses.dataclass(frozen=True)
class Cron:
    """A cron expression: the values that each of its six fields allows."""

    text: str
    allowed: tuple[frozenset[int], ...]
    any_day: bool

    def next_after(self, time: datetime) -> datetime | None:
        """Returns the first time after another, both in the scheduler's time zone; None if it is too far away."""
        second, minute, hour, _, month, _ = self.allowed
        start = time.replace(microsecond=0) + timedelta(seconds=1)
        day = start
        while day - start < _HORIZON:
            if day.month in month and self._is_day(day):
                clock = (day.hour, day.minute, day.second) if day == start else (0, 0, 0)
                times = ((h, m, s) for h in sorted(hour) for m in sorted(minute) for s in sorted(second))
                found = next((at for at in times if at >= clock), None)
                if found:
                    return day.replace(hour=found[0], minute=found[1], second=found[2])
            day = day.replace(hour=0, minute=0, second=0) + timedelta(days=1)
        return None

    def _is_day(self, day: datetime) -> bool:
        in_month = day.day in self.allowed[3]
        in_week = day.isoweekday() % 7 in self.allowed[5]
        # As in cron: if both days are restricted, either one is enough.
        return in_month and in_week if self.any_day else in_month or in_week


def parse(text: str) -> Cron:
    """Reads five fields, six fields or a shorthand such as @daily. Raises UsageError for anything else."""
    fields = _SHORTHAND.get(text.strip().lower(), text).split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise UsageError(
            f"--cron {text!r}: found {len(fields)} fields, expected minute, hour, day of the month, month and "
            "day of the week, such as '0 3 * * *' for 03:00 every night, with or without seconds before them"
        )
    allowed = tuple(_read(field, *limits, text) for field, limits in zip(fields, _FIELDS, strict=True))
    any_day = any(part[0] in "*?" for index in (3, 5) for part in fields[index].split(","))
    return Cron(" ".join(fields), allowed, any_day)


def _read(field: str, name: str, low: int, high: int, names: tuple[str, ...], text: str) -> frozenset[int]:
    values: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if first in ("*", "?"):
                start, end = low, high
            else:
                start = _number(first, low, names)
                end = _number(last, low, names) if dash else high if step else start
            width = int(step) if step else 1
        except ValueError:
            start, end, width = 0, -1, 0
        if not low <= start <= end <= high or width < 1:
            raise UsageError(f"--cron {text!r}: found {part!r} as {name}, expected {low} to {high}, *, a-b or */n")
        values.update(range(start, end + 1, width))
    return frozenset(values)


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    return names.index(text.lower()) + low if text.lower() in names else int(text)
