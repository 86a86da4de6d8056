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

from features.compiled import compiled
from features.telemetry import Doubles, Floats, Longs
from model.version.contract import LOWER, MEDIAN, UPPER

RATE: Final = 0.002
"""By how much a side that held shrinks, as a share. At a coverage of 90 % a miss stretches it by 4 %, which 19 outcomes undo.
Measured on seven recordings: at a tenth of this coverage follows a change of the stream too late, at five times this the stretch wanders,
and intervals cost up to a third more by their score. A rate that grows with the horizon, whose outcomes are fewer, made them worse."""
LEAST: Final = 0.1
MOST: Final = 20.0
"""Bounds of a stretch: an outage or a measurement that is stuck must not make intervals useless for long."""
BELOW, ABOVE = 0, 1
"""Places in the last axis of stretches."""


@compiled
def ends(log_stretch: Doubles, lower: float, median: float, upper: float) -> tuple[float, float]:
    """Return both ends of an interval with its sides stretched; the lower one is not under 0. log_stretch: float64 (2,)."""
    below, above = math.exp(log_stretch[BELOW]), math.exp(log_stretch[ABOVE])
    return max(median - below * (median - lower), 0.0), median + above * (upper - median)


@compiled
def stretch(log_stretch: Doubles, group: Longs, highest: Floats, ahead: Floats) -> None:
    """Stretch the intervals of forecasts, within what is possible.

    Args:
        log_stretch: float64 (G, H, 4, 2).
        group: int64 (M,), whose stretches count for each forecast.
        highest: float32 (4,), largest possible values.
        ahead: float32 (M, H, 4, 4), NaN if not forecast; changed in place, but for median and mean.
    """
    for row in range(len(group)):
        for horizon in range(ahead.shape[1]):
            for target in range(ahead.shape[2]):
                places = ahead[row, horizon, target]
                if places[MEDIAN] == places[MEDIAN]:
                    lower, upper = ends(log_stretch[group[row], horizon, target], places[LOWER], places[MEDIAN], places[UPPER])
                    places[LOWER], places[UPPER] = lower, min(upper, highest[target])


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
