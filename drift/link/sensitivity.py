"""Sensitivity of the detectors, set by one number: the budget of false alerts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from drift.link.cusum import SLACK, SLACK_SPREAD
from features.telemetry import Doubles

LEAST: Final = 8.0
"""Lowest threshold, whatever the budget: a sum passes it every few hours on any link."""
LEAST_OF_INTERVALS: Final = 5.0
"""The same for residuals in standard deviations of their forecasts' intervals."""
LEAST_LEVEL: Final = 2.5
"""The same for the averages of level.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Thresholds of the sums in cusum.py, in long-run variances.

    The defaults keep to one false alert a week in a fleet of 20 regions with 100 monitored links each, in the worst of the regimes of
    `make bench-drift`, which measures it.

    >>> strict = Sensitivity.for_budget(0.1)  # a tenth of the false alerts
    >>> round(strict.alone - Sensitivity().alone, 2)
    2.3
    >>> Sensitivity().thresholds.tolist()
    [[inf, 14.0, 24.0], [inf, 24.0, 34.0]]

    Args:
        quorum: from here on a link counts towards its region.
        alone: from here on a link is an alarm by itself.
        quorum_spread, alone_spread: the same for the sums of absolute residuals.
        intervals: NOTICE, QUORUM and ALONE of the sums of residuals in standard deviations of their forecasts' intervals, whose tails are
            known. NOTICE: from here on a link counts if many links of its region do.
        level: NOTICE, QUORUM and ALONE of the averages in level.py, in their root mean squares.
    """

    quorum: float = 14.0
    alone: float = 24.0
    quorum_spread: float = 24.0
    alone_spread: float = 34.0
    intervals: tuple[float, float, float] = (6.5, 9.5, 20.0)
    level: tuple[float, float, float] = (3.0, 3.9, 5.6)

    @classmethod
    def for_budget(cls, false_alerts_per_week: float) -> Sensitivity:
        """Return the thresholds that keep to a budget of false alerts.

        The time between false alarms of a CUSUM grows as exp(2 k h), with its slack k and its threshold h in variances (Siegmund 1985,
        "Sequential analysis", ch. 2.6): for a tenth of the alerts h is larger by ln(10) / 2k. The tail of an average falls as that of a
        normal distribution, exp(-t^2 / 2).
        """
        rarer, base = -math.log(false_alerts_per_week), cls()
        level, spread = rarer / (2 * SLACK), rarer / (2 * SLACK_SPREAD)
        return cls(
            quorum=max(LEAST, base.quorum + level),
            alone=max(LEAST, base.alone + level),
            quorum_spread=max(LEAST, base.quorum_spread + spread),
            alone_spread=max(LEAST, base.alone_spread + spread),
            intervals=_each(lambda threshold: max(LEAST_OF_INTERVALS, threshold + level), base.intervals),
            level=_each(lambda threshold: math.sqrt(max(LEAST_LEVEL**2, threshold**2 + 2.0 * rarer)), base.level),
        )

    @property
    def thresholds(self) -> Doubles:
        """Return float64 (2, 3): a row for the sums of residuals and one for those of sizes, columns NOTICE, QUORUM, ALONE of cusum.py."""
        return np.array([[math.inf, self.quorum, self.alone], [math.inf, self.quorum_spread, self.alone_spread]])

    @property
    def thresholds_of_intervals(self) -> Doubles:
        """Return the same for residuals in standard deviations of their forecasts' intervals."""
        return np.array([self.intervals, (math.inf, self.quorum_spread, self.alone_spread)])

    @property
    def level_thresholds(self) -> Doubles:
        """Return float64 (3,): NOTICE, QUORUM and ALONE of level.py."""
        return np.array(self.level)


def _each(changed: Callable[[float], float], thresholds: tuple[float, float, float]) -> tuple[float, float, float]:
    notice, quorum, alone = map(changed, thresholds)
    return notice, quorum, alone
