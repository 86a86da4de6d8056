"""Bounds of a network's inputs and forecasts, learnt from the rows that it is trained on. The layers are in bound_layers.py.

A counter sent as a queue depth, or traffic over a link whose speed test says 0, lies thousands of standard deviations from everything
that a network was trained on. Its forecast is then a meaningless extrapolation: a packet loss of 5.6e5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from features.definition import CHANGES, CYCLES, ENCODED, FEATURES, STEMS
from features.telemetry import CALENDAR, TARGETS, Flags, Floats, Longs
from model.windows.index import NONE, WindowIndex
from model.windows.scaler import Scaler

MULTIPLE: Final = 3.0
"""A forecast lies between the window's smallest measured value of its target, divided by this, and its largest, times this. In five
recordings fewer than 5 of 1,000 rows lie outside, and a network foresees hardly any of those: see docs/architecture.md."""
SLACK_SHARE: Final = 1e-2
"""Share of the training windows, those with the largest excess over MULTIPLE, that the slack ignores: one outlier is not a level."""
EDGE_SHARE: Final = 5e-4
"""Share of the training rows on either side that does not count for the edge of a feature: one absurd value is not a range."""
MARGIN: Final = 1.0
TARGET_MARGIN: Final = 4.0
"""Widths of the training range (at least one standard deviation) by which the edges lie outside of it: MARGIN for most features,
TARGET_MARGIN for those that are made of targets. Links grow, and new ones come: their own metrics may lie far beyond; a load or a queue
may not."""
UNBOUNDED: Final = 1e6
"""Edge of features that cannot be absurd, in standard deviations: hours, weekdays and codes are in their range by definition."""
ROWS_MAX: Final = 200_000
"""Most rows that the edges are computed from, evenly thinned: 100 lie beyond EDGE_SHARE."""
WINDOWS_MAX: Final = 16_384
"""Most windows that the slack is computed from, evenly thinned: 160 lie beyond SLACK_SHARE."""

_BY_THEMSELVES: Final = (*CALENDAR, *CYCLES, *ENCODED)


def _columns(wanted: tuple[bool, ...]) -> Flags:
    return np.array(wanted, np.bool_)


_FREE: Final = _columns(tuple(name in _BY_THEMSELVES for name in FEATURES))
_OF_TARGETS: Final = _columns(tuple(name.startswith(STEMS) for name in FEATURES))
_CHANGES: Final = _columns(tuple(name in CHANGES for name in FEATURES))


@dataclass(frozen=True, eq=False, slots=True)
class Bounds:
    """Limits of one network's inputs and forecasts.

    Args:
        low: float32 (44,), lower edge of each scaled feature. 0, which stands for a missing value, is never below it.
        high: float32 (44,), upper edge; 0 is never above it.
        slack: float32 (4,), in the targets' units: forecasts up to this are allowed for every window.
        unshown: float32 (4,), in the targets' units: largest forecast of a target that is missing in the whole window.
        measured: bool (4,), targets that some training window has measured.
        ahead_slack: float32 (4,), in the targets' units: as `slack`, of forecasts further ahead than the next row.
    """

    low: Floats
    high: Floats
    slack: Floats
    unshown: Floats
    measured: Flags
    ahead_slack: Floats = field(default_factory=lambda: np.zeros(len(TARGETS), np.float32))

    def joined(self, parent: Bounds, same: Flags) -> Bounds:
        """Return bounds that allow what either allows. same: bool (44,), features whose scale is the parent's."""
        return Bounds(
            low=np.where(same, np.minimum(self.low, parent.low), self.low),
            high=np.where(same, np.maximum(self.high, parent.high), self.high),
            slack=np.maximum(self.slack, np.where(parent.measured, parent.slack, 0.0)).astype(np.float32),
            unshown=np.maximum(self.unshown, np.where(parent.measured, parent.unshown, 0.0)).astype(np.float32),
            measured=self.measured | parent.measured,
            ahead_slack=np.maximum(self.ahead_slack, np.where(parent.measured, parent.ahead_slack, 0.0)).astype(np.float32),
        )


