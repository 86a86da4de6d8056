"""Averages of a link at each of its rows, for rivals. What else a link remembers is the context that the features compute."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.compiled import compiled
from features.offline import RawTable
from features.telemetry import Doubles, Floats, Ints, Longs
from model.windows.index import targets_of

RATES: Final = (1.0, 0.5, 0.25, 0.12, 0.06, 0.02)
"""Weights of the newest value in the averages. Rate 1.0 is the last measured value."""


def averages(table: RawTable, group: Ints | Longs) -> Floats:
    """Return float32 (N, 4, len(RATES)), averages of each target up to each row, NaN before its first value.

    Args:
        table: N rows.
        group: (N,), where the number changes the averages begin anew: links, or runs.
    """
    found = np.empty((len(table), targets_of(table).shape[1], len(RATES)), np.float32)
    _fill_averages(group.astype(np.int64), targets_of(table), np.array(RATES), found)
    return found


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
