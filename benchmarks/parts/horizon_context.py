"""What a link remembers at each of its rows: averages, the spread around them, its sampling interval, and its hourly profile.

These are the recurrences of the features' context, for rivals and rows alike. `context` is the one place to change if the product computes
it: `features.offline.compute(..., horizons=...)` has the same shapes.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from features.compiled import compiled
from features.offline import RawTable
from features.telemetry import Doubles, Floats, Ints, Longs
from features.timeline import INTERVALS
from model.windows.index import targets_of

RATES: Final = (1.0, 0.5, 0.25, 0.12, 0.06, 0.02)
"""Weights of the newest value in the averages. Rate 1.0 is the last measured value."""
FAST_RATE, SLOW_RATE = 0.12, 0.02
PROFILE_RATE: Final = 0.3
"""Least weight of the newest day in a cell of the profile."""
HOURS_KNOWN: Final = 20
"""Hours of the day that must be known before a profile is given out."""
_HOUR_S, _HOURS, _KINDS = 3600.0, 24, 2


def averages(table: RawTable, group: Ints | Longs) -> Floats:
    """Return float32 (N, 4, len(RATES)), averages of each target up to each row, NaN before its first value.

    Args:
        table: N rows.
        group: (N,), where the number changes the averages begin anew: links, or runs.
    """
    found = np.empty((len(table), targets_of(table).shape[1], len(RATES)), np.float32)
    _fill_averages(group.astype(np.int64), targets_of(table), np.array(RATES), found)
    return found


def context(table: RawTable, horizons: tuple[int, ...]) -> tuple[Floats, Doubles]:
    """Return the context of each row, float32 (N, 3 + H, 4), and its link's sampling interval, float64 (N,), seconds, NaN if unknown.

    Rows of the context: level, spread, profile at the row's own time, profile at each horizon's time. NaN: not known.
    """
    found = np.empty((len(table), 3 + len(horizons), targets_of(table).shape[1]), np.float32)
    interval_s = np.empty(len(table))
    _fill_context(table.link, table.time_s, targets_of(table), np.array(horizons, np.float64), found, interval_s)
    return found, interval_s


@compiled
def _fill_averages(group: Longs, values: Floats, rates: Doubles, out: Floats) -> None:
    state = np.full((values.shape[1], len(rates)), np.nan)
    for row in range(len(values)):
        if row == 0 or group[row] != group[row - 1]:
            state[:] = np.nan
        for target in range(values.shape[1]):
            value = float(values[row, target])
            for index in range(len(rates)):
                if value == value:
                    before = state[target, index]
                    state[target, index] = before + rates[index] * (value - before) if before == before else value
                out[row, target, index] = state[target, index]


@compiled
def _median_interval(intervals: Doubles, known: int) -> float:
    if known == 0:
        return math.nan
    recent = np.sort(intervals[:known])
    middle = known // 2
    return float(recent[middle]) if known % 2 == 1 else 0.5 * (float(recent[middle - 1]) + float(recent[middle]))


@compiled
def _kind(hour: int) -> int:
    """Return 1 for an hour since 1970 of a weekend, which began on a Thursday, else 0."""
    return 1 if (hour // 24 + 3) % 7 >= 5 else 0


@compiled
def _cell(cells: Doubles, hour: int, target: int) -> float:
    kind, of_day = _kind(hour), hour % 24
    own = cells[kind, of_day, target]
    return own if own == own else cells[1 - kind, of_day, target]


@compiled
def _profile(cells: Doubles, time_s: float, target: int) -> float:
    """Return the profile at a time: hours are centred at half past, between them it is interpolated. NaN if cold."""
    known = 0
    for of_day in range(24):
        if cells[0, of_day, target] == cells[0, of_day, target] or cells[1, of_day, target] == cells[1, of_day, target]:
            known += 1
    if known < HOURS_KNOWN or time_s != time_s:
        return math.nan
    place = time_s / _HOUR_S - 0.5
    before = math.floor(place)
    share = place - before
    first, second = _cell(cells, before, target), _cell(cells, before + 1, target)
    if first != first:
        return second
    return first if second != second else (1.0 - share) * first + share * second


@compiled
def _fill_context(link: Ints, time_s: Doubles, values: Floats, horizons: Doubles, out: Floats, interval_s: Doubles) -> None:
    targets = values.shape[1]
    fast, level, spread = np.full(targets, np.nan), np.full(targets, np.nan), np.full(targets, np.nan)
    cells, folded = np.full((_KINDS, _HOURS, targets), np.nan), np.zeros((_KINDS, _HOURS, targets))
    total, count = np.zeros(targets), np.zeros(targets)
    intervals = np.zeros(INTERVALS)
    known = head = 0
    hour = 0
    for row in range(len(link)):
        now = math.floor(time_s[row] / _HOUR_S)
        if row == 0 or link[row] != link[row - 1]:
            fast[:], level[:], spread[:], cells[:] = np.nan, np.nan, np.nan, np.nan
            folded[:], total[:], count[:] = 0.0, 0.0, 0.0
            known = head = 0
        else:
            intervals[head] = np.float32(time_s[row] - time_s[row - 1])
            head, known = (head + 1) % INTERVALS, min(known + 1, INTERVALS)
            if now != hour:
                kind, of_day = _kind(hour), hour % 24
                for target in range(targets):
                    if count[target] > 0:
                        mean, old = total[target] / count[target], cells[kind, of_day, target]
                        weight = max(PROFILE_RATE, 1.0 / (folded[kind, of_day, target] + 1.0))
                        cells[kind, of_day, target] = mean if old != old else old + weight * (mean - old)
                        folded[kind, of_day, target] += 1.0
                total[:], count[:] = 0.0, 0.0
        hour = now
        interval_s[row] = _median_interval(intervals, known)
        for target in range(targets):
            value = float(values[row, target])
            if value == value:
                first = fast[target] != fast[target]
                fast[target] = value if first else fast[target] + FAST_RATE * (value - fast[target])
                level[target] = value if first else level[target] + SLOW_RATE * (value - level[target])
                apart = abs(value - fast[target])
                spread[target] = apart if first else spread[target] + SLOW_RATE * (apart - spread[target])
                total[target] += value
                count[target] += 1.0
            out[row, 0, target] = level[target]
            out[row, 1, target] = spread[target]
            out[row, 2, target] = _profile(cells, time_s[row], target)
            for index in range(len(horizons)):
                out[row, 3 + index, target] = _profile(cells, time_s[row] + horizons[index] * interval_s[row], target)
