"""Find faults of the data: changes of a column by its producer, recognised before a residual is inspected.

While a column has a fault, its residuals reach no detector. While its unit or a category is wrong, none of the link's residuals do: every
forecast is made from them. A fault that lasts a day is adopted as the new state of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from drift.link.fault_kernels import CLOCK_STATE, COLUMN, FOUND, inspect
from drift.messages import Aspect
from features.telemetry import Doubles, Flags, Floats, Ints

_ASPECTS: Final[tuple[Aspect, ...]] = ("missing", "constant", "unit", "category", "clock")
"""Aspect of each fault, by its number in fault_kernels.py less 1."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that begins or ends with a row.

    >>> Fault(row=84, signal=1, aspect="unit", begins=True, since_s=4800.0, size=1000.0, interval_s=60.0).aspect
    'unit'

    Args:
        row: index of the row.
        signal: index into SIGNALS.
        begins: True if it begins, False if it ends.
        since_s: when it began, or ended, UTC seconds.
        size: factor of a unit, seconds of a clock, else 0.
        interval_s: between the link's rows, seconds.
    """

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
    """Inspect W rows, in stream order. The result of a row depends on its link's rows up to it, not on batches.

    >>> from drift.link.fault_kernels import FIELDS
    >>> from drift.messages import SIGNALS
    >>> state, rows = np.zeros((1, len(SIGNALS), FIELDS)), 100
    >>> numeric = np.random.default_rng(1).normal(50, 2, (rows, 11)).astype(np.float32)
    >>> numeric[80:, 1] *= 1000  # rtt_ms: a producer now sends microseconds
    >>> time_s = 60.0 * np.arange(rows)
    >>> found, held, _ = faults(state, np.zeros(rows, np.int32), numeric, np.ones((rows, 6), np.float32), time_s, np.zeros(rows))
    >>> [(fault.row, fault.aspect, fault.begins, round(fault.size, -2)) for fault in found]
    [(84, 'unit', True, 1000.0)]
    >>> held[70, 0], held[90, 0]  # a wrong input makes all forecasts of the link wrong
    (np.False_, np.True_)

    Args:
        state: float64 (L, S, FIELDS), of each link and signal; changed in place.
        links: int32 (W,), indices into state.
        numeric: float32 (W, 11), the columns NUMERIC, NaN if missing.
        codes: float32 (W, 6), the categories as the model encodes them: OTHER if it does not know the value, NaN if there is none.
        time_s: float64 (W,), UTC seconds.
        lag_s: float64 (W,), seconds by which the partition's newest row so far is newer.

    Returns:
        Faults that begin or end with these rows; bool (W, 11), the columns whose residuals must not reach a detector; and float64 (W,), the
        seconds by which the clock of the row's link is known to be behind.
    """
    shape = len(links), state.shape[1]
    changed, held = np.zeros(shape, np.int8), np.zeros(numeric.shape, np.bool_)
    details, off_s = np.zeros(shape, FOUND), np.zeros(len(links))
    columns, clocks = state.view(COLUMN)[..., 0], state.view(CLOCK_STATE)[..., 0]
    inspect(columns, clocks, links, numeric, codes, time_s, lag_s, changed, held, details, off_s)
    found = []
    for row, signal in np.argwhere(changed).tolist():
        fault = int(changed[row, signal])
        found.append(Fault(row, signal, _ASPECTS[abs(fault) - 1], fault > 0, *details[row, signal].item()))
    return found, held, off_s
