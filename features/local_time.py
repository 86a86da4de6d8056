"""The local time of regions: time zones and holidays as plain arrays, which the kernels of the memory read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC as UTC_ZONE
from datetime import datetime, timedelta, tzinfo
from typing import Final, NamedTuple

import numpy as np

from features.telemetry import Doubles, Ints, Longs

FIRST_YEAR: Final = 1990
LAST_YEAR: Final = 2100
"""Years whose changes of UTC offset are known. Before and after them, the offset of the first and the last instant holds."""
_STEP_S: Final = 86_400
"""Distance of the instants that are compared, seconds: no zone has changed its offset there and back within a day."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC_ZONE)


@dataclass(frozen=True, slots=True)
class Zone:
    """The UTC offsets of one time zone.

    Args:
        since_s: UTC seconds from which each offset holds, ascending. The first is -inf.
        offset_s: The offsets, seconds to add to UTC.

    Raises:
        ValueError: The two do not fit together.

    >>> Zone.of(UTC_ZONE)
    Zone(since_s=(-inf,), offset_s=(0.0,))
    """

    since_s: tuple[float, ...] = (-math.inf,)
    offset_s: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if len(self.since_s) != len(self.offset_s) or self.since_s[:1] != (-math.inf,) or list(self.since_s) != sorted(set(self.since_s)):
            raise ValueError("a zone needs an offset for each of its times, which ascend from -inf")

    @classmethod
    def of(cls, zone: tzinfo) -> Zone:
        """Return the offsets of a time zone from FIRST_YEAR to LAST_YEAR, exact to the second.

        Args:
            zone: For example a zoneinfo.ZoneInfo.
        """
        begin, end = (int((datetime(year, 1, 1, tzinfo=UTC_ZONE) - _EPOCH).total_seconds()) for year in (FIRST_YEAR, LAST_YEAR + 1))

        def offset(at_s: int) -> float:
            return ((_EPOCH + timedelta(seconds=at_s)).astimezone(zone).utcoffset() or timedelta()).total_seconds()

        since, offsets = [-math.inf], [offset(begin)]
        for later in range(begin + _STEP_S, end + 1, _STEP_S):
            now = later - _STEP_S
            while (last := offset(later)) != offsets[-1]:  # more than once if there are two changes in one day
                before, after = now, later
                while after - before > 1:
                    middle = (before + after) // 2
                    before, after = (middle, after) if offset(middle) == offsets[-1] else (before, middle)
                since.append(float(after))
                offsets.append(offset(after))
                now = after
                if offsets[-1] == last:
                    break
        return cls(tuple(since), tuple(offsets))


@dataclass(frozen=True, slots=True)
class Place:
    """Zone and holidays of a region.

    Args:
        zone: Its time zone.
        holidays: Days since 1970-01-01 of the local calendar that count as weekend.

    >>> Place().holidays
    ()
    """

    zone: Zone = Zone()
    holidays: tuple[int, ...] = ()


class Places(NamedTuple):
    """All places as arrays, for kernels: P places of Z zones and C calendars.

    Args:
        zone: int64 (P,), index of each place's zone.
        calendar: int64 (P,), index of each place's calendar of holidays.
        zone_first: int64 (Z + 1,), index of each zone's first offset.
        since_s: float64 (M,), UTC seconds from which each offset holds.
        offset_s: float64 (M,), seconds to add to UTC.
        calendar_first: int64 (C + 1,), index of each calendar's first holiday.
        holiday: int64 (D,), days since 1970-01-01, ascending within a calendar.

    >>> UTC.places.zone_first.tolist(), UTC.places.offset_s.tolist(), UTC.places.holiday.tolist()
    ([0, 1], [0.0], [])
    """

    zone: Longs
    calendar: Longs
    zone_first: Longs
    since_s: Doubles
    offset_s: Doubles
    calendar_first: Longs
    holiday: Longs


@dataclass(frozen=True)
class LocalTime:
    """The places of all regions. Immutable.

    Args:
        default: Place of rows without a region, and of regions that have none of their own.
        regions: Place by the name of the region.

    >>> berlin = Place(Zone((-math.inf,), (3600.0,)))
    >>> LocalTime(Place(), {"eu-central": berlin}).place_of(["us-east", "eu-central"]).tolist()
    [0, 1, 0]
    """

    default: Place = Place()
    regions: Mapping[str, Place] = field(default_factory=dict)
    places: Places = field(init=False, repr=False, compare=False)
    """The places as arrays. Place 0 is the default."""
    _index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = list(dict.fromkeys((self.default, *self.regions.values())))
        object.__setattr__(self, "_index", {name: places.index(place) for name, place in self.regions.items()})
        object.__setattr__(self, "places", _compiled(places))

    def place_of(self, regions: Sequence[str]) -> Ints:
        """Return the place of each code of a stream's regions.

        Args:
            regions: The K names of the regions, by code.

        Returns:
            int32 (K + 1,). The last element, which the code of a missing region (-1) selects, is the default.
        """
        return np.array([*(self._index.get(name, 0) for name in regions), 0], np.int32)


class RegionPlaces:
    """The places of a stream's regions by code. They are looked up anew only if the regions have changed.

    >>> berlin = Place(Zone((-math.inf,), (3600.0,)))
    >>> RegionPlaces(LocalTime(Place(), {"eu-central": berlin})).of(["eu-central"], 0).tolist()
    [1, 0]
    """

    def __init__(self, local_time: LocalTime) -> None:
        self.places = local_time.places
        self._local_time = local_time
        self._names: Sequence[str] = ()
        self._state = (0, 0)
        self._place_of = local_time.place_of(())

    def of(self, names: Sequence[str], forgotten: int) -> Ints:
        """Return the place of each code, see `LocalTime.place_of`.

        Args:
            names: The names of the regions by code: the interner's own list, which grows.
            forgotten: How often names were forgotten, after which codes stand for others.
        """
        if names is not self._names or self._state != (len(names), forgotten):
            self._names, self._state, self._place_of = names, (len(names), forgotten), self._local_time.place_of(names)
        return self._place_of


def _compiled(places: Sequence[Place]) -> Places:
    zones = list(dict.fromkeys(place.zone for place in places))
    calendars = list(dict.fromkeys(tuple(sorted(set(place.holidays))) for place in places))
    return Places(
        zone=np.array([zones.index(place.zone) for place in places], np.int64),
        calendar=np.array([calendars.index(tuple(sorted(set(place.holidays)))) for place in places], np.int64),
        zone_first=np.cumsum([0, *(len(zone.since_s) for zone in zones)], dtype=np.int64),
        since_s=np.concatenate([np.array(zone.since_s, np.float64) for zone in zones]),
        offset_s=np.concatenate([np.array(zone.offset_s, np.float64) for zone in zones]),
        calendar_first=np.cumsum([0, *(len(days) for days in calendars)], dtype=np.int64),
        holiday=np.concatenate([np.array(days, np.int64) for days in calendars]),
    )


UTC: Final = LocalTime()
"""The default: no zones, no holidays."""
