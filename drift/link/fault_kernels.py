"""Compiled half of the detector of data faults: the usual values of each column, category and clock of a link, and since when they differ.

This file is long because all kernels must stay in it: Numba's cache does not notice a change of a file that a kernel calls into.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drift.link.cusum import Records, record
from drift.messages import SIGNALS
from features.columns import LARGEST, RANGES, names
from features.compiled import compiled
from features.definition import WINDOW_ROWS
from features.telemetry import CATEGORIES, NUMERIC, Doubles, Flags, Floats, Ints
from features.vocabulary import OTHER

KNOWN_ROWS: Final = 60.0
"""Rows after which the usual values of a column are known."""
MEMORY_ROWS: Final = 240.0
"""Rows within which the usual values are forgotten."""
PRESENT_MIN: Final = 0.9
"""Share of rows in which a column must have been measured for its absence to be a fault."""
MISSING_ROWS: Final = 10.0
"""Rows without a value after which a column is missing."""
MOVING_MIN: Final = 0.5
"""Share of rows in which a column must have changed for a constant to be a fault."""
CONSTANT_ROWS: Final = 30.0
"""Rows with the same value after which a column is constant."""
CHANCE_OF_REPEATS: Final = 1e-3
"""Repeats of a value that are less likely than this, in a column that moves as it did, are held back until it is known whether they are
a fault. In a column that always moves these are all from the second one on, and two residuals are not an alarm."""
MOVING_MAX: Final = 0.99
"""Largest share of rows in which a column is assumed to change: nobody has seen more than MEMORY_ROWS."""
UNIT_FACTOR: Final = 50.0
"""Smallest factor that may be another unit: less than the seconds of a minute. Networks change by a factor of 8 at most."""
UNITS: Final = tuple(math.log10(factor) for factor in (60.0, 1000.0, 1024.0, 3600.0, 8000.0, 8192.0, 1e6, 1024.0**2, 1e9))
"""Factors between units in use, as decimal logarithms."""
UNIT_TOLERANCE: Final = 0.04
"""Tolerance around UNITS, in decades: a tenth."""
UNIT_ROWS: Final = 5.0
"""Rows in another unit after which that is a fault. An outage of some rows is not; until it is known, its rows after the first are held
back."""
UNIT_SCATTERS: Final = 8.0
"""Times the mean distance of the logarithms from their mean that a factor must be: values near zero scatter over decades."""
UNIT_AGREEMENT: Final = 0.1
"""Decades by which the factors of successive rows may differ, or five times their scatter."""
UNIT_SCATTER_MAX: Final = 0.5
"""Mean distance of the logarithms from their mean, in decades, up to which a column has a unit whose change can be seen."""
CATEGORY_ROWS: Final = 3.0
"""Rows with a value that the model does not know after which that is a fault."""
CLOCK_S: Final = 120.0
CLOCK_INTERVALS: Final = 5.0
CLOCK_SCATTERS: Final = 8.0
"""A clock is off from the largest of these: seconds, intervals between rows, times the mean scatter of its lag."""
CLOCK_ROWS: Final = 5.0
"""Rows after which a clock that is off is a fault."""
CLOCK_AGREEMENT_S: Final = 20.0
"""Seconds by which the lags of successive rows may differ, or 2 % of the lag."""
ADOPTED_S: Final = 86_400.0
"""Seconds after which a fault is the new state of the data. Nothing is reported then, and its end is a change of its own."""

MISSING, CONSTANT, UNIT, CATEGORY, CLOCK = range(1, 6)
"""Numbers of the faults; 0: no fault."""
COLUMN: Final = record("rows present gone last moving same log scatter off shift fault since_s run_s logs")
"""Memory of a numeric column, or of a category, of one link.

