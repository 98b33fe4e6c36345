"""Cron expressions are read as Kubeflow's scheduler reads them."""

from datetime import datetime, timezone

import pytest

from components.errors import UsageError
from pipeline.kubeflow import cron


def _at(text):
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)


# The expected times are those of github.com/robfig/cron 1.2. Most cases are from its tests.
@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("0 0/15 * * * *", "2012-07-09 14:45:00", "2012-07-09 15:00:00"),
        ("0 0/15 * * * *", "2012-07-09 14:59:59", "2012-07-09 15:00:00"),
        ("0 20-35/15 * * * *", "2012-07-09 15:45:00", "2012-07-09 16:20:00"),
        ("0 */15 * * * *", "2012-07-09 23:46:00", "2012-07-10 00:00:00"),
        ("15/35 20-35/15 * * * *", "2012-07-09 23:35:51", "2012-07-10 00:20:15"),
        ("0 0 0 9 Apr-Oct ?", "2012-07-09 23:35:00", "2012-08-09 00:00:00"),
        ("0 0 0 */5 Apr,Aug,Oct Mon", "2012-07-09 23:35:00", "2012-08-06 00:00:00"),
        ("0 0 0 29 Feb ?", "2012-07-09 23:35:00", "2016-02-29 00:00:00"),
        ("* * * * * *", "2012-07-09 14:45:00", "2012-07-09 14:45:01"),
        ("0 0 3 1 * mon", "2024-05-02 00:00:00", "2024-05-06 03:00:00"),
        ("0 3 * * *", "2024-05-02 03:00:00", "2024-05-03 03:00:00"),
        ("30 2 * * sun", "2024-05-02 03:00:00", "2024-05-05 02:30:00"),
        ("@monthly", "2024-12-31 23:59:59", "2025-01-01 00:00:00"),
    ],
)
def test_the_next_time_equals_the_scheduler_s(text, now, expected):
    assert cron.parse(text).next_after(_at(now)) == _at(expected)


def test_five_fields_get_a_field_of_seconds():
    assert cron.parse("0 3 * * *").text == "0 0 3 * * *"


def test_a_day_that_never_comes_has_no_next_time():
    assert cron.parse("0 0 0 30 Feb ?").next_after(_at("2012-07-09 23:35:00")) is None


@pytest.mark.parametrize(
    "text", ["", "* * *", "60 * * * *", "0 24 * * *", "0 3 * * 7", "0 3 5-2 * *", "0 */0 * * *", "x"]
)
def test_a_wrong_expression_is_refused_before_it_is_sent(text):
    with pytest.raises(UsageError, match="--cron"):
        cron.parse(text)
