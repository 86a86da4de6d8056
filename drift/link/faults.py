"""Faults of the data, not of the network: what a producer does to a column, told apart from drift before a residual is judged.

While a column has a fault, its residuals reach no detector, and while its unit or a category is wrong, none of the link's do: every
forecast is made of them. A fault that lasts a day is how the data are from then on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drift.messages import SIGNALS, Aspect
from features.columns import LARGEST, RANGES
from features.compiled import compiled
from features.definition import WINDOW_ROWS
from features.telemetry import CATEGORIES, NUMERIC, Doubles, Flags, Floats, Ints
from features.vocabulary import OTHER

KNOWN_ROWS: Final = 60.0
"""Rows after which it is known what a column is like."""
MEMORY_ROWS: Final = 240.0
PRESENT_MIN: Final = 0.9
"""Share of rows in which a column must have been measured for its absence to be a fault."""
MISSING_ROWS: Final = 10.0
MOVING_MIN: Final = 0.5
"""Share of rows in which a column must have changed for a constant to be a fault."""
CONSTANT_ROWS: Final = 30.0
CHANCE_OF_REPEATS: Final = 1e-3
"""Repeats of a value that are less likely than this, of a column that moves as it did, are held back until it is known what they are: of
one that always moves from the second on, and two residuals are no alarm."""
MOVING_MAX: Final = 0.99
"""Share of rows in which a column is taken to change at most, for nobody has seen more than MEMORY_ROWS."""
UNIT_FACTOR: Final = 50.0
"""Less than a minute's seconds; a factor of 8 is no more than what networks do."""
UNITS: Final = tuple(math.log10(factor) for factor in (60.0, 1000.0, 1024.0, 3600.0, 8000.0, 8192.0, 1e6, 1024.0**2, 1e9))
UNIT_TOLERANCE: Final = 0.04
"""Decades around those: a tenth."""
UNIT_ROWS: Final = 5.0
"""An outage of some rows is none of the data's; until it is known what it is, its rows after the first are held back."""
UNIT_SCATTERS: Final = 8.0
"""Times the mean distance of the logarithms from their mean that a factor must be: values near zero scatter over decades."""
UNIT_AGREEMENT: Final = 0.1
"""Decades by which the factors of successive rows may differ, or five times their scatter."""
UNIT_SCATTER_MAX: Final = 0.5
"""Mean distance of the logarithms from their mean, in decades, up to which a column has a unit that can be seen to change."""
CATEGORY_ROWS: Final = 3.0
CLOCK_S: Final = 120.0
CLOCK_INTERVALS: Final = 5.0
CLOCK_ROWS: Final = 5.0
CLOCK_SCATTERS: Final = 8.0
CLOCK_AGREEMENT_S: Final = 20.0
ACCEPTED_S: Final = 86_400.0
"""A fault that lasts so long is the new state of the data: nothing is told then, and its end is a change of its own."""

_ASPECTS: Final[tuple[Aspect, ...]] = ("missing", "constant", "unit", "category", "clock")
_MISSING, _CONSTANT, _UNIT, _CATEGORY, _CLOCK = range(5)
# What is kept of one signal of one link, float64 each.
_ROWS, _PRESENT, _GONE, _LAST, _MOVING, _SAME, _LOG, _SCATTER, _OFF, _SHIFT, _FAULT, _SINCE_S, _RUN_S, _LOGS = range(14)
FIELDS: Final = 14
_CHANGES: Final = -1.0
"""Of _OFF: a counter that began anew, or a link that wakes up. It goes on down from here until the column is learnt anew."""
_SPOILT: Final = _GONE
"""Of the clock, which is never gone: for how many rows yet there are wrong values among what forecasts are made of."""
_CATEGORIES_BEGIN: Final = len(NUMERIC)
_CLOCK_SIGNAL: Final = len(SIGNALS) - 1
_NO_UNIT: Final = tuple(index for index, name in enumerate(NUMERIC) if RANGES[name][1] < LARGEST)
"""A ratio has bursts of any factor, and in percent it is refused; what goes round falls from its most to 0, which is any factor too."""
_LOSS: Final = NUMERIC.index("packet_loss")

