"""What a link remembers of its past beyond the ring: the level and spread of each target, and its profile of the day.

Per target, from measured values x alone:

    fast   <- fast + .12 (x - fast)         the first x begins it
    level  <- level + .02 (x - level)       the first x begins it
    spread <- spread + .02 (|x - fast| - spread), with fast after x; begins at 0
    cell   <- cell + max(.3, 1 / (n + 1)) (mean - cell), n hours after the first

A cell is one hour of the local day, workdays and days off (weekends and holidays) apart. A mean is that of one local hour. It goes into its
cell when the first row after that hour comes, so fast links forget no faster than slow ones. An hour ends at its end in UTC: where
daylight saving ends, the hour that comes twice goes in twice. The kernels stand in this file alone, and are called from `kernels.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.calendar import HOUR_S
from features.compiled import compiled
from features.local_time import Places
from features.telemetry import TARGETS, Bytes, Doubles, Floats, Ints, Longs

KINDS: Final = 2
"""Workdays (0) and days off (1)."""
HOURS: Final = 24
_METRICS: Final = len(TARGETS)
FAST, LEVEL, SPREAD, BEGUN, SUM, COUNT = range(6)
RECENT_ROWS: Final = 6
FAST_RATE: Final = 0.12
LEVEL_RATE: Final = 0.02
CELL_RATE_LEAST: Final = 0.3
"""Smallest weight of a finished hour in its cell: a cell follows a lasting change within some five days of its kind."""
FOLDED_MOST: Final = 4
"""Count of hours at which counting stops: 1 / (n + 1) is under CELL_RATE_LEAST from 3 on."""
HOURS_LEAST: Final = 20
"""Hours of the day that must have been seen before a profile is given out: a day, but for a short outage."""
CONTEXT_ROWS: Final = 3
"""Lines of a context before those of the horizons: level, spread, profile at the row's own time."""
_FIRST_DAY: Final = 3
"""1970-01-01 was a Thursday, and Monday is 0."""
_SATURDAY: Final = 5
_PLACES: Final = Places._fields
"""Kernels find fields by position, so code that was compiled for another order must not be loaded: see `compiled._compiled_in`."""

MEMORY: Final[dict[str, tuple[tuple[int, ...], Any]]] = {
    "profile": ((KINDS, HOURS, _METRICS), np.float32),
    "folded": ((KINDS, HOURS, _METRICS), np.uint8),  # hours in each cell, at most FOLDED_MOST; 0: the cell is cold
    "recent": ((RECENT_ROWS, _METRICS), np.float64),  # fast, level, spread, whether these have begun, sum and count of the running hour
    "hour_until_s": ((), np.float64),  # end of the running hour, UTC seconds; 0: none runs
    "hour_cell": ((), np.uint8),  # of the running hour: kind * HOURS + hour
}
"""State of each link: shape and dtype. In total 768 + 192 + 192 + 8 + 1 = 1,161 bytes a link. What every row changes lies together: a
cache miss for each of six arrays would cost as much as the rest of a row."""


class Memory(NamedTuple):
    """The arrays of MEMORY, each with L rows for L links.

    >>> memory = Memory(**empty_memory(1))
    >>> gather(memory.recent[0], np.array([100.0, np.nan, 0.0, np.nan], np.float32))
    >>> memory.recent[0, LEVEL].tolist(), memory.recent[0, BEGUN].tolist()
    ([100.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0])
    """

    profile: Floats
    folded: Bytes
    recent: Doubles
    hour_until_s: Doubles
    hour_cell: Bytes


