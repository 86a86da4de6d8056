"""Time zones and holidays as a job or run file holds them, so that a training computes what the daemon computes."""

from __future__ import annotations

from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from features.local_time import LocalTime, Place, Zone

_FIRST_DAY: Final = date(1970, 1, 1)


class LocalTimeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time zones and holidays of regions.

    Args:
        zone: Name of the time zone of rows without a region, and of regions that `zones` does not name.
        zones: Name of the time zone by region.
        holidays: Calendar of the regions that `region_holidays` does not name; empty: no holidays.
        region_holidays: Calendar by region.
        calendars: Days of each calendar, which count as weekend.
    """

    zone: str = "UTC"
    zones: dict[str, str] = {}
    holidays: str = ""
    region_holidays: dict[str, str] = {}
    calendars: dict[str, tuple[date, ...]] = {}

    def __post_init__(self) -> None:
        for name in (self.zone, *self.zones.values()):
            require_zone(name)
        if missing := sorted({self.holidays, *self.region_holidays.values()} - {"", *self.calendars}):
            raise ValueError(f"calendars has no days of {', '.join(missing)}")

    def local_time(self) -> LocalTime:
        """Return the places of all regions, for a FeatureStore or `features.offline.compute`."""
        days = {"": (), **{name: _days(calendar) for name, calendar in self.calendars.items()}}

        def place(region: str) -> Place:
            return Place(_zone(self.zones.get(region, self.zone)), days[self.region_holidays.get(region, self.holidays)])

        default = Place(_zone(self.zone), days[self.holidays])
        return LocalTime(default, {region: place(region) for region in (*self.zones, *self.region_holidays)})


def require_zone(name: str) -> str:
    """Return the name of a time zone. Raise ValueError, with names that are close, if there is none of this name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: the name of a folder, such as "Europe", or one that is too long
        raise ValueError(f"{name!r} is not a time zone; {_close_to(name)}") from None
    return name


def _close_to(name: str) -> str:
    by_lower = {known.lower(): known for known in sorted(available_timezones())}
    wanted = name.strip().lower().replace(" ", "_")
    cities = [known for lower, known in by_lower.items() if lower.rpartition("/")[2] == wanted]
    close = cities[:3] or [by_lower[lower] for lower in get_close_matches(wanted, by_lower, 3)]
    return f"did you mean {' or '.join(close)}?" if close else "use a name of the IANA database, such as Europe/Berlin"


@lru_cache(maxsize=64)
def _zone(name: str) -> Zone:
    """Return the offsets of a time zone: 50 ms of work, the same for every region of the zone."""
    return Zone.of(ZoneInfo(name))


def _days(days: tuple[date, ...]) -> tuple[int, ...]:
    return tuple((day - _FIRST_DAY).days for day in days)
