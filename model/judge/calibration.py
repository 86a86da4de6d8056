"""Intervals that keep their coverage while the stream drifts: how far each side has to be stretched, learnt from what came true.

Adaptive conformal inference (Gibbs and Candes 2021, "Adaptive conformal inference under distribution shift") in its form that tracks the
interval itself (Angelopoulos, Candes and Tibshirani 2023, "Conformal PID control for time series prediction", section 2.1): a side that
was too narrow is stretched, one that held shrinks a little, so that in the long run the share of misses is what was asked for, whatever
the stream does. What counts is whether the interval held that was given out, not the present one: with forecasts of hours these differ.
Each side of each pair of horizon and target of a group of links has a stretch of its own. The result depends only on the order of the
outcomes.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from features.compiled import compiled
from features.telemetry import Doubles, Floats, Longs

RATE: Final = 0.002
"""By how much a side that held shrinks, as a share. At a coverage of 90 % a miss stretches it by 4 %, which 19 outcomes undo. Measured on
seven recordings: at a tenth of this coverage follows a change of the stream too late, at five times this the stretch wanders, and intervals
cost up to a third more by their score."""
LEAST: Final = 0.1
MOST: Final = 20.0
"""Bounds of a stretch: an outage or a measurement that is stuck must not make intervals useless for long."""
BELOW, ABOVE = 0, 1
"""Places in the last axis of stretches."""


class Calibration:
    """The stretches of G groups of links.

    >>> calibration = Calibration(groups=1, horizons=1, targets=1, coverage=0.9)
    >>> ahead = np.array([[[[9.0, 10.0, 11.0]]]], np.float32)  # one forecast: one horizon, one target, lower to upper
    >>> group, outcome = np.array([0]), np.array([[[15.0]]], np.float32)
    >>> for _ in range(100):
    ...     calibration.learn(group, calibration.stretched(group, ahead), outcome)
    >>> lower, median, upper = calibration.stretched(group, ahead)[0, 0, 0].tolist()
    >>> round(lower, 1), median, upper >= 14.9
    (9.2, 10.0, True)
    """

    def __init__(self, groups: int, horizons: int, targets: int, coverage: float) -> None:
        """Start with the intervals as they come.

        Args:
            groups: G, of links whose intervals are stretched alike.
            horizons: H.
            targets: K.
            coverage: Share of outcomes that is to lie between lower and upper.
        """
        self.miss = 0.5 * (1.0 - coverage)
        self.log_stretch: Doubles = np.zeros((groups, horizons, targets, 2))

    def learn(self, group: Longs, given: Floats, actual: Floats) -> None:
        """Learn from M outcomes, in the order in which they came true.

        Args:
            group: int64 (M,).
            given: float32 (M, H, K, 3), lower, median and upper as they were given out, NaN if not forecast.
            actual: float32 (M, H, K), NaN if not measured.
        """
        _learn(group, given, actual, self.miss, self.log_stretch)

    def stretched(self, group: Longs, ahead: Floats) -> Floats:
        """Return forecasts (M, H, K, 3) with their intervals stretched; a lower end may have become impossible."""
        below, above = np.moveaxis(np.exp(self.log_stretch[group]), -1, 0)
        lower, median, upper = np.moveaxis(ahead, -1, 0)
        found: Floats = np.stack([median - below * (median - lower), median, median + above * (upper - median)], axis=-1).astype(np.float32)
        return found


@compiled
def learn_outcome(log_stretch: Doubles, lower: float, upper: float, value: float, miss: float) -> None:
    """Learn from one outcome.

    Args:
        log_stretch: float64 (2,), logarithms of the stretches of both sides; changed in place.
        lower: End of the interval that was given out, as `upper`.
        value: What came.
        miss: Share of outcomes that is to lie beyond each side.
    """
    for side, missed in ((BELOW, value < lower), (ABOVE, value > upper)):
        step = RATE * ((1.0 if missed else 0.0) - miss) / miss
        log_stretch[side] = min(max(log_stretch[side] + step, math.log(LEAST)), math.log(MOST))


@compiled
def _learn(group: Longs, given: Floats, actual: Floats, miss: float, log_stretch: Doubles) -> None:
    for row in range(len(group)):
        for horizon in range(given.shape[1]):
            for target in range(given.shape[2]):
                value = float(actual[row, horizon, target])
                lower, median, upper = given[row, horizon, target]
                if value == value and median == median:
                    learn_outcome(log_stretch[group[row], horizon, target], lower, upper, value, miss)
