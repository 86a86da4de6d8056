"""Schedules mean what cron means by them: next fire times, and messages for what is not a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.training.cron import cron_trigger

THURSDAY = datetime(2026, 1, 1, tzinfo=UTC)


def fires(text: str, count: int, begin: datetime = THURSDAY) -> list[datetime]:
    """The next times from `begin` on."""
    trigger, found, before = cron_trigger(text), [], None
    for _ in range(count):
        before = trigger.get_next_fire_time(before, before + timedelta(seconds=1) if before else begin)
        assert before is not None
        found.append(before)
    return found


NEXT = {
    "0 3 * * *": ["Thu 01 03:00", "Fri 02 03:00"],
    "0 3 * * 0": ["Sun 04 03:00", "Sun 11 03:00"],
    "0 3 * * 7": ["Sun 04 03:00", "Sun 11 03:00"],
    "0 3 * * 1": ["Mon 05 03:00", "Mon 12 03:00"],
    "0 3 * * 6": ["Sat 03 03:00", "Sat 10 03:00"],
    "0 3 * * sun": ["Sun 04 03:00", "Sun 11 03:00"],
    "0 3 * * 1-5": ["Thu 01 03:00", "Fri 02 03:00", "Mon 05 03:00"],
    "0 3 * * 5-7": ["Fri 02 03:00", "Sat 03 03:00", "Sun 04 03:00", "Fri 09 03:00"],
    "0 3 * * FRI-SUN": ["Fri 02 03:00", "Sat 03 03:00", "Sun 04 03:00", "Fri 09 03:00"],
    "0 3 * * sun-tue": ["Sun 04 03:00", "Mon 05 03:00", "Tue 06 03:00", "Sun 11 03:00"],
    "0 3 * * 0-6": ["Thu 01 03:00", "Fri 02 03:00"],
    "0 3 * * 0,3": ["Sun 04 03:00", "Wed 07 03:00", "Sun 11 03:00"],
    "0 3 * * */2": ["Thu 01 03:00", "Sat 03 03:00", "Sun 04 03:00", "Tue 06 03:00"],
    "0 3 * * 1-5/2": ["Fri 02 03:00", "Mon 05 03:00", "Wed 07 03:00"],
    "30 4,16 * * 2": ["Tue 06 04:30", "Tue 06 16:30"],
    "0 3 15 * *": ["Thu 15 03:00"],
    "0 3 15 * 1": ["Mon 05 03:00", "Mon 12 03:00", "Thu 15 03:00", "Mon 19 03:00"],
}


@pytest.mark.parametrize("text", NEXT)
def test_next_times(text: str) -> None:
    """Counted from Thursday, 1 January 2026: 0 and 7 are Sunday, ranges and steps count from there, and a day or a weekday is enough."""
    assert [time.strftime("%a %d %H:%M") for time in fires(text, len(NEXT[text]))] == NEXT[text]


@st.composite
def weekday_parts(draw: st.DrawFn) -> tuple[str, set[int]]:
    """A part of the field, and the days that it means, 0 being Sunday."""
    first = draw(st.integers(0, 7))
    last, step = draw(st.integers(first, 7)), draw(st.integers(1, 7))
    kind = draw(st.sampled_from(["day", "range", "stepped", "all"]))
    text = {"day": f"{first}", "range": f"{first}-{last}", "stepped": f"{first}-{last}/{step}", "all": f"*/{step}"}[kind]
    days = {"day": [first], "range": range(first, last + 1), "stepped": range(first, last + 1, step), "all": range(0, 7, step)}[kind]
    return text, {day % 7 for day in days}


@given(st.lists(weekday_parts(), min_size=1, max_size=4))
def test_any_weekdays(parts: list[tuple[str, set[int]]]) -> None:
    """Lists of days, ranges and steps fire on just the days that they name."""
    wanted = set[int]().union(*(days for _, days in parts))
    found = fires("0 0 * * " + ",".join(text for text, _ in parts), 2 * len(wanted))
    assert {time.isoweekday() % 7 for time in found} == wanted
    assert found[-1] - found[0] < timedelta(days=14)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0 3 * *", "has 4 fields, not the five of cron: minute hour day month weekday"),
        ("0 3 * * * *", "has 6 fields"),
        ("@daily", "has 1 fields"),
        ("0 3 * * 8", "weekday '8': days are 0 to 7"),
        ("0 3 * * -1", "days are 0 to 7"),
        ("0 3 * * funday", "weekday 'funday'"),
        ("0 3 * * fri-mon", "ends before it begins"),
        ("0 3 * * 1,", "weekday ''"),
        ("0 3 * * 3/2", "a step is a number from 1, after \\* or a range"),
        ("0 3 * * */0", "a step is a number from 1"),
        ("0 25 * * *", "25"),
        ("*/0 * * * *", "is not a cron schedule"),
        ("0 3 30 2 *", "never comes"),
    ],
)
def test_no_schedule(text: str, problem: str) -> None:
    """The message says which part is wrong."""
    with pytest.raises(ValueError, match=problem):
        cron_trigger(text)
