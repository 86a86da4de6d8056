"""The link stage: the detectors of each monitored link. Its output is sparse: an alarm when a detector fires.

Detectors never see raw metrics, whose daily cycle would set them off, but their distance from forecasts of the live model, in units of
the forecast's own interval. The distance from the forecast of the next row (the residual) shows a change of the relation between rows:
sums that alarm within tens of rows are in cusum.py, and River's ADWIN sees the means of blocks of rows beside them, for changes that are
too small or too slow for the sums: half a standard deviation in some 700 rows. The distance from a forecast made an hour before shows a
change of the level, which the forecast of the next row follows within a few rows: level.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drift.link import fault_kernels, level
from drift.link.adwin import ADWIN, adwin_state, new_adwin, restored_adwin
from drift.link.cusum import (
    ALARM,
    ALONE,
    BLOCK_ROWS,
    CLIP_OF_INTERVALS,
    CLIP_SIGMA,
    DOWN,
    FIELDS,
    QUORUM,
    UP,
    WITHDRAWN,
    Records,
    detect,
)
from drift.link.faults import faults
from drift.link.rows import MonitoredRows, Report
from drift.link.sensitivity import Sensitivity
from drift.messages import SIGNALS, Aspect, LinkAlarm, LinkSeen
from features.telemetry import CATEGORIES, NUMERIC, TARGETS, Doubles, Flags, Floats

SCALE_FLOOR: Final = 0.02
"""Least scale of a residual, in the model's standard deviations of the target. Smaller changes are of no interest."""
LEAST_SHARE: Final = 1.0
"""Least shift of a residual that is reported, in standard deviations of what the metric does within an hour. A smaller one is the model's:
a bias at some hour of the day, on all links at once."""
ALONE_SHARE: Final = 3.0
ALONE_SIGMA: Final = 1.5
"""Least such shift by which one link is an incident if nothing else shows it; and least shift in its residuals' own deviations."""
SLOW_MIN_SIGMA: Final = 0.25
"""Least slow change that is reported, in standard deviations. If nothing else moves, ADWIN finds any step."""
RESTING_BLOCKS: Final = 180
"""Blocks for which ADWIN rests after it has fired: two days of minutes, in which the link's level follows the change. It would report
that movement as another change."""
RAMP: Final = 2.0
"""Growth that a slow change is reported with."""
_SLACK: Final = 0.5
"""Slack of the sums of block means, in their own deviations: an eighth of one of a row."""
_RESTING, _UP = 0, 1
"""Columns of the state of a slow change: blocks to rest, then value, blocks and start time (UTC seconds) of the sum up and the sum down."""
EARLY_START_ROWS: Final = 4.0
EARLY_BEFORE_ROWS: Final = 12.0
EARLY_SIZE: Final = 2.5
"""A wider spread is a level that has moved if the metric has been off one way since when the spread began, up to so many rows later or
earlier, by so many mean absolute residuals of before."""
MOST_SIGMA: Final = 100.0
"""Largest size of such a change, in standard deviations: the usual one may be next to nothing."""
_SUMS: Final[tuple[tuple[Aspect, str, int], ...]] = (("level", "cusum", 1), ("level", "cusum", -1), ("spread", "cusum_spread", 1))
"""Aspect, detector and direction of the sums UP, DOWN and WIDE."""
_ARRAYS: Final[dict[str, tuple[tuple[int, ...], float, type]]] = {
    "kept": ((len(TARGETS), FIELDS), 0.0, np.float64),
    "data": ((len(SIGNALS), fault_kernels.FIELDS), 0.0, np.float64),
    "slow": ((len(TARGETS), 7), 0.0, np.float64),
    "seen_s": ((), -np.inf, np.float64),
    "level": ((len(TARGETS), level.FIELDS), 0.0, np.float64),
    "anchors": ((level.ANCHORS, len(TARGETS), 3), np.nan, np.float32),
    "run_rows": ((), 0.0, np.float64),
}
"""Arrays of the state by their names in checkpoints: shape for each link, value of a link that is new, and type."""
_OF_MODEL: Final = ("kept", "slow", "seen_s")
"""Arrays that begin anew with another model. What its links show of their level stays: forecasts of both models are of the same hour."""