def learnt(features: Floats, targets: Floats, train: WindowIndex, inputs: Scaler, window_rows: int) -> Bounds:
    """Return the bounds of a network that is trained on the windows `train`.

    Args:
        features: float32 (N, 44), scaled, 0 if missing.
        targets: float32 (N, 4), in the targets' units, NaN if missing.
        inputs: Scaler of the features.
    """
    rows = _rows_of(train, window_rows, len(features))
    low, high = edges(features[rows], inputs)
    shown = targets[train.target_row]
    measured: Flags = np.asarray(np.isfinite(shown).any(axis=0), np.bool_)
    next_row = slack(targets, train, window_rows)
    further = [slack(targets, index, window_rows) for index in _horizons(train)]
    return Bounds(low, high, next_row, _quantile(shown, 1.0 - EDGE_SHARE), measured, np.maximum.reduce([next_row, *further]))


def _horizons(train: WindowIndex) -> Iterator[WindowIndex]:
    """Yield the windows that know a row ahead, with that row as their target, for each horizon."""
    for ahead in train.ahead.T:
        known = ahead != NONE
        yield WindowIndex(train.end[known], ahead[known], begin=train.begin[known])


def edges(scaled: Floats, inputs: Scaler) -> tuple[Floats, Floats]:
    """Return low and high edge, float32 (44,) each, of scaled features (N, 44), 0 if missing."""
    low, high = np.zeros(scaled.shape[1]), np.zeros(scaled.shape[1])
    for column in np.flatnonzero(inputs.fitted):
        known = scaled[:, column]
        known = known[known != 0.0]
        if not len(known):
            continue
        least, most = np.quantile(known, [EDGE_SHARE, 1.0 - EDGE_SHARE])
        margin = (TARGET_MARGIN if _OF_TARGETS[column] else MARGIN) * max(1.0, most - least)
        low[column], high[column] = min(0.0, least - margin), max(0.0, most + margin)
    low[_FREE & inputs.fitted], high[_FREE & inputs.fitted] = -UNBOUNDED, UNBOUNDED
    return low.astype(np.float32), high.astype(np.float32)


def slack(targets: Floats, train: WindowIndex, window_rows: int) -> Floats:
    """Return float32 (4,), the largest next value among those over MULTIPLE times their window's largest, without the top SLACK_SHARE.

    It allows small losses as forecasts for a link without loss, as far as such links have had them. It is 0 if values never rise like this.
    """
    index = train.select(np.arange(0, len(train), max(1, -(-len(train) // WINDOWS_MAX))))
    largest = np.full((len(index), targets.shape[1]), -np.inf, np.float32)
    for back in range(window_rows):
        row = index.end - back
        largest = np.fmax(largest, np.where((row >= index.begin)[:, None], targets[np.maximum(row, 0)], np.float32(-np.inf)))
    wanted = targets[index.target_row]
    with np.errstate(over="ignore"):
        over = np.where(np.isfinite(largest), np.where(wanted > MULTIPLE * largest, wanted, 0.0), np.nan)
    return np.maximum(_quantile(over, 1.0 - SLACK_SHARE), 0.0)


def _rows_of(train: WindowIndex, window_rows: int, count: int) -> Longs:
    """Return the rows that some training window reads, evenly thinned."""
    read = np.zeros(count + 1, np.int32)
    np.add.at(read, np.maximum(train.begin, train.end - (window_rows - 1)), 1)
    np.add.at(read, train.end + 1, -1)
    rows = np.flatnonzero(np.cumsum(read)[:count] > 0)
    return rows[:: max(1, -(-len(rows) // ROWS_MAX))]


def _quantile(values: Floats, share: float) -> Floats:
    """Return float32 (K,): the quantile of each column of values (N, K), NaN left out; 0 if a column has no value."""
    found = np.zeros(values.shape[1], np.float32)
    for column in range(values.shape[1]):
        known = values[:, column]
        known = known[np.isfinite(known)]
        if len(known):
            found[column] = np.quantile(known.astype(np.float64), share)
    return found
