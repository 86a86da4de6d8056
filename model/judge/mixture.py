"""What is published for a link: a mixture of the version's forecast and simple ones, whose weights each link learns from what came true.

A version is trained now and then, and a link may change at any time. The mixture is never far behind the best of its forecasts for long:
an exponentially weighted average with fixed share (Herbster and Warmuth 1998, "Tracking the best expert"), for each link, target and
horizon. A forecast that is missing sleeps: its weight stays, and it takes no part (Freund, Schapire, Singer and Warmuth 1997, "Using and
combining predictors that specialize"). The result depends only on the link's own rows and their order.

The interval has the sides of the version's, around the mixture, each stretched by what the link itself has taught. Weights and stretches
are kept as logarithms in two bytes each: with the simple forecasts under way a link has 120 bytes for each horizon.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.definition import FEATURES, WINDOW_ROWS
from features.memory import CONTEXT_ROWS
from features.telemetry import TARGETS, Doubles, Flags, Floats

SIMPLE: Final = ("last_value", "average", "level", "same_hour")
"""Last measured value; average of rate AVERAGE_RATE over the window; the slow average that the link remembers; and the average plus the
difference between the link's profile of the day at the time that is forecast and now."""
EXPERTS: Final = ("version", *SIMPLE)
VERSION: Final = 0
"""Place of the version's forecast among EXPERTS."""
AVERAGE_RATE: Final = 0.1
LEARNING_RATE: Final = 0.3
"""By how much the logarithm of a weight falls for an error that is one usual deviation larger than the best one."""
WORST: Final = 4.0
"""Largest such error, in deviations: one absurd value must not decide."""
FIXED_SHARE: Final = 0.003
"""Share of all weights that is divided evenly at each outcome: without it a forecast that was bad for long would not come back.
Measured on six recordings at five horizons: a third and three times of each of these cost .1 to 4 %."""
PRIOR: Final = 0.6
"""Weight of the version for a link that has taught nothing; the rest is the simple forecasts', evenly."""
FRESH_LEAST: Final = 0.5
"""Least weight of a version that has just gone live: the gate has found it better than the one that earned the weight."""
OWN_RATE: Final = 0.005
"""As calibration.RATE, for the stretch of the link itself. Measured on six recordings with the group's: scores of intervals 2 % better
than without; four times this makes them worse."""
OWN_MOST: Final = 3.0
"""Largest logarithm of a link's own stretch, on either side of 0."""
_STEPS: Final = 8192.0
"""Steps of a kept logarithm in 1: the smallest change is .01 %."""
_WEIGHT_LEAST: Final = math.exp(-65_535 / _STEPS)
_TARGETS_AT: Final = FEATURES.index(TARGETS[0])
_LAST, _AVERAGE, _LEVEL, _HOUR = range(len(SIMPLE))


def no_weights(links: int, horizons: int) -> NDArray[np.uint16]:
    """Return the kept weights of links that have taught nothing, uint16 (links, horizons, 4, experts).

    >>> [round(weight, 2) for weight in weights_of(no_weights(1, 1))[0, 0, 0].tolist()]
    [0.6, 0.1, 0.1, 0.1, 0.1]
    """
    begun = np.full((links, horizons, len(TARGETS), len(EXPERTS)), (1.0 - PRIOR) / len(SIMPLE))
    begun[..., VERSION] = PRIOR
    return kept_weights(begun)


def kept_weights(weights: Doubles) -> NDArray[np.uint16]:
    """Return weights as they are kept."""
    kept: NDArray[np.uint16] = np.round(-np.log(np.maximum(weights, _WEIGHT_LEAST)) * _STEPS).astype(np.uint16)
    return kept