assert SIGNALS[: len(NUMERIC)] == NUMERIC
assert SIGNALS[_CATEGORIES_BEGIN:_CLOCK_SIGNAL] == CATEGORIES


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that begins or ends with a row. size: the factor of a unit, the seconds of a clock, else 0. interval_s: between rows."""

    row: int
    signal: int
    aspect: Aspect
    begins: bool
    since_s: float
    size: float
    interval_s: float


def faults(
    state: Doubles, links: Ints, numeric: Floats, codes: Floats, time_s: Doubles, lag_s: Doubles
) -> tuple[list[Fault], Flags, Doubles]:  # fmt: skip
    """Inspects W rows, in stream order. What it gives of a row follows from its link's rows up to it.

    state: float64 (L, S, FIELDS), changed in place. links: int32 (W,). numeric: float32 (W, 11), NaN where missing. codes: float32
    (W, 6), of the categories as the model has them, OTHER where it does not know one, NaN where there is none. time_s: float64 (W,).
    lag_s: float64 (W,), by how much the newest row of the partition so far is newer. Gives the faults that begin or end; bool (W, 11),
    the columns whose values cannot be judged; and float64 (W,), by how much the clock of the row's link is known to be behind.
    """
    told, held, details, off_s = _inspect(state, links, numeric, codes, time_s, lag_s)
    found = []
    for row, signal in np.argwhere(told).tolist():
        fault = int(told[row, signal])
        since_s, size, interval_s = details[row, signal].tolist()
        found.append(Fault(row, signal, _ASPECTS[abs(fault) - 1], fault > 0, since_s, size, interval_s))
    return found, held, off_s


@compiled
def _inspect(
    state: Doubles, links: Ints, numeric: Floats, codes: Floats, time_s: Doubles, lag_s: Doubles
) -> tuple[NDArray[np.int8], Flags, Doubles, Doubles]:  # fmt: skip
    rows, columns = numeric.shape
    categories = codes.shape[1]
    told = np.zeros((rows, state.shape[1]), np.int8)
    held = np.zeros((rows, columns), np.bool_)
    details = np.zeros((rows, state.shape[1], 3))
    off_s = np.zeros(rows)
    for row in range(rows):
        of_link = state[links[row]]
        for signal in range(columns + categories + 1):
            kept = of_link[signal]
            if signal < columns:
                fault, size = _column(kept, float(numeric[row, signal]), time_s[row], signal)
            elif signal < columns + categories:
                fault, size = _category(kept, float(codes[row, signal - columns]), time_s[row])
            else:
                fault, size = _clock(kept, lag_s[row], time_s[row])
            before = int(kept[_FAULT])
            if fault != before:
                told[row, signal] = fault if fault else -before
                kept[_SINCE_S] = kept[_RUN_S] if fault else time_s[row]
                details[row, signal, 0], details[row, signal, 1] = kept[_SINCE_S], size
                details[row, signal, 2] = of_link[columns + categories, _SCATTER]
                kept[_FAULT] = fault
            elif fault and time_s[row] - kept[_SINCE_S] > ACCEPTED_S:
                kept[:] = 0.0
            if signal < columns and (kept[_FAULT] or kept[_OFF] > 1.0 or _repeats(kept)):
                held[row, signal] = True
        clock = of_link[columns + categories]
        if _spoils(of_link, columns, categories):
            clock[_SPOILT] = WINDOW_ROWS
        elif clock[_SPOILT] > 0.0:
            clock[_SPOILT] -= 1.0
        if clock[_SPOILT] > 0.0 or _may_spoil(of_link, columns, categories):
            held[row, :] = True
        if clock[_FAULT]:
            off_s[row] = lag_s[row]
    return told, held, details, off_s


@compiled
def _spoils(of_link: Doubles, columns: int, categories: int) -> bool:
    """Whether a fault makes forecasts of all metrics wrong."""
    for signal in range(columns):
        if of_link[signal, _FAULT] == _UNIT + 1:
            return True
    for signal in range(columns, columns + categories):  # noqa: SIM110 - Numba compiles no generator
        if of_link[signal, _FAULT]:
            return True
    return False


@compiled
def _may_spoil(of_link: Doubles, columns: int, categories: int) -> bool:
    """Whether it may be such a fault: nobody knows yet."""
    for signal in range(columns):
        if of_link[signal, _OFF] > 1.0:
            return True
    for signal in range(columns, columns + categories):  # noqa: SIM110 - Numba compiles no generator
        if of_link[signal, _OFF] > 0.0 and of_link[signal, _ROWS] >= KNOWN_ROWS:
            return True
    return False


@compiled
def _repeats(kept: Doubles) -> bool:
    """Whether a column that used to change has the same value too often for chance."""
    if kept[_SAME] == 0.0 or kept[_ROWS] < KNOWN_ROWS or kept[_MOVING] < MOVING_MIN:
        return False
    return bool((1.0 - min(kept[_MOVING], MOVING_MAX)) ** kept[_SAME] < CHANCE_OF_REPEATS)


@compiled
def _column(kept: Doubles, value: float, time_s: float, signal: int) -> tuple[int, float]:
    """The fault of a numeric column after this value (its number, from 1), and the factor of a unit. It ends with a row without it."""
    known = kept[_ROWS] >= KNOWN_ROWS
    weight = 1.0 / min(kept[_ROWS] + 1.0, MEMORY_ROWS)
    fault = int(kept[_FAULT])
    if math.isnan(value):
        if kept[_GONE] == 0.0:
            kept[_RUN_S] = time_s if fault == 0 else kept[_RUN_S]
        kept[_GONE] += 1.0
        if fault == 0 and known and kept[_PRESENT] >= PRESENT_MIN and kept[_GONE] >= MISSING_ROWS:
            return _MISSING + 1, 0.0
        if fault == 0 and kept[_GONE] < MISSING_ROWS:
            kept[_PRESENT] -= weight * kept[_PRESENT]
            kept[_ROWS] += 1.0
        return fault, 0.0
    if fault == _MISSING + 1:
        fault = 0
    kept[_GONE] = 0.0
    kept[_ROWS] += 1.0
    kept[_PRESENT] += weight * (1.0 - kept[_PRESENT])
    same = value == kept[_LAST]
    at_an_end = value == 0.0 or (value == 1.0 and signal == _LOSS)  # nothing goes through, or all is lost: that is the network's doing
    kept[_SAME] = kept[_SAME] + 1.0 if same and not at_an_end else 0.0
    if fault == _CONSTANT + 1 and not same:
        fault = 0
    if not same or kept[_SAME] < CONSTANT_ROWS:
        kept[_MOVING] += weight * ((0.0 if same else 1.0) - kept[_MOVING])
    elif fault == 0 and known and kept[_MOVING] >= MOVING_MIN:
        fault = _CONSTANT + 1
    if kept[_SAME] == 1.0 and fault == 0:
        kept[_RUN_S] = time_s
    kept[_LAST] = value
    if signal in _NO_UNIT:
        return (0 if fault == _UNIT + 1 else fault), 0.0  # state of an older release may have such a fault
    return _unit(kept, value, time_s, fault)


@compiled
def _unit(kept: Doubles, value: float, time_s: float, fault: int) -> tuple[int, float]:
    if value <= 0.0:  # an outage or nothing lost: no unit can be told from it
        kept[_OFF] = 0.0
        return fault, 0.0
    distance = math.log10(value) - kept[_LOG]
    limit = max(math.log10(UNIT_FACTOR), UNIT_SCATTERS * kept[_SCATTER])
    if kept[_LOGS] >= KNOWN_ROWS and kept[_SCATTER] <= UNIT_SCATTER_MAX and abs(distance) >= limit:
        if kept[_OFF] > 0.0 and abs(distance - kept[_SHIFT]) > max(UNIT_AGREEMENT, 5.0 * kept[_SCATTER]):
            # Another unit is the same factor in every row, but for the first, which may be of both. What goes on changing rises from 0.
            kept[_OFF] = 0.0 if kept[_OFF] == 1.0 or fault else _CHANGES
        if kept[_OFF] < 0.0:
            kept[_OFF] -= 1.0
            if kept[_OFF] < _CHANGES - UNIT_ROWS:
                kept[_OFF], kept[_LOGS], kept[_LOG], kept[_SCATTER] = 0.0, 0.0, 0.0, 0.0
            return fault, 0.0
        if kept[_OFF] == 0.0:
            kept[_SHIFT] = 0.0
            kept[_RUN_S] = time_s if fault == 0 else kept[_RUN_S]
        kept[_OFF] += 1.0
        kept[_SHIFT] += (distance - kept[_SHIFT]) / kept[_OFF]
        if fault == 0 and kept[_OFF] >= UNIT_ROWS:
            if _is_unit(kept[_SHIFT], kept[_SCATTER]):
                fault = _UNIT + 1
            else:  # the network's doing: it is learnt anew
                kept[_OFF], kept[_LOGS], kept[_LOG], kept[_SCATTER] = 0.0, 0.0, 0.0, 0.0
        return fault, 10.0 ** kept[_SHIFT]
    kept[_OFF] = 0.0
    kept[_LOGS] += 1.0
    weight = 1.0 / min(kept[_LOGS], MEMORY_ROWS)
    kept[_LOG] += weight * distance
    kept[_SCATTER] += weight * (abs(distance) - kept[_SCATTER])
    return (0 if fault == _UNIT + 1 else fault), 0.0


@compiled
def _is_unit(shift: float, scatter: float) -> bool:
    """Whether a factor, by its logarithm, is one between units in use, as far as the scatter of its rows tells."""
    for unit in UNITS:  # noqa: SIM110 - Numba compiles no generator
        if abs(abs(shift) - unit) <= UNIT_TOLERANCE + scatter:
            return True
    return False


@compiled
def _category(kept: Doubles, code: float, time_s: float) -> tuple[int, float]:
    """A link that had values which the model knows has others now."""
    if math.isnan(code):
        return int(kept[_FAULT]), 0.0
    if code != OTHER:
        kept[_ROWS] += 1.0
        kept[_OFF] = 0.0
        return 0, 0.0
    if kept[_OFF] == 0.0:
        kept[_RUN_S] = time_s
    kept[_OFF] += 1.0
    begins = kept[_ROWS] >= KNOWN_ROWS and kept[_OFF] >= CATEGORY_ROWS
    return (_CATEGORY + 1 if begins or kept[_FAULT] else 0), 0.0


@compiled
def _clock(kept: Doubles, lag_s: float, time_s: float) -> tuple[int, float]:
    """The link's rows come with times that lag behind its partition by much more, or less, than they did, all by as much.

    Of the clock, _LOG is its lag, _MOVING how that scatters, and _SCATTER the interval between its rows. A backlog that is caught up
    with, or uploads every hour, are no clock: their lags differ from row to row.
    """
    if kept[_LAST] > 0.0:
        passed_s = time_s - kept[_LAST]
        passed_s = min(passed_s, 4.0 * kept[_SCATTER]) if kept[_SCATTER] > 0.0 else passed_s
        kept[_SCATTER] += (passed_s - kept[_SCATTER]) / min(kept[_ROWS] + 1.0, MEMORY_ROWS)
    kept[_LAST] = time_s
    tolerance_s = max(CLOCK_S, CLOCK_INTERVALS * kept[_SCATTER], CLOCK_SCATTERS * kept[_MOVING])
    distance_s = lag_s - kept[_LOG]
    if kept[_ROWS] >= KNOWN_ROWS and abs(distance_s) > tolerance_s:
        if kept[_OFF] > 0.0 and abs(distance_s - kept[_SHIFT]) > max(CLOCK_AGREEMENT_S, 0.02 * abs(kept[_SHIFT])):
            kept[_OFF] = 0.0
        if kept[_OFF] == 0.0:
            kept[_RUN_S] = time_s if kept[_FAULT] == 0.0 else kept[_RUN_S]
            kept[_SHIFT] = 0.0
        kept[_OFF] += 1.0
        kept[_SHIFT] += (distance_s - kept[_SHIFT]) / kept[_OFF]
        return (_CLOCK + 1 if kept[_OFF] >= CLOCK_ROWS or kept[_FAULT] else 0), -kept[_SHIFT]
    kept[_OFF] = 0.0
    kept[_ROWS] += 1.0
    weight = 1.0 / min(kept[_ROWS], MEMORY_ROWS)
    kept[_LOG] += weight * distance_s
    kept[_MOVING] += weight * (abs(distance_s) - kept[_MOVING])
    return 0, 0.0
