"""Whether a version is worse than a rival on the same rows, beyond chance: than what is published, or than the version before it.

The mixture leaves a version whose errors are large, so nothing that is published suffers; but then the version is not worth what it costs,
and a training may mend it, or its predecessor was better. A pair of errors is compared for each outcome, in usual deviations of its link,
over periods in succession.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.compiled import compiled
from features.telemetry import TARGETS, Doubles, Floats

BEHIND_OUTCOMES: Final = 400
BEHIND_ROWS: Final = 200
"""A version is judged against a rival over periods of at least as many outcomes of a group, and rows of a link."""
BEHIND_RATIO: Final = 0.05
"""It is behind if its errors are larger by more than this share"""
BEHIND_DEVIATIONS: Final = 4.0
"""and by more than so many standard errors, which chance gives once in 30,000 periods,"""
BEHIND_PERIODS: Final = 2
"""in so many periods in succession: an outage or a step that it follows is shorter."""
_CAPPED: Final = 8.0
"""Largest error that counts, in usual deviations."""
_N, _VERSION_SUM, _RIVAL_SUM, _SQUARES, _BEGAN_S, _PERIODS, _SHARE = range(7)
NEW, OLD, DIFFERENCES, COUNT = range(4)
"""Places in the last axis of the sums of `compare_rows`."""


@dataclass(frozen=True, slots=True)
class Behind:
    """A version that is worse than what is published, for the links of one region and type.

    Args:
        share: By how much its errors of this target are larger, over all horizons.
    """

    region: str
    link_type: str
    target: str
    share: float


def no_periods(groups: int) -> Doubles:
    """Return the sums of groups of which nothing is known, float64 (groups, 4, 7)."""
    return np.zeros((groups, len(TARGETS), _SHARE + 1))


def behind(periods: Doubles, groups: Sequence[tuple[str, str]]) -> list[Behind]:
    """Return where the version is behind.

    Args:
        periods: float64 (G, 4, 7), see `no_periods`.
        groups: G regions and link types.
    """
    found = np.argwhere(periods[:, :, _PERIODS] >= BEHIND_PERIODS).tolist()
    return [Behind(*groups[group], TARGETS[target], float(periods[group, target, _SHARE])) for group, target in found]


def is_worse(period: Doubles, periods: int) -> bool:
    """Return whether a version was worse in at least so many successive periods. period: float64 (7,), see `no_periods`."""
    return bool(period[_PERIODS] >= periods)


def worse_by(period: Doubles) -> float:
    """Return by what share its errors were larger, in the last period in which it was worse. period: float64 (7,)."""
    return float(period[_SHARE])


@compiled
def judge(period: Doubles, value: float, version: float, rival: float, spread: float, time_s: float, least_s: float) -> bool:
    """Add one outcome to the running period of a group, and end the period if it is long enough. Return whether it has ended.

    Args:
        period: float64 (7,), see `no_periods`, changed in place.
        value: What came.
        version, rival: What was forecast.
        spread: Usual deviation of the link's target from its average, NaN if not known.
        time_s: Of the outcome, UTC seconds.
        least_s: The period ends if it began no later, UTC seconds; NaN if that is not known.
    """
    if not spread > 0.0:
        return False
    of_version, of_rival = min(abs(value - version) / spread, _CAPPED), min(abs(value - rival) / spread, _CAPPED)
    if period[_N] == 0.0:
        period[_BEGAN_S] = time_s
    period[_N] += 1.0
    period[_VERSION_SUM] += of_version
    period[_RIVAL_SUM] += of_rival
    period[_SQUARES] += (of_version - of_rival) ** 2
    if period[_N] < BEHIND_OUTCOMES or not period[_BEGAN_S] <= least_s:
        return False
    count, worse = period[_N], period[_VERSION_SUM] - period[_RIVAL_SUM]
    variance = max(period[_SQUARES] / count - (worse / count) ** 2, 0.0)
    share = worse / period[_RIVAL_SUM] if period[_RIVAL_SUM] > 0.0 else 0.0
    if share > BEHIND_RATIO and worse / count > BEHIND_DEVIATIONS * math.sqrt(variance / count):
        period[_PERIODS] += 1.0
        period[_SHARE] = share
    else:
        period[_PERIODS] = 0.0
    period[:_BEGAN_S] = 0.0
    return True


@compiled
def compare_rows(
    period: Doubles, sums: Doubles, actual: Floats, new: Floats, old: Floats, spread: Floats, time_s: Doubles, least_s: Doubles
) -> int:  # fmt: skip
    """Compare the forecasts of two versions for W rows. Return how many periods have ended.

    Args:
        period: float64 (7,), see `no_periods`, of all targets together; changed in place.
        sums: float64 (4, 4), by target sums of the absolute errors NEW and OLD, of the squares of their DIFFERENCES, and their COUNT;
            changed in place.
        actual, new, old: float32 (W, 4), what came and what was forecast, NaN if missing.
        spread: float32 (W, 4), see `judge`.
        time_s, least_s: float64 (W,), see `judge`.
    """
    ended = 0
    for row in range(len(actual)):
        for target in range(actual.shape[1]):
            value, ours, theirs = float(actual[row, target]), float(new[row, target]), float(old[row, target])
            error, other = abs(value - ours), abs(value - theirs)
            if error < math.inf and other < math.inf:  # and so none is NaN
                sums[target, NEW] += error
                sums[target, OLD] += other
                sums[target, DIFFERENCES] += (error - other) ** 2
                sums[target, COUNT] += 1.0
                if judge(period, value, ours, theirs, float(spread[row, target]), time_s[row], least_s[row]):
                    ended += 1
    return ended