def empty_memory(links: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of MEMORY for links that remember nothing.

    Args:
        links: How many links.
    """
    return {name: np.zeros((links, *shape), dtype) for name, (shape, dtype) in MEMORY.items()}


def drop_running_hour(memory: Memory, slots: Ints) -> None:
    """Drop the running hour of links whose clock was wrong; the finished hours and the averages stay.

    Args:
        memory: Changed in place.
        slots: int32 (K,).
    """
    memory.recent[slots, SUM:] = 0.0
    memory.hour_until_s[slots] = 0.0
    memory.hour_cell[slots] = 0


def context_shape(rows: int, horizons: Sequence[int]) -> tuple[int, int, int]:
    """Return the shape of the contexts of some rows.

    >>> context_shape(7, (1, 5)), context_shape(7, ())
    ((7, 5, 4), (7, 0, 4))
    """
    return (rows, CONTEXT_ROWS + len(horizons) if len(horizons) else 0, len(TARGETS))


@compiled
def _offset_s(places: Places, place: int, time_s: float) -> float:
    """Return the UTC offset of a place at a time, seconds."""
    zone = places.zone[place]
    low, high = places.zone_first[zone], places.zone_first[zone + 1]
    while high - low > 1:
        middle = (low + high) // 2
        if places.since_s[middle] <= time_s:
            low = middle
        else:
            high = middle
    return float(places.offset_s[low])


@compiled
def _kind(places: Places, place: int, day: int) -> int:
    """Return 1 if a local day (days since 1970-01-01) is a weekend's or a holiday, else 0."""
    if (day + _FIRST_DAY) % 7 >= _SATURDAY:
        return 1
    calendar = places.calendar[place]
    low, high = places.calendar_first[calendar], places.calendar_first[calendar + 1]
    while low < high:
        middle = (low + high) // 2
        if places.holiday[middle] == day:
            return 1
        if places.holiday[middle] < day:
            low = middle + 1
        else:
            high = middle
    return 0


@compiled
def begin_hour(memory: Memory, slot: int, places: Places, place: int, time_s: float) -> None:
    """Fold the running hour of a link into its cells, and begin the hour of a time (UTC seconds)."""
    kind, hour = divmod(int(memory.hour_cell[slot]), HOURS)
    for metric in range(_METRICS):
        count = memory.recent[slot, COUNT, metric]
        if count > 0.0:
            mean = memory.recent[slot, SUM, metric] / count
            known, cell = int(memory.folded[slot, kind, hour, metric]), float(memory.profile[slot, kind, hour, metric])
            memory.profile[slot, kind, hour, metric] = (
                mean if known == 0 else cell + max(CELL_RATE_LEAST, 1.0 / (known + 1)) * (mean - cell)
            )
            memory.folded[slot, kind, hour, metric] = min(known + 1, FOLDED_MOST)
            memory.recent[slot, SUM, metric] = memory.recent[slot, COUNT, metric] = 0.0
    offset_s = _offset_s(places, place, time_s)
    hours = math.floor((time_s + offset_s) / HOUR_S)
    day = int(hours // HOURS)
    memory.hour_until_s[slot] = (hours + 1) * HOUR_S - offset_s
    memory.hour_cell[slot] = _kind(places, place, day) * HOURS + int(hours - day * HOURS)


@compiled
def forget_all(memory: Memory, slot: int) -> None:
    """Let a link remember nothing."""
    memory.profile[slot] = 0.0
    memory.folded[slot] = 0
    memory.recent[slot] = 0.0
    memory.hour_until_s[slot] = 0.0
    memory.hour_cell[slot] = 0


@compiled
def gather(recent: Doubles, values: Floats) -> None:
    """Add one accepted row to the averages and the running hour of its link. `begin_hour` comes before it if the row is of a later hour.

    Args:
        recent: float64 (RECENT_ROWS, 4), the link's own, see MEMORY; changed in place.
        values: float32 (R,), a row of NUMERIC, which begins with TARGETS; NaN if not measured.
    """
    for metric in range(_METRICS):
        value = float(values[metric])
        if value == value:
            recent[SUM, metric] += value
            recent[COUNT, metric] += 1.0
            if recent[BEGUN, metric] == 0.0:
                recent[BEGUN, metric] = 1.0
                recent[FAST, metric] = recent[LEVEL, metric] = value
            else:
                fast, level, spread = recent[FAST, metric], recent[LEVEL, metric], recent[SPREAD, metric]
                fast += FAST_RATE * (value - fast)
                recent[FAST, metric] = fast
                recent[LEVEL, metric] = level + LEVEL_RATE * (value - level)
                recent[SPREAD, metric] = spread + LEVEL_RATE * (abs(value - fast) - spread)


@compiled
def _at_hour(memory: Memory, slot: int, kind: int, hour: int, metric: int) -> float:
    """Return the cell of an hour; if it is cold, that of the other kind of day; NaN if both are cold."""
    if memory.folded[slot, kind, hour, metric] > 0:
        return float(memory.profile[slot, kind, hour, metric])
    if memory.folded[slot, 1 - kind, hour, metric] > 0:
        return float(memory.profile[slot, 1 - kind, hour, metric])
    return math.nan


@compiled
def _fill_profile(memory: Memory, slot: int, places: Places, place: int, time_s: float, warm: Bytes, out: Floats) -> None:
    """Fill float32 (4,) with the profile of a link at a time (UTC seconds). NaN for a time that is NaN and where `warm` (4,) is 0."""
    if not math.isfinite(time_s):
        out[:] = math.nan
        return
    # An hour is known at its middle. Both of the nearest have the kind of their own day, so that nothing jumps at midnight.
    position = (time_s + _offset_s(places, place, time_s)) / HOUR_S - 0.5
    before = math.floor(position)
    share = position - before
    day = int(before // HOURS)
    hour = int(before - day * HOURS)
    next_day, next_hour = (day, hour + 1) if hour + 1 < HOURS else (day + 1, 0)
    kind = _kind(places, place, day)
    next_kind = kind if next_day == day else _kind(places, place, next_day)
    for metric in range(_METRICS):
        value = math.nan
        if warm[metric] != 0:
            value, after = _at_hour(memory, slot, kind, hour, metric), _at_hour(memory, slot, next_kind, next_hour, metric)
            if value != value:
                value = after
            elif after == after:
                value += share * (after - value)
        out[metric] = value


@compiled
def fill_context(
    memory: Memory, slot: int, places: Places, place: int, time_s: float, interval_s: float, horizons: Longs, out: Floats
) -> None:  # fmt: skip
    """Compute the context of a link's newest row, after `remember`.

    Args:
        memory: The state.
        slot: The link's.
        places: See `LocalTime.places`.
        place: Of the row.
        time_s: Of the row, UTC seconds.
        interval_s: The link's sampling interval, seconds, NaN if unknown.
        horizons: int64 (H,), rows ahead.
        out: float32 (3 + H, 4), is filled: level, spread, profile at the row's time, and at the time of each horizon. NaN if unknown.
    """
    warm = np.zeros(_METRICS, np.uint8)
    for metric in range(_METRICS):
        begun = memory.recent[slot, BEGUN, metric] != 0.0
        out[0, metric] = memory.recent[slot, LEVEL, metric] if begun else math.nan
        out[1, metric] = memory.recent[slot, SPREAD, metric] if begun else math.nan
        hours = 0
        for hour in range(HOURS):
            if memory.folded[slot, 0, hour, metric] + memory.folded[slot, 1, hour, metric] > 0:
                hours += 1
        warm[metric] = hours >= HOURS_LEAST
    _fill_profile(memory, slot, places, place, time_s, warm, out[CONTEXT_ROWS - 1])
    for index in range(len(horizons)):
        _fill_profile(memory, slot, places, place, time_s + horizons[index] * interval_s, warm, out[CONTEXT_ROWS + index])