def weights_of(kept: NDArray[np.uint16]) -> Doubles:
    """Return kept weights as shares of 1."""
    weights = np.exp(-kept.astype(np.float64) / _STEPS)
    shares: Doubles = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def trusting(kept: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return weights with at least FRESH_LEAST for the version."""
    weights = weights_of(kept)
    fresh = np.maximum(weights[..., VERSION], FRESH_LEAST)
    weights *= ((1.0 - fresh) / np.maximum(1.0 - weights[..., VERSION], _WEIGHT_LEAST))[..., None]
    weights[..., VERSION] = fresh
    return kept_weights(weights)


def no_simple(rows: int, horizons: int) -> Floats:
    """Return simple forecasts where there are none, float32 (R, H, 4, 4): the mixture is the version's forecast.

    >>> no_simple(3, 5).shape
    (3, 5, 4, 4)
    """
    return np.full((rows, horizons, len(TARGETS), len(SIMPLE)), np.nan, np.float32)


def simple_forecasts(windows: Floats, ready: Flags, last_known: Floats, context: Floats, horizons: int, highest: Floats) -> Floats:
    """Return the simple forecasts of R rows, float32 (R, H, 4, 4), NaN where there is none.

    Args:
        windows: float32 (R, 30, F), features unscaled.
        ready: bool (R,), whether the row is forecast.
        last_known: float32 (R, 4), last measured values.
        context: float32 (R, 3 + H, 4), see features.memory.fill_context.
        horizons: H.
        highest: float32 (4,), largest possible values.
    """
    made = no_simple(len(ready), horizons)
    _fill_simple(windows, ready, last_known, context, highest, made)
    return made


@compiled
def _fill_simple(windows: Floats, ready: Flags, last_known: Floats, context: Floats, highest: Floats, made: Floats) -> None:
    for row in range(len(ready)):
        if not ready[row]:
            continue
        for target in range(made.shape[2]):
            average = math.nan
            for step in range(WINDOW_ROWS):
                value = float(windows[row, step, _TARGETS_AT + target])
                if value == value:
                    average = value if average != average else average + AVERAGE_RATE * (value - average)
            level, now = context[row, 0, target], context[row, CONTEXT_ROWS - 1, target]
            for horizon in range(made.shape[1]):
                places = made[row, horizon, target]
                places[_LAST], places[_AVERAGE], places[_LEVEL] = last_known[row, target], average, level
                hour = average + float(context[row, CONTEXT_ROWS + horizon, target]) - float(now)
                if hour == hour:
                    places[_HOUR] = min(max(hour, 0.0), highest[target])


@compiled
def mixed(kept: Any, version: float, simple: Floats) -> float:
    """Return the mixture of forecasts, NaN if there are none.

    Args:
        kept: uint16 (experts,), see `no_weights`.
        version: The version's forecast, NaN if there is none.
        simple: float32 (4,), the simple forecasts, NaN where there is none.
    """
    total = value = 0.0
    for expert in range(len(EXPERTS)):
        forecast = version if expert == VERSION else float(simple[expert - 1])
        if forecast == forecast:
            weight = math.exp(-float(kept[expert]) / _STEPS)
            total += weight
            value += weight * forecast
    return value / total if total > 0.0 else math.nan


@compiled
def learn_weights(kept: Any, version: float, simple: Floats, value: float, spread: float) -> None:
    """Learn from one outcome.

    Args:
        kept: uint16 (experts,), changed in place.
        version, simple: See `mixed`, as they were forecast.
        value: What came.
        spread: The usual deviation of the link's target from its average, NaN if not known.
    """
    errors, weights = np.full(len(EXPERTS), math.nan), np.zeros(len(EXPERTS))
    best = math.inf
    for expert in range(len(EXPERTS)):
        errors[expert] = abs(value - (version if expert == VERSION else float(simple[expert - 1])))
        weights[expert] = math.exp(-float(kept[expert]) / _STEPS)
        best = min(best, errors[expert]) if errors[expert] == errors[expert] else best
    unit = max(spread, best) if spread == spread else best
    if not 0.0 < unit < math.inf:
        return
    awake = left = asleep = 0.0
    for expert in range(len(EXPERTS)):
        if errors[expert] == errors[expert]:
            awake += weights[expert]
            weights[expert] *= math.exp(-LEARNING_RATE * min((errors[expert] - best) / unit, WORST))
            left += weights[expert]
        else:
            asleep += weights[expert]
    for expert in range(len(EXPERTS)):
        if errors[expert] == errors[expert]:
            weights[expert] *= awake / left
        share = (1.0 - FIXED_SHARE) * weights[expert] / (awake + asleep) + FIXED_SHARE / len(EXPERTS)
        kept[expert] = round(-math.log(max(share, _WEIGHT_LEAST)) * _STEPS)


@compiled
def own_stretch(kept: float) -> float:
    """Return by how much a side is stretched. kept: see `learn_own`."""
    return math.exp(kept / _STEPS)


@compiled
def learn_own(kept: Any, side: int, missed: bool, miss: float) -> None:
    """Learn the stretch of one side from one outcome.

    Args:
        kept: int16 (2,), logarithms of the stretches in steps; changed in place.
        side: Place in it.
        missed: Whether the value lay beyond this side.
        miss: Share of outcomes that is to lie beyond each side.
    """
    moved = kept[side] / _STEPS + OWN_RATE * ((1.0 if missed else 0.0) - miss) / miss
    kept[side] = round(min(max(moved, -OWN_MOST), OWN_MOST) * _STEPS)
