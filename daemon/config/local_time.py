"""Time zones and holidays as configuration names them: zones by name, holidays by country or by a calendar file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Final

from daemon.config.holiday_file import read_holidays
from features.local_time import FIRST_YEAR, LAST_YEAR
from model.spec.local_time import LocalTimeSpec

CALENDAR_SUFFIX: Final = ".ics"


def local_time_spec(zone: str, zones: Mapping[str, str], holidays: str, region_holidays: Mapping[str, str]) -> LocalTimeSpec:
    """Return the time zones and holidays of regions with their days, so that later changes of a file change nothing.

    Args:
        zone: Name of the time zone of regions that zones does not name.
        zones: Name of the time zone by region.
        holidays: Country, part of a country or calendar file, see `holidays_of`.
        region_holidays: The same by region.

    Raises:
        ValueError: a zone or country does not exist.
        HolidayFileError: a file cannot be used.
    """
    names = {name for name in (holidays, *region_holidays.values()) if name}
    return LocalTimeSpec(
        zone=zone,
        zones=dict(zones),
        holidays=holidays,
        region_holidays=dict(region_holidays),
        calendars={name: holidays_of(name) for name in sorted(names)},
    )


def holidays_of(name: str) -> tuple[date, ...]:
    """Return the days of a calendar, ascending.

    Args:
        name: A country ("DE"), a part of one ("DE-BY"), or the path of a calendar file (its name ends in .ics).

    Raises:
        ValueError: there is no such country or part.
        HolidayFileError: the file cannot be used.
    """
    return read_holidays(Path(name)) if is_file(name) else _public_holidays(name)


def is_file(name: str) -> bool:
    """Return whether the name of a calendar is the path of a file."""
    return name.lower().endswith(CALENDAR_SUFFIX)


def require_country(name: str) -> str:
    """Return the name of a calendar. Raise ValueError if it is neither empty nor a file nor a country that has holidays."""
    if name and not is_file(name):
        _public_holidays(name)
    return name


@lru_cache(maxsize=64)
def _public_holidays(name: str) -> tuple[date, ...]:
    """Return the public holidays of a country or its part. The library is imported here: most configurations have no holidays."""
    import holidays

    country, _, part = name.partition("-")
    countries = holidays.list_supported_countries(include_aliases=False)
    if country not in countries:
        close = [country.upper()] if country.upper() in countries else get_close_matches(country.upper(), countries, 3)
        remedy = f"did you mean {' or '.join(close)}?" if close else "use the code of a country (DE), of its part (DE-BY) or an .ics file"
        raise ValueError(f"{name!r} is not a country with known holidays; {remedy}")
    if part and part not in countries[country]:
        parts = ", ".join(f"{country}-{known}" for known in countries[country])
        raise ValueError(f"{name!r} is not a part of a country with known holidays; use {f'one of {parts}' if parts else country}")
    return tuple(sorted(holidays.country_holidays(country, subdiv=part or None, years=range(FIRST_YEAR, LAST_YEAR + 1))))
