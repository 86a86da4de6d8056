"""Numbers that are valid and yet no telemetry: one throughput of 3e38 among thousands of 400 makes every scale that is fitted useless."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from features.columns import LARGEST
from features.offline import RawTable
from features.telemetry import Flags, Floats

TAIL_SHARE: Final = 1e-3
"""Of the values on either side, and at least one, those that do not count for the spread of a column."""
REACH: Final = 50.0
"""Spreads from the median at which a value is absurd. A lognormal column of sigma 2, a heavy tail, reaches a tenth of it."""
MOST_SPREAD: Final = 1e4
"""Largest spread, in medians of what is not 0: more absurd rows than TAIL_SHARE, up to half of them, are no spread."""


def held(table: RawTable, rows: Flags) -> RawTable:
    """Return the table with every number in `rows`, bool (N,), held within reach of the others there; the same table if all are.

    Other rows stay as they are: what is judged on them is judged on what was measured.
    """
    chosen = table.numeric[rows]
    low, high = (np.array(edge, np.float32) for edge in zip(*(reach(column) for column in chosen.T), strict=True))
    if not ((chosen < low) | (chosen > high)).any():
        return table
    numeric = table.numeric.copy()
    numeric[rows] = np.clip(chosen, low, high)
    return replace(table, numeric=numeric)


def reach(values: Floats) -> tuple[float, float]:
    """Lowest and highest value that is not absurd among values (N,), NaN where missing; -inf and inf where there is none."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return -np.inf, np.inf
    middle = float(np.median(known))
    least, most = np.quantile(known, TAIL_SHARE, method="higher"), np.quantile(known, 1.0 - TAIL_SHARE, method="lower")
    usual = max(1.0, float(np.median(np.abs(known[known != 0.0])))) if known.any() else 1.0
    far = REACH * min(max(float(most - least), abs(middle), 1.0), MOST_SPREAD * usual)
    return max(middle - far, -LARGEST), min(middle + far, LARGEST)