class LinkDrift:
    """Detectors of the monitored links of one partition, addressed by index (0, 1, ... in the order in which they were added).

    >>> residual = np.random.default_rng(1).normal(0.0, 1.0, (400, 4)).astype(np.float32)
    >>> residual[300:, 1] += 6.0  # RTT is 6 ms more than forecast from here on
    >>> numeric = np.full((400, len(NUMERIC)), np.nan, np.float32)
    >>> numeric[:, :4] = 50.0 + residual
    >>> rows = MonitoredRows(
    ...     watch=np.zeros(400, np.int32), numeric=numeric, residual=residual, codes=np.ones((400, 6), np.float32),
    ...     time_s=60.0 * np.arange(400), lag_s=np.zeros(400), offsets=np.arange(400), describe=lambda row: ("eu", "a|b", "metro"),
    ... )
    >>> alarms, seen = LinkDrift(epoch=1).update(rows, np.full(4, 0.01, np.float32))
    >>> [(SIGNALS[alarm.signal], alarm.confirmed, alarm.since_s, alarm.offset) for alarm in alarms]
    [('rtt_ms', False, 18000.0, 304), ('rtt_ms', True, 18000.0, 307)]
    """

    def __init__(self, epoch: int = 0, sensitivity: Sensitivity | None = None) -> None:
        """Start without links.

        Args:
            epoch: which model is live, counted from 1; 0 before the first.
        """
        self.epoch = epoch
        self.sensitivity = sensitivity or Sensitivity()
        self._horizon = 0  # of the forecasts in anchors, rows
        self._arrays: dict[str, NDArray[Any]] = {name: np.full((0, *shape), value, kind) for name, (shape, value, kind) in _ARRAYS.items()}
        self._adwin: list[list[ADWIN]] = []

    def __len__(self) -> int:
        return len(self._adwin)

    def restart(self, epoch: int) -> None:
        """Start all links anew, because another model went live: its residuals are others, and it knows other categories."""
        self.epoch = epoch
        for name in _OF_MODEL:
            self._arrays[name][:] = _ARRAYS[name][1]
        self._arrays["data"][:, len(NUMERIC) : len(NUMERIC) + len(CATEGORIES)] = 0.0
        self._adwin = [_adwins() for _ in self._adwin]

    def forget_far(self) -> None:
        """Drop forecasts that were made long before: rows come that nobody will compare with them. What levels are like stays."""
        if self._horizon:
            self._horizon = 0
            for name in ("anchors", "run_rows"):
                self._arrays[name][:] = _ARRAYS[name][1]
            level.break_off(self._arrays["level"])

    def renew(self, watch: Sequence[int]) -> None:
        """Start these links anew, as if they had just come."""
        for index in watch:
            if index < len(self):
                for name, (_, value, _) in _ARRAYS.items():
                    self._arrays[name][index] = value
                self._adwin[index] = _adwins()

    def keep(self, watch: Sequence[int]) -> None:
        """Keep only these links (ascending), which have the indices 0, 1, ... from now on."""
        stay = [index for index in watch if index < len(self)]
        self._arrays = {name: array[stay] for name, array in self._arrays.items()}
        self._adwin = [self._adwin[index] for index in stay]

    def make_room(self, links: int) -> None:
        """Add new links until there are this many."""
        if (more := links - len(self)) > 0:
            for name, (shape, value, kind) in _ARRAYS.items():
                self._arrays[name] = np.concatenate([self._arrays[name], np.full((more, *shape), value, kind)])
            self._adwin += [_adwins() for _ in range(more)]

    def update(self, rows: MonitoredRows, least_scale: Floats) -> tuple[list[LinkAlarm], list[LinkSeen]]:
        """Run all detectors over rows.

        A residual that is not finite never reaches a detector: one NaN would blind it for ever. Nor does one of a column with a fault.

        Args:
            least_scale: float32 (4,), lowest scale of a residual, in the metric's unit.
        """
        if not len(rows.watch):
            return [], []
        self.make_room(int(rows.watch.max()) + 1)
        found, held, off_s = faults(self._arrays["data"], rows.watch, rows.numeric, rows.codes, rows.time_s, rows.lag_s)
        held, least = held[:, : len(TARGETS)], least_scale.astype(np.float64)
        averages, off, standing = self._follow_levels(rows, held, least)
        residual, unit, least = rows.standardised(least)
        thresholds, clip = self.sensitivity.thresholds, CLIP_SIGMA
        if rows.intervals is not None:
            thresholds, clip = self.sensitivity.thresholds_of_intervals, CLIP_OF_INTERVALS
        sums, blocks, seen = detect(
            self._arrays["kept"], self._arrays["seen_s"], rows.watch, np.where(held, np.float32(np.nan), residual), unit,
            rows.numeric[:, : len(TARGETS)], rows.time_s, least, thresholds, clip,
        )  # fmt: skip
        for way, direction in ((UP, 1), (DOWN, -1)):  # the metric is still off, though its residual is not
            withdrawn = sums["threshold"][:, :, way]
            withdrawn[(withdrawn == WITHDRAWN) & (off == direction)] = 0.0
        report = Report(rows, off_s, self.epoch)
        alarms = [report.fault(fault) for fault in found]
        alarms += self._level_alarms(report, averages)
        alarms += self._alarms(report, sums, blocks, standing)
        return alarms, report.seen(seen)

    def _follow_levels(self, rows: MonitoredRows, held: Flags, least: Doubles) -> tuple[Records, NDArray[np.int8], Records]:
        """Compare rows with the forecasts that were made long before. See `level.follow`."""
        shape, intervals = rows.residual.shape, rows.intervals
        if intervals is None or intervals.horizon <= 1:
            self.forget_far()
            return np.zeros((*shape, 2), ALARM), np.zeros(shape, np.int8), np.zeros(shape, level.STANDING)
        if intervals.horizon != self._horizon:
            self.forget_far()
            self._horizon = intervals.horizon
        return level.follow(
            self._arrays["level"], self._arrays["anchors"], self._arrays["run_rows"], rows.watch, rows.numeric[:, : shape[1]], held,
            intervals.restarted, intervals.far, rows.time_s, intervals.interval_s, intervals.horizon, intervals.coverage, least,
            self.sensitivity.level_thresholds,
        )  # fmt: skip

    def _level_alarms(self, report: Report, averages: Records) -> Iterator[LinkAlarm]:
        """Yield the alarms of averages, in the order of rows and metrics."""
        for row, metric, way in np.argwhere(averages["threshold"] != 0.0).tolist():
            threshold, *change = averages[row, metric, way].item()
            small = WITHDRAWN < threshold < ALONE + 1.0 and abs(change[1]) < ALONE_SHARE
            yield report.alarm(row, metric, "level", "level", 1 if way == level.UP else -1, threshold, change, small)

    def _alarms(self, report: Report, sums: Records, blocks: Records, standing: Records) -> Iterator[LinkAlarm]:
        """Yield the alarms of ADWIN and of the sums, in the order of rows and metrics."""
        ended = np.isfinite(blocks["average"])
        where = np.nonzero(ended | (sums["threshold"] != 0.0).any(axis=2))
        rows, metrics = where
        columns: tuple[NDArray[Any], ...] = (
            rows, metrics, report.rows.watch[rows], report.rows.time_s[rows], blocks[where], ended[where], sums[where],
        )  # fmt: skip
        for row, metric, link, time_s, (mean, sigma, scale, interval_s), ends, of_sums in zip(*(c.tolist() for c in columns), strict=True):
            if ends and (shift := self._add_block(link, metric, mean, time_s - BLOCK_ROWS * interval_s)) is not None:
                since_s, sigmas = shift[0], shift[1] * sigma
                if abs(sigmas) >= SLOW_MIN_SIGMA:
                    change = since_s, sigmas, sigmas * scale, 1.0, RAMP, interval_s, math.nan
                    yield report.alarm(row, metric, "level", "adwin", 1 if sigmas > 0 else -1, QUORUM + 1.0, change)
            for (threshold, *change), (aspect, detector, way) in zip(of_sums, _SUMS, strict=True):
                if threshold > 0.0 and aspect == "spread" and (moved := _as_shift(standing[row, metric].item(), change)) is not None:
                    size = moved[2]
                    share = report.rows.share_of_far(row, metric, size)
                    moved[1] = math.copysign(min(share, MOST_SIGMA), size)
                    yield report.alarm(row, metric, "level", detector, 1 if size > 0.0 else -1, threshold, moved, share < ALONE_SHARE)
                elif threshold:
                    share = report.rows.share_of_far(row, metric, change[2]) if aspect == "level" and threshold != WITHDRAWN else math.inf
                    if share >= LEAST_SHARE or threshold == ALONE + 1.0:  # what is adopted has to be known
                        small = share < ALONE_SHARE or (share < math.inf and abs(change[1]) < ALONE_SIGMA)
                        yield report.alarm(row, metric, aspect, detector, way, threshold, change, small)
                    if threshold == ALONE + 1.0:
                        self._adwin[link][metric] = new_adwin()
                        self._arrays["slow"][link, metric, _UP:] = 0.0

    def _add_block(self, link: int, metric: int, mean: float, began_s: float) -> tuple[float, float] | None:
        """Add a block's mean. If ADWIN sees a change, return since when (UTC seconds), and by how much the mean moved.

        ADWIN itself reports neither: it only drops old values until the rest of its window is homogeneous. Two sums with a small slack do.
        """
        slow = self._arrays["slow"][link, metric]
        resting, up, up_blocks, up_since_s, down, down_blocks, down_since_s = slow.tolist()
        if resting > 0:
            slow[_RESTING] = resting - 1
            return None
        up, up_blocks, up_since_s = _summed(up, up_blocks, up_since_s, mean, began_s)
        down, down_blocks, down_since_s = _summed(down, down_blocks, down_since_s, -mean, began_s)
        slow[_UP:] = up, up_blocks, up_since_s, down, down_blocks, down_since_s
        adwin = self._adwin[link][metric]
        adwin.update(mean)
        if not adwin.drift_detected:
            return None
        sign, total, count, since_s = (1.0, up, up_blocks, up_since_s) if up >= down else (-1.0, down, down_blocks, down_since_s)
        if total == 0.0:  # it has gone back already
            return None
        self._adwin[link][metric] = new_adwin()
        slow[:] = 0.0
        slow[_RESTING] = RESTING_BLOCKS
        return since_s, sign * (total / count + _SLACK)

    def document(self) -> dict[str, Any]:
        """Return the part of the state that is plain numbers, lists and bytes."""
        adwin = [[adwin_state(detector) for detector in metrics] for metrics in self._adwin]
        return {"epoch": self.epoch, "horizon": self._horizon, "adwin": adwin}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the rest of the state, the arrays of _ARRAYS, as drift_kept, drift_data and so on."""
        return {f"drift_{name}": array.copy() for name, array in self._arrays.items()}

    @classmethod
    def restored(cls, document: dict[str, Any], arrays: dict[str, NDArray[Any]], sensitivity: Sensitivity | None = None) -> LinkDrift:
        """Return the detectors of a `document` and its `arrays`."""
        drift = cls(document["epoch"], sensitivity)
        drift._horizon = document["horizon"]
        drift._arrays = {name: np.ascontiguousarray(arrays[f"drift_{name}"]).copy() for name in _ARRAYS}
        drift._adwin = [[restored_adwin(state) for state in metrics] for metrics in document["adwin"]]
        return drift


def _as_shift(standing: Sequence[float], spread: Sequence[float]) -> list[float] | None:
    """Return a wider spread as the change of the level that it is, which is what a person sees; None if the level has not moved.

    The forecasts follow a level that moves, and miss it by ever other amounts. standing: level.STANDING. spread: see Report.alarm.
    """
    direction, since_s, change, before, shown = standing
    *_, interval_s, residual = spread
    at_once = -EARLY_BEFORE_ROWS * interval_s <= since_s - spread[0] <= EARLY_START_ROWS * interval_s
    if direction == 0.0 or not at_once or not abs(change) >= EARLY_SIZE * residual:
        return None
    return [since_s, 0.0, change, shown, 0.0, interval_s, before]


def _summed(total: float, count: float, since_s: float, mean: float, began_s: float) -> tuple[float, float, float]:
    """Return a sum of block means above their slack, the number of blocks in it, and the time since which it grows (Page 1954)."""
    grown = total + (mean - _SLACK)
    if grown <= 0.0:
        return 0.0, 0.0, 0.0
    return grown, count + 1.0, began_s if total == 0.0 else since_s


def _adwins() -> list[ADWIN]:
    return [new_adwin() for _ in TARGETS]
