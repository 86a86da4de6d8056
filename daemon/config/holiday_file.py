"""Holidays from a calendar file (iCalendar, RFC 5545): its all-day events. Other events are refused, with their line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Final

from features.local_time import FIRST_YEAR, LAST_YEAR

MOST_BYTES: Final = 1 << 20
"""Largest file that is read as a calendar: a hundred times a country's public holidays of a century."""
MOST_DAYS: Final = 20_000
"""Most days of one calendar, half of all days of the years that are known: more would be no holidays any more."""
_MOST_SPAN: Final = timedelta(days=366)
_DATE: Final = re.compile(r"\d{8}", re.ASCII)
_DURATION: Final = re.compile(r"P(\d{1,3})([DW])", re.ASCII)


class HolidayFileError(Exception):
    """The file is not a calendar of holidays. The message names the file, the line and what to do."""


@dataclass
class _Event:
    line: int
    begin: date | None = None
    end: date | None = None
    span: timedelta | None = None
    rule: str | None = None
    more: list[date] = field(default_factory=list)
    without: set[date] = field(default_factory=set)
    cancelled: bool = False

    def days(self) -> Iterator[date]:
        """Yield the days of the event and of its recurrences, in the years that are known."""
        if self.begin is None:
            raise ValueError("the event has no DTSTART")
        span = self.end - self.begin if self.end is not None else self.span or timedelta(days=1)
        if not timedelta() <= span <= _MOST_SPAN:
            raise ValueError("the event ends before it begins, or lasts for more than a year")
        for first in sorted({self.begin, *self.more, *self._recurrences()} - self.without):
            for day in range(max(1, span.days)):
                if FIRST_YEAR <= (found := first + timedelta(days=day)).year <= LAST_YEAR:
                    yield found

    def _recurrences(self) -> Iterator[date]:
        if self.rule is None or self.begin is None:
            return
        from dateutil.rrule import rrulestr  # only for a file that has a rule

        parts = [part.partition("=") for part in self.rule.upper().split(";")]
        if ("FREQ", "=", "YEARLY") not in parts or any(name.startswith(("BYHOUR", "BYMINUTE", "BYSECOND")) for name, _, _ in parts):
            raise ValueError(f"the rule {self.rule!r} is not of whole days once a year (FREQ=YEARLY)")
        try:
            rule = rrulestr(self.rule.upper(), dtstart=datetime.combine(self.begin, time()), ignoretz=True)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:  # the last ones for parts without a value
            raise ValueError(f"the rule {self.rule!r} cannot be read ({error})") from None
        for found in rule:
            if found.year > LAST_YEAR:
                return
            yield found.date()


def read_holidays(path: Path) -> tuple[date, ...]:
    """Return the days of all events of a calendar file, ascending.

    Raises:
        HolidayFileError: it cannot be read, or is not a calendar of holidays.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise HolidayFileError(f"{path}: has more than {MOST_BYTES:,} bytes; name a calendar that has public holidays alone")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise HolidayFileError(f"{path}: cannot be read ({error.strerror}); mend its name or its permissions") from error
    except ValueError as error:
        raise HolidayFileError(f"{path}: is not a calendar file ({error}); export it as iCalendar (.ics), in UTF-8") from error
    days: set[date] = set()
    for event in _events(path, text):
        try:
            for day in event.days():
                days.add(day)
                if len(days) > MOST_DAYS:
                    raise HolidayFileError(f"{path}: has more than {MOST_DAYS:,} days; name a calendar that has public holidays alone")
        except (ValueError, OverflowError) as error:
            raise HolidayFileError(f"{path}, line {event.line}: {error}; correct the event, or remove it") from error
    if not days:
        raise HolidayFileError(f"{path}: has no events from {FIRST_YEAR} to {LAST_YEAR}; name a calendar of public holidays")
    return tuple(sorted(days))


def _events(path: Path, text: str) -> Iterator[_Event]:
    """Yield the events that were not cancelled. Raise HolidayFileError for another kind of file, or an event that is not of whole days."""
    lines = _unfolded(text)
    if not lines or lines[0][1].strip().upper() != "BEGIN:VCALENDAR":
        raise HolidayFileError(f"{path}: is not a calendar file (it does not begin with BEGIN:VCALENDAR); export it as iCalendar (.ics)")
    within: list[str] = []
    event: _Event | None = None
    for number, line in lines:
        name, _, value = line.partition(":")
        name, value = name.upper(), value.strip()
        if name == "BEGIN":
            within.append(value.upper())
            if value.upper() == "VEVENT":
                event = _Event(number)
        elif name == "END":
            if not within or within.pop() != value.upper():
                raise HolidayFileError(f"{path}, line {number}: END:{value[:40]} ends nothing that has begun; export the calendar again")
            if event is not None and value.upper() == "VEVENT":
                if not event.cancelled:
                    yield event
                event = None
        elif event is not None and within[-1] == "VEVENT":
            try:
                _read(event, name.partition(";")[0], name, value)
            except ValueError as error:
                raise HolidayFileError(f"{path}, line {number}: {error}; correct the event, or remove it") from error
    if within:
        raise HolidayFileError(f"{path}: ends within {within[-1][:40]}; copy the file again, as a whole")


def _read(event: _Event, name: str, parameters: str, value: str) -> None:
    """Read one property of an event. Raise ValueError if it has no meaning for a calendar of whole days."""
    if name == "DTSTART":
        event.begin = _date(parameters, value)
    elif name == "DTEND":
        event.end = _date(parameters, value)
    elif name == "DURATION":
        if not (found := _DURATION.fullmatch(value)):
            raise ValueError(f"DURATION {value[:40]!r} is not a number of days or weeks, as P1D")
        event.span = timedelta(days=int(found[1]) * (7 if found[2] == "W" else 1))
    elif name == "RRULE":
        event.rule = value
    elif name == "RDATE":
        event.more += [_date(parameters, one) for one in value.split(",")]
    elif name == "EXDATE":
        event.without |= {_date(parameters, one) for one in value.split(",")}
    elif name == "STATUS":
        event.cancelled = value.upper() == "CANCELLED"


def _date(parameters: str, value: str) -> date:
    if not _DATE.fullmatch(value):
        raise ValueError(f"{parameters[:40]}:{value[:40]} is not a day, as DTSTART;VALUE=DATE:20260501: only all-day events are holidays")
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        raise ValueError(f"{value} is not a day of the calendar") from None


def _unfolded(text: str) -> list[tuple[int, str]]:
    """Return the lines with their numbers. A line that begins with a blank goes on with the one before."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line[:1] in (" ", "\t") and lines:
            lines[-1] = (lines[-1][0], lines[-1][1] + line[1:])
        elif line.strip():
            lines.append((number, line))
    return lines
