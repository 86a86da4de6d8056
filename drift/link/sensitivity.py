"""Sensitivity of the detectors, set by one number: the budget of false alerts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from drift.link.cusum import SLACK, SLACK_SPREAD
from features.telemetry import Doubles

LEAST: Final = 8.0
"""Lowest threshold, whatever the budget: a sum passes it every few hours on any link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Thresholds of the sums in cusum.py, in long-run variances.

    The defaults keep to one false alert a week in a fleet of 20 regions with 100 monitored links each, in the worst of the regimes of
    `make bench-drift`, which measures it.

    >>> strict = Sensitivity.for_budget(0.1)  # a tenth of the false alerts
    >>> round(strict.alone - Sensitivity().alone, 2)
    2.3
    >>> Sensitivity().thresholds.tolist()
    [[14.0, 24.0], [24.0, 34.0]]

    Args:
        quorum: from here on a link counts towards its region.
        alone: from here on a link is an alert by itself.
        quorum_spread, alone_spread: the same for the sums of absolute residuals.
    """

    quorum: float = 14.0
    alone: float = 24.0
    quorum_spread: float = 24.0
    alone_spread: float = 34.0

    @classmethod
    def for_budget(cls, false_alerts_per_week: float) -> Sensitivity:
        """Return the thresholds that keep to a budget of false alerts.

        The time between false alarms of a CUSUM grows as exp(2 k h), with its slack k and its threshold h in variances (Siegmund 1985,
        "Sequential analysis", ch. 2.6): for a tenth of the alerts h is larger by ln(10) / 2k.
        """
        rarer, base = -math.log(false_alerts_per_week), cls()
        level, spread = rarer / (2 * SLACK), rarer / (2 * SLACK_SPREAD)
        return cls(
            quorum=max(LEAST, base.quorum + level),
            alone=max(LEAST, base.alone + level),
            quorum_spread=max(LEAST, base.quorum_spread + spread),
            alone_spread=max(LEAST, base.alone_spread + spread),
        )

    @property
    def thresholds(self) -> Doubles:
        """Return float64 (2, 2): a row for the sums of residuals and one for those of sizes, columns QUORUM and ALONE of cusum.py."""
        return np.array([[self.quorum, self.alone], [self.quorum_spread, self.alone_spread]])
