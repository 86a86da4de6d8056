"""How sensitive the detectors are: thresholds that follow from the false alerts that an operator accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from drift.link.cusum import SLACK, SLACK_SPREAD
from features.telemetry import Doubles

LEAST: Final = 8.0
"""No threshold is lower, whatever the budget: a sum passes it every few hours on any link."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Thresholds of the sums in cusum.py, in long-run variances. At `quorum` a link counts towards its region; at `alone` it is worth
    telling by itself. spread: the same for the sums of absolute residuals.

    The defaults keep to one false alert a week of a fleet of 20 regions with 100 watched links each, in the worst of the regimes of
    `make bench-drift`, which measures it.
    """

    quorum: float = 14.0
    alone: float = 24.0
    quorum_spread: float = 24.0
    alone_spread: float = 34.0

    @classmethod
    def for_budget(cls, false_alerts_per_week: float) -> Sensitivity:
        """The thresholds that keep to a budget of false alerts.

        The time between false alarms of a CUSUM grows as exp(2 k h), k its slack and h its threshold in variances (Siegmund 1985,
        "Sequential analysis", ch. 2.6): for a tenth of the alerts h is larger by ln(10) / 2k.
        """
        rarer = -math.log(false_alerts_per_week)
        level, spread = rarer / (2 * SLACK), rarer / (2 * SLACK_SPREAD)
        base = cls()
        return cls(
            max(LEAST, base.quorum + level),
            max(LEAST, base.alone + level),
            max(LEAST, base.quorum_spread + spread),
            max(LEAST, base.alone_spread + spread),
        )

    @property
    def thresholds(self) -> Doubles:
        """float64 (2, 2), as `cusum.judge` takes them."""
        return np.array([[self.quorum, self.alone], [self.quorum_spread, self.alone_spread]])