rows: with a value (that the model knows). present, gone: share of rows with a value, rows since the last one. last, moving, same: last
value, share of rows in which it changes, repeats of it. log, scatter: mean decimal logarithm, mean distance from it. off, shift: rows
that are off (with an unknown value), by how many decades. fault, since_s: number of the fault, time of its first row. run_s: time of the
first row that is off, gone or the same. logs: rows that `log` is a mean of."""
CLOCK_STATE: Final = record("rows _present spoilt_rows last_s lag_scatter_s _same lag_s interval_s off shift_s fault since_s run_s _logs")
"""The same memory for the clock of a link. spoilt_rows: number of coming rows whose forecasts are still made from wrong values."""
FIELDS: Final = COLUMN.itemsize // 8
"""Columns of the state as float64."""
FOUND: Final = record("since_s amount interval_s")
"""Reported values of a fault: since_s, size and interval_s of `Fault`."""
_CHANGES: Final = -1.0
"""`off` of a counter that began anew, or of a link that wakes up. It goes on down from here until the column is learnt anew."""
_CATEGORIES_BEGIN: Final = len(NUMERIC)
_CLOCK_SIGNAL: Final = len(SIGNALS) - 1
_NO_UNIT: Final = tuple(index for index, name in enumerate(NUMERIC) if RANGES[name][1] < LARGEST)
"""Columns without a unit. A ratio has bursts of any factor, and in percent it is refused. A cyclic value falls from its largest to
0, which is any factor too."""
_LOSS: Final = NUMERIC.index("packet_loss")
_COUNTERS: Final = tuple(NUMERIC.index(name) for name in names("counter"))
_CALENDAR: Final = tuple(NUMERIC.index(name) for name in names("calendar"))
"""Columns that are no measurement: what they show follows from the time."""
COUNTED_MIN: Final = 5.0
"""Least mean of a counter that is judged: retransmits of 0, 1 and 2 are 60 in a bad minute, and 0 for a good hour."""
MOVES_MAX: Final = 1.5 / MEMORY_ROWS
"""Largest share of rows in which a category changes up to which a new value is reported: one change within MEMORY_ROWS. A phone that goes
from cell to cell has a new one every hour."""

assert SIGNALS[:_CATEGORIES_BEGIN] == NUMERIC
assert SIGNALS[_CATEGORIES_BEGIN:_CLOCK_SIGNAL] == CATEGORIES
assert COLUMN.itemsize == CLOCK_STATE.itemsize


@compiled
def inspect(
    all_columns: Records, all_clocks: Records, links: Ints, numeric: Floats, codes: Floats, time_s: Doubles, lag_s: Doubles,
    changed: NDArray[np.int8], held: Flags, found: Records, off_s: Doubles,
) -> None:  # fmt: skip
    """Inspect W rows, in stream order, and fill in the last four arrays. See `drift.link.faults.faults`.

    Args:
        all_columns, all_clocks: COLUMN and CLOCK_STATE (L, S), the same memory; changed in place.
        changed: int8 (W, S), set to the number of a fault that begins with the row, or less 0 if it ends.
        found: FOUND (W, S), set where a fault begins or ends.
    """
    categories = codes.shape[1]
    for row in range(links.shape[0]):
        columns, clock = all_columns[links[row]], all_clocks[links[row], _CLOCK_SIGNAL]
        for signal in range(_CLOCK_SIGNAL + 1):
            column = columns[signal]
            if signal in _CALENDAR:
                fault, size = 0, 0.0
            elif signal < _CATEGORIES_BEGIN:
                fault, size = _inspect_column(column, float(numeric[row, signal]), time_s[row], signal)
            elif signal < _CATEGORIES_BEGIN + categories:
                fault, size = _inspect_category(column, float(codes[row, signal - _CATEGORIES_BEGIN]), time_s[row])
            else:
                fault, size = _inspect_clock(clock, lag_s[row], time_s[row])
            before = int(column.fault)
            if fault != before:
                changed[row, signal] = fault if fault else -before
                column.since_s = column.run_s if fault else time_s[row]
                report = found[row, signal]
                report.since_s, report.amount, report.interval_s = column.since_s, size, clock.interval_s
                column.fault = fault
            elif fault and time_s[row] - column.since_s > ADOPTED_S:
                _reset(column)
            if signal < _CATEGORIES_BEGIN and signal not in _CALENDAR and (column.fault or column.off > 1.0 or _repeats(column, signal)):
                held[row, signal] = True
        spoils = _spoils(columns)
        if spoils == 2:
            clock.spoilt_rows = WINDOW_ROWS
        elif clock.spoilt_rows > 0.0:
            clock.spoilt_rows -= 1.0
        if clock.spoilt_rows > 0.0 or spoils:
            held[row, :] = True
        if clock.fault:
            off_s[row] = lag_s[row]


@compiled
def _reset(column: Any) -> None:
    column.rows = column.present = column.gone = column.last = column.moving = column.same = column.log = column.scatter = 0.0
    column.off = column.shift = column.fault = column.since_s = column.run_s = column.logs = 0.0


@compiled
def _forget_unit(column: Any) -> None:
    column.off, column.logs, column.log, column.scatter = 0.0, 0.0, 0.0, 0.0


@compiled
def _spoils(columns: Any) -> int:
    """Return 2 if a fault makes forecasts of all metrics wrong, 1 if there may be such a fault, which is not known yet, else 0."""
    worst = 0
    for signal in range(_CLOCK_SIGNAL):
        column = columns[signal]
        if signal < _CATEGORIES_BEGIN:
            spoils, may_spoil = column.fault == UNIT, column.off > 1.0
        else:
            spoils, may_spoil = column.fault > 0.0, column.off > 0.0 and column.rows >= KNOWN_ROWS
        worst = max(worst, 2 if spoils else int(may_spoil))
    return worst


@compiled
def _repeats(column: Any, signal: int) -> bool:
    """Return whether a column that used to change has the same value too often for chance."""
    if column.same == 0.0 or column.rows < KNOWN_ROWS or column.moving < MOVING_MIN or _counts_few(column, signal):
        return False
    return bool((1.0 - min(column.moving, MOVING_MAX)) ** column.same < CHANCE_OF_REPEATS)


@compiled
def _inspect_column(column: Any, value: float, time_s: float, signal: int) -> tuple[int, float]:
    """Return the fault of a numeric column after this value, and the factor of a unit. A fault ends with a row without it."""
    known = column.rows >= KNOWN_ROWS
    weight = 1.0 / min(column.rows + 1.0, MEMORY_ROWS)
    fault = int(column.fault)
    if math.isnan(value):
        if column.gone == 0.0:
            column.run_s = time_s if fault == 0 else column.run_s
        column.gone += 1.0
        if fault == 0 and known and column.present >= PRESENT_MIN and column.gone >= MISSING_ROWS:
            return MISSING, 0.0
        if fault == 0 and column.gone < MISSING_ROWS:
            column.present -= weight * column.present
            column.rows += 1.0
        return fault, 0.0
    if fault == MISSING:
        fault = 0
    column.gone = 0.0
    column.rows += 1.0
    column.present += weight * (1.0 - column.present)
    same = value == column.last
    at_an_end = value == 0.0 or (value == 1.0 and signal == _LOSS)  # nothing gets through, or all is lost: the network causes that
    column.same = column.same + 1.0 if same and not at_an_end else 0.0
    if fault == CONSTANT and not same:
        fault = 0
    if not same or column.same < CONSTANT_ROWS:
        column.moving += weight * ((0.0 if same else 1.0) - column.moving)
    elif fault == 0 and known and column.moving >= MOVING_MIN and not _counts_few(column, signal):
        fault = CONSTANT
    if column.same == 1.0 and fault == 0:
        column.run_s = time_s
    column.last = value
    if signal in _NO_UNIT:
        return (0 if fault == UNIT else fault), 0.0  # state of an older release may have such a fault
    return _inspect_unit(column, value, time_s, signal, fault)


@compiled
def _inspect_unit(column: Any, value: float, time_s: float, signal: int, fault: int) -> tuple[int, float]:
    if value <= 0.0:  # an outage, or nothing is lost: no unit shows in it
        column.off = 0.0
        return fault, 0.0
    if _counts_few(column, signal) and column.logs >= KNOWN_ROWS and fault == 0:
        column.log += (math.log10(value) - column.log) / MEMORY_ROWS
        column.off = 0.0
        return fault, 0.0
    distance = math.log10(value) - column.log
    limit = max(math.log10(UNIT_FACTOR), UNIT_SCATTERS * column.scatter)
    if column.logs >= KNOWN_ROWS and column.scatter <= UNIT_SCATTER_MAX and abs(distance) >= limit:
        if column.off > 0.0 and abs(distance - column.shift) > max(UNIT_AGREEMENT, 5.0 * column.scatter):
            # Another unit is the same factor in every row, except the first, which may be of both. What goes on changing rises from 0.
            column.off = 0.0 if column.off == 1.0 or fault else _CHANGES
        if column.off < 0.0:
            column.off -= 1.0
            if column.off < _CHANGES - UNIT_ROWS:
                _forget_unit(column)
            return fault, 0.0
        if column.off == 0.0:
            column.shift = 0.0
            column.run_s = time_s if fault == 0 else column.run_s
        column.off += 1.0
        column.shift += (distance - column.shift) / column.off
        if fault == 0 and column.off >= UNIT_ROWS:
            if _is_unit(column.shift, column.scatter):
                fault = UNIT
            else:  # the network has changed: the unit is learnt anew
                _forget_unit(column)
        return fault, 10.0**column.shift
    column.off = 0.0
    column.logs += 1.0
    weight = 1.0 / min(column.logs, MEMORY_ROWS)
    column.log += weight * distance
    column.scatter += weight * (abs(distance) - column.scatter)
    return (0 if fault == UNIT else fault), 0.0


@compiled
def _counts_few(column: Any, signal: int) -> bool:
    """Return whether a column is a counter of small numbers: it has no unit, and the same number for half an hour is chance."""
    return signal in _COUNTERS and column.log < math.log10(COUNTED_MIN)


@compiled
def _is_unit(shift: float, scatter: float) -> bool:
    """Return whether a factor, by its logarithm, is one between units in use, as far as the scatter of its rows shows."""
    for unit in UNITS:  # noqa: SIM110 - Numba compiles no generator
        if abs(abs(shift) - unit) <= UNIT_TOLERANCE + scatter:
            return True
    return False


@compiled
def _inspect_category(column: Any, code: float, time_s: float) -> tuple[int, float]:
    """Detect a link whose values were known to the model and no longer are. Return the fault and a size of 0.

    A category that moves all the time is none of the link's, and no new value of it is a fault.
    """
    if math.isnan(code):
        return int(column.fault), 0.0
    moved = column.rows > 0.0 and code != column.last
    column.moving += ((1.0 if moved else 0.0) - column.moving) / MEMORY_ROWS
    column.last = code
    if column.moving > MOVES_MAX:
        column.rows += 1.0
        column.off = 0.0
        return 0, 0.0
    if code != OTHER:
        column.rows += 1.0
        column.off = 0.0
        return 0, 0.0
    if column.off == 0.0:
        column.run_s = time_s
    column.off += 1.0
    begins = column.rows >= KNOWN_ROWS and column.off >= CATEGORY_ROWS
    return (CATEGORY if begins or column.fault else 0), 0.0


@compiled
def _inspect_clock(clock: Any, lag_s: float, time_s: float) -> tuple[int, float]:
    """Detect a clock that was set: the lag of the link's rows behind its partition has changed by much, and all rows by as much.

    A backlog, or an upload every hour, is not a fault of the clock: the lags of its rows differ. Return the fault and its size, seconds.
    """
    if clock.last_s > 0.0:
        passed_s = time_s - clock.last_s
        passed_s = min(passed_s, 4.0 * clock.interval_s) if clock.interval_s > 0.0 else passed_s
        clock.interval_s += (passed_s - clock.interval_s) / min(clock.rows + 1.0, MEMORY_ROWS)
    clock.last_s = time_s
    tolerance_s = max(CLOCK_S, CLOCK_INTERVALS * clock.interval_s, CLOCK_SCATTERS * clock.lag_scatter_s)
    distance_s = lag_s - clock.lag_s
    if clock.rows >= KNOWN_ROWS and abs(distance_s) > tolerance_s:
        if clock.off > 0.0 and abs(distance_s - clock.shift_s) > max(CLOCK_AGREEMENT_S, 0.02 * abs(clock.shift_s)):
            clock.off = 0.0
        if clock.off == 0.0:
            clock.run_s = time_s if clock.fault == 0.0 else clock.run_s
            clock.shift_s = 0.0
        clock.off += 1.0
        clock.shift_s += (distance_s - clock.shift_s) / clock.off
        return (CLOCK if clock.off >= CLOCK_ROWS or clock.fault else 0), -clock.shift_s
    clock.off = 0.0
    clock.rows += 1.0
    weight = 1.0 / min(clock.rows, MEMORY_ROWS)
    clock.lag_s += weight * distance_s
    clock.lag_scatter_s += weight * (abs(distance_s) - clock.lag_scatter_s)
    return 0, 0.0
