"""Schedules in the five fields of cron, with cron's own weekdays: 0 and 7 are Sunday.

APScheduler's `from_crontab` reads the same text and counts weekdays from Monday, so that `0 3 * * 0` would mean Mondays. It also requires
both day and weekday to match, while cron requires one of them. So it gets the weekdays by name, and one trigger for each of the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

FIELDS: Final = ("minute", "hour", "day", "month", "weekday")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SOME_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)


def cron_trigger(text: str) -> BaseTrigger:
    """Return the trigger of a cron schedule in UTC.

    Raises:
        ValueError: the text is not a schedule; the message names the field.
    """
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise ValueError(f'{text!r} has {len(fields)} fields, not the five of cron: {" ".join(FIELDS)}; for example "0 3 * * *"')
    minute, hour, day, month, weekday = fields
    names = _weekdays(weekday)
    chosen = [(day, "*"), ("*", names)] if not day.startswith("*") and not weekday.startswith("*") else [(day, names)]
    try:
        triggers = [
            CronTrigger(minute=minute, hour=hour, day=on_day, month=month, day_of_week=on_weekday, timezone="UTC")
            for on_day, on_weekday in chosen
        ]
        trigger = triggers[0] if len(triggers) == 1 else OrTrigger(triggers)
        never = trigger.get_next_fire_time(None, _SOME_DAY) is None
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a cron schedule: {error}") from error
    if never:
        raise ValueError(f"{text!r} is a day that never comes")
    return trigger


def _weekdays(field: str) -> str:
    """Return the field with each day by its name, as APScheduler reads it; "*" for every day. Raises ValueError."""
    days = sorted({day for part in field.split(",") for day in _days_of(part)})
    return "*" if len(days) == len(_DAYS) else ",".join(_DAYS[day] for day in days)


def _days_of(part: str) -> set[int]:
    """Return the days of one part, 0 (Sunday) to 6: a day, a range, or "*", the last two with or without a step."""
    span, slash, step = part.partition("/")
    first, dash, last = span.partition("-")
    if slash and (not step.isdecimal() or int(step) == 0 or not (dash or span == "*")):
        raise ValueError(f"weekday {part!r}: a step is a number from 1, after * or a range, as in 1-5/2")
    if span == "*":
        return set(range(0, 7, int(step or 1)))
    begin = _day(first, part)
    end = _day(last, part) if dash else begin
    end = 7 if dash and end == 0 and begin > 0 else end  # fri-sun, 5-0
    if end < begin:
        raise ValueError(f"weekday {part!r}: the range ends before it begins; write its days one by one, as in fri,sat,sun,mon")
    return {day % 7 for day in range(begin, end + 1, int(step or 1))}


def _day(text: str, part: str) -> int:
    """Return the number of a day, 0 to 7."""
    if text.lower() in _DAYS:
        return _DAYS.index(text.lower())
    if not text.isdecimal() or not text.isascii() or int(text) > 7:
        raise ValueError(f"weekday {part!r}: days are 0 to 7 (0 and 7 are Sunday) or sun, mon, tue, wed, thu, fri, sat")
    return int(text)
