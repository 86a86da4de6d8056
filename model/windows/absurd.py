"""Valid numbers that cannot be telemetry: one throughput of 3e38 among thousands of 400 makes every fitted scale useless."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from features.columns import LARGEST
from features.offline import RawTable
from features.telemetry import Flags, Floats

TAIL_SHARE: Final = 1e-3
"""Share of the values on either side (at least one) that does not count for the spread of a column."""
REACH: Final = 50.0
"""Spreads from the median beyond which a value is absurd. A lognormal column of sigma 2, a heavy tail, reaches a tenth of it."""
MOST_SPREAD: Final = 1e4
"""Largest spread, in medians of the values that are not 0, so that up to half of the rows may be absurd."""


def held(table: RawTable, rows: Flags) -> RawTable:
    """Return the table with every number in some rows clipped to the span of the others there; the same table if none is outside.

    Other rows stay as they are: what is compared on them is compared with what was measured.

    Args:
        rows: bool (N,).
    """
    chosen = table.numeric[rows]
    low, high = (np.array(edge, np.float32) for edge in zip(*(reach(column) for column in chosen.T), strict=True))
    if not ((chosen < low) | (chosen > high)).any():
        return table
    numeric = table.numeric.copy()
    numeric[rows] = np.clip(chosen, low, high)
    return replace(table, numeric=numeric)


def reach(values: Floats) -> tuple[float, float]:
    """Return the lowest and highest value that is not absurd among values (N,), NaN if missing; -inf and inf if none is known."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return -np.inf, np.inf
    middle = float(np.median(known))
    least, most = np.quantile(known, TAIL_SHARE, method="higher"), np.quantile(known, 1.0 - TAIL_SHARE, method="lower")
    usual = max(1.0, float(np.median(np.abs(known[known != 0.0])))) if known.any() else 1.0
    far = REACH * min(max(float(most - least), abs(middle), 1.0), MOST_SPREAD * usual)
    return max(middle - far, -LARGEST), min(middle + far, LARGEST)
