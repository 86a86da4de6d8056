"""Rows of monitored links as the detectors get them, and the messages that are made of what they find."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from drift.link.cusum import ALONE, NOTICE, WITHDRAWN
from drift.link.faults import Fault
from drift.link.level import half_width
from drift.messages import Aspect, LinkAlarm, LinkSeen
from features.telemetry import Doubles, Flags, Floats, Ints, Longs

SCALE_FLOOR_OF_INTERVAL: Final = 0.1
"""Least scale of a residual that comes in standard deviations of its forecast's interval."""
Describe = Callable[[int], tuple[str, str, str]]
"""Region, link and link type of a row."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """The intervals of the forecasts that W rows are compared with.

    >>> sides, far = np.full((1, 4, 2), 3.0, np.float32), np.full((1, 4, 3), np.nan, np.float32)
    >>> Intervals(sides, far, horizon=60, coverage=0.9, restarted=np.zeros(1, np.bool_), interval_s=np.array([60.0])).horizon
    60

    Args:
        next_row: float32 (W, 4, 2), how far lower and upper bound were from the forecast that was made for each row; NaN if there is none.
        far: float32 (W, 4, 3), lower bound, median and upper bound of the forecasts made at each row, `horizon` rows ahead; NaN if there
            are none.
        horizon: the longest of the live version, rows.
        coverage: of the intervals, 0 to 1.
        restarted: bool (W,), whether a gap lies before the row.
        interval_s: float64 (W,), sampling interval of the link, seconds, NaN if unknown.
    """

    next_row: Floats
    far: Floats
    horizon: int
    coverage: float
    restarted: Flags
    interval_s: Doubles

    def far_sigma(self, row: int, target: int) -> float:
        """Return the standard deviation of what the metric does within `horizon` rows, in its unit; NaN if it is not known."""
        width = float(self.far[row, target, 2]) - float(self.far[row, target, 0])
        return width / 2.0 / half_width(self.coverage)


@dataclass(frozen=True, slots=True)
class MonitoredRows:
    """W rows of monitored links, in stream order.

    >>> rows = MonitoredRows(
    ...     watch=np.zeros(1, np.int32), numeric=np.zeros((1, 11), np.float32), residual=np.zeros((1, 4), np.float32),
    ...     codes=np.ones((1, 6), np.float32), time_s=np.array([600.0]), lag_s=np.zeros(1), offsets=np.array([7]),
    ...     describe=lambda row: ("eu", "a|b", "metro"),
    ... )
    >>> rows.describe(0)
    ('eu', 'a|b', 'metro')

    Args:
        watch: int32 (W,), indices of monitored links.
        numeric: float32 (W, 11), the columns NUMERIC, NaN if not measured.
        residual: float32 (W, 4), of the TARGETS, measured minus forecast; NaN if either is missing.
        codes: float32 (W, 6), the categories as the model encodes them: 0 if it does not know the value, NaN if there is none.
        time_s: float64 (W,), UTC seconds.
        lag_s: float64 (W,), seconds by which the partition's newest row so far is newer.
        offsets: int64 (W,).
        describe: names of a row.
        intervals: None if the live version forecasts only the next row, and without bounds.
    """

    watch: Ints
    numeric: Floats
    residual: Floats
    codes: Floats
    time_s: Doubles
    lag_s: Doubles
    offsets: Longs
    describe: Describe
    intervals: Intervals | None = None

    def share_of_far(self, row: int, target: int, size: float) -> float:
        """Return a shift, in the metric's unit, in standard deviations of what the metric does within an hour; inf if it is not known."""
        sigma = math.nan if self.intervals is None else self.intervals.far_sigma(row, target)
        return abs(size) / sigma if sigma > 0.0 else math.inf

    def standardised(self, least: Doubles) -> tuple[Floats, Floats, Doubles]:
        """Return residuals in standard deviations of their forecasts' intervals, what one is in the metric's unit, and their least scale.

        Each is divided by its own side. Without intervals they stay as they are.

        Args:
            least: float64 (4,), least standard deviation, in the metric's unit.

        Returns:
            float32 (W, 4), float32 (W, 4, 2) and float64 (4,).
        """
        if self.intervals is None:
            return self.residual, np.ones((*self.residual.shape, 2), np.float32), least
        sigma = np.fmax(self.intervals.next_row / np.float32(half_width(self.intervals.coverage)), least[:, None].astype(np.float32))
        side = np.where(self.residual < 0.0, sigma[..., 0], sigma[..., 1])
        return self.residual / side, sigma, np.full(len(least), SCALE_FLOOR_OF_INTERVAL)


class Report:
    """Makes messages from what detectors find in some rows.

    >>> rows = MonitoredRows(
    ...     watch=np.zeros(1, np.int32), numeric=np.zeros((1, 11), np.float32), residual=np.zeros((1, 4), np.float32),
    ...     codes=np.ones((1, 6), np.float32), time_s=np.array([600.0]), lag_s=np.zeros(1), offsets=np.array([7]),
    ...     describe=lambda row: ("eu", "a|b", "metro"),
    ... )
    >>> Report(rows, np.zeros(1), epoch=1).seen(np.array([60.0]))
    [LinkSeen(time_s=600.0, region='eu', link='a|b', interval_s=60.0, epoch=1)]

    Args:
        off_s: float64 (W,), see `faults`.
    """

    def __init__(self, rows: MonitoredRows, off_s: Doubles, epoch: int) -> None:
        self.rows, self._off_s, self._epoch = rows, off_s, epoch
        self._time_s = rows.time_s + off_s  # corrected: by a clock that is behind, every alarm would be too late to count

    def alarm(
        self, row: int, signal: int, aspect: Aspect, detector: str, direction: int, threshold: float, change: Sequence[float],
        small: bool = False,
    ) -> LinkAlarm:  # fmt: skip
        """Return an alarm.

        Args:
            direction: of the change, 1 or -1; that of the alarm is the opposite one if it is withdrawn.
            threshold: that was passed, or WITHDRAWN, as in cusum.ALARM.
            change: since_s (by the link's clock), size_sigma, size, shown, growth, interval_s, before (NaN: unknown).
            small: see `LinkAlarm`.
        """
        since_s, size_sigma, size, shown, growth, interval_s, before = change
        withdrawn = threshold == WITHDRAWN
        return LinkAlarm(
            float(self._time_s[row]), *self.rows.describe(row), signal, aspect, detector, -direction if withdrawn else direction,
            threshold == ALONE + 1.0, since_s + float(self._off_s[row]), size_sigma, size, shown, growth, interval_s,
            int(self.rows.offsets[row]), self._epoch, withdrawn, threshold == NOTICE + 1.0, small,
            before if math.isfinite(before) else None,
        )  # fmt: skip

    def fault(self, fault: Fault) -> LinkAlarm:
        change = fault.since_s, 0.0, fault.size, 1.0, 0.0, fault.interval_s, np.nan
        return self.alarm(fault.row, fault.signal, fault.aspect, "data", 1 if fault.begins else -1, ALONE + 1.0, change)

    def seen(self, interval_s: Doubles) -> list[LinkSeen]:
        """Return the reports that links are there. interval_s: float64 (W,), NaN for rows without a report."""
        found = np.flatnonzero(np.isfinite(interval_s)).tolist()
        return [LinkSeen(float(self._time_s[row]), *self.rows.describe(row)[:2], float(interval_s[row]), self._epoch) for row in found]
