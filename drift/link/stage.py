"""The link stage: what the residuals of each watched link say, sparse: an alarm when one of its detectors fires.

Detectors never see raw metrics, whose daily cycle would set them off, but the one-step residual of the live model, standardised by the
link's own residuals. Sums that alarm within tens of rows are in cusum.py. River's ADWIN sees the means of blocks of rows beside them,
for changes that are too small or too slow for the sums: half a standard deviation in some 700 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drift.link import faults as data_faults
from drift.link.adwin import ADWIN
from drift.link.cusum import BLOCK_ROWS, FIELDS, judge
from drift.link.faults import faults
from drift.link.sensitivity import Sensitivity
from drift.messages import SIGNALS, Aspect, LinkAlarm, LinkSeen
from features.telemetry import CATEGORIES, NUMERIC, TARGETS, Doubles, Flags, Floats, Ints, Longs

SCALE_FLOOR: Final = 0.02
"""Least scale of a residual, in the model's standard deviations of the target: less than that is of no interest to anybody."""
ADWIN_DELTA: Final = 1e-5
"""Measured: .5 standard deviations found on 89 % of links after 715 rows (median), and no alarm in 14 million rows of noise with leftover
cycles; at 1e-3 a quieter weekend is a change."""
SLOW_MIN_SIGMA: Final = 0.25
"""Where nothing else moves ADWIN finds any step; a smaller one is of no interest to anybody."""
RESTING_BLOCKS: Final = 180
"""Two days of minutes, in which the link's level follows a change that ADWIN has told; until then it would see the way there as another."""
ARRAYS: Final = ("kept", "data", "slow", "seen_s")
"""Of the state."""
RAMP: Final = 2.0
"""Growth that a slow change is told with."""
_RESTING, _UP = 0, 1
_SLOW_FIELDS: Final = 7
_SLACK: Final = 0.5
"""Of the sums of block means, in their own deviations: an eighth of one of a row."""
_DETECTORS: Final = ("cusum", "cusum", "cusum_spread")
_DIRECTIONS: Final = (1, -1, 1)
_OVER: Final = 2
"""Of what `judge` gives for a sum."""
_ASPECTS: Final[tuple[Aspect, ...]] = ("level", "level", "spread")

Describe = Callable[[int], tuple[str, str, str]]
"""Region, link and link type of a row."""


@dataclass(frozen=True, slots=True)
class WatchedRows:
    """W rows of watched links, in stream order.

    watch: int32 (W,), watch indices. numeric: float32 (W, 11), the columns NUMERIC, NaN where not measured. residual: float32 (W, 4), of
    the first of them, measured minus forecast, NaN where either is missing. codes: float32 (W, 6), of the categories as the model has them,
    0 where it does not know one, NaN where there is none. time_s: float64 (W,). lag_s: float64 (W,), by how much the newest row of the
    partition so far is newer. offsets: int64 (W,).
    """

    watch: Ints
    numeric: Floats
    residual: Floats
    codes: Floats
    time_s: Doubles
    lag_s: Doubles
    offsets: Longs
    describe: Describe


class LinkDrift:
    """Detectors of the watched links of one partition, addressed by watch index (0, 1, ... in the order in which they were added)."""

    def __init__(self, epoch: int = 0, sensitivity: Sensitivity | None = None) -> None:
        """epoch: which model is live, counted up from 1; 0 before the first."""
        self.epoch = epoch
        self.sensitivity = sensitivity or Sensitivity()
        self._kept: Doubles = np.zeros((0, len(TARGETS), FIELDS))
        self._data: Doubles = np.zeros((0, len(SIGNALS), data_faults.FIELDS))
        self._slow: Doubles = np.zeros((0, len(TARGETS), _SLOW_FIELDS))
        self._seen_s: Doubles = np.full(0, -np.inf)
        self._adwin: list[list[ADWIN]] = []

    def __len__(self) -> int:
        return len(self._adwin)

    def restart(self, epoch: int) -> None:
        """Another model went live: its residuals are others, and it knows other categories, so every link calibrates anew."""
        self.epoch = epoch
        self._kept[:], self._slow[:] = 0.0, 0.0
        self._data[:, len(NUMERIC) : len(NUMERIC) + len(CATEGORIES)] = 0.0
        self._seen_s[:] = -np.inf
        self._adwin = [_adwins() for _ in self._adwin]

    def renew(self, watch: Sequence[int]) -> None:
        """These watch indices calibrate anew, as links that have just come."""
        for at in watch:
            if at < len(self):
                self._kept[at], self._data[at], self._slow[at], self._seen_s[at] = 0.0, 0.0, 0.0, -np.inf
                self._adwin[at] = _adwins()

    def keep(self, watch: Sequence[int]) -> None:
        """Only these watch indices stay (ascending), and are 0, 1, ... from now on."""
        stay = [at for at in watch if at < len(self)]
        self._kept, self._data = self._kept[stay], self._data[stay]
        self._slow, self._seen_s = self._slow[stay], self._seen_s[stay]
        self._adwin = [self._adwin[at] for at in stay]

    def update(self, rows: WatchedRows, least_scale: Floats) -> tuple[list[LinkAlarm], list[LinkSeen]]:
        """Takes rows. least_scale: float32 (4,), lowest scale of a residual, in the metric's unit.

        A residual that is not finite never reaches a detector: one NaN would blind it for ever. Nor does one of a column with a fault.
        """
        watch, time_s, offsets, describe = rows.watch, rows.time_s, rows.offsets, rows.describe
        if not len(watch):
            return [], []
        self.make_room(int(watch.max()) + 1)
        found_faults, held, off_s = faults(self._data, watch, rows.numeric, rows.codes, time_s, rows.lag_s)
        metrics = len(TARGETS)
        residual = np.where(held[:, :metrics], np.float32(np.nan), rows.residual)
        passed, found, blocks, seen = judge(
            self._kept, self._seen_s, watch, residual, rows.numeric[:, :metrics], time_s, least_scale.astype(np.float64),
            self.sensitivity.thresholds,
        )  # fmt: skip
        alarms: list[LinkAlarm] = []
        told_s = time_s + off_s  # by a clock that is known to be behind everything would be told too late to count

        def alarm(
            row: int, metric: int, aspect: Aspect, detector: str, direction: int, certain: bool, told: Sequence[float], over: bool = False
        ) -> None:
            region, link, link_type = describe(row)
            since_s, size_sigma, size, shown, growth, interval_s = told
            alarms.append(
                LinkAlarm(
                    float(told_s[row]), region, link, link_type, metric, aspect, detector, direction, certain, since_s + float(off_s[row]),
                    size_sigma, size, shown, growth, interval_s, int(offsets[row]), self.epoch, over,
                )
            )  # fmt: skip

        for fault in found_faults:
            direction, told = 1 if fault.begins else -1, (fault.since_s, 0.0, fault.size, 1.0, 0.0, fault.interval_s)
            alarm(fault.row, fault.signal, fault.aspect, "data", direction, True, told)
        ends: Flags = np.isfinite(blocks[:, :, 0])
        fired: Flags = np.asarray(passed.any(axis=2))
        at_row, at_metric = np.nonzero(ends | fired)
        of_blocks = zip(
            at_row.tolist(), at_metric.tolist(), watch[at_row].tolist(), time_s[at_row].tolist(), blocks[at_row, at_metric].tolist(),
            ends[at_row, at_metric].tolist(), fired[at_row, at_metric].tolist(), strict=True,
        )  # fmt: skip
        for row, metric, link, at_s, (mean, sigma, scale, interval_s), ended, alarmed in of_blocks:
            if ended and (shift := self._block(link, metric, mean, at_s - BLOCK_ROWS * interval_s)) is not None:
                since_s, moved = shift[0], shift[1] * sigma
                if abs(moved) >= SLOW_MIN_SIGMA:
                    slowly = (since_s, moved, moved * scale, 1.0, RAMP, interval_s)
                    alarm(row, metric, "level", "adwin", 1 if moved > 0 else -1, False, slowly)
            if not alarmed:
                continue
            for at, what in enumerate(passed[row, metric].tolist()):
                if not what:
                    continue
                over, (level, *told) = what == _OVER, found[row, metric, at].tolist()
                alarm(row, metric, _ASPECTS[at], _DETECTORS[at], -_DIRECTIONS[at] if over else _DIRECTIONS[at], level == 2.0, told, over)
                if level == 2.0:
                    self._adwin[link][metric] = _adwin()
                    self._slow[link, metric, _UP:] = 0.0
        return alarms, self._seen(seen, told_s, describe)

    def _block(self, link: int, metric: int, mean: float, began_s: float) -> tuple[float, float] | None:
        """Takes a block's mean. Where ADWIN sees a change: since when, and by how much the mean moved.

        ADWIN drops the oldest of its window until the rest agrees with itself, which says neither: two sums with a small slack beside it
        do.
        """
        slow = self._slow[link, metric]
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
        self._adwin[link][metric] = _adwin()
        slow[:] = 0.0
        slow[_RESTING] = RESTING_BLOCKS
        return since_s, sign * (total / count + _SLACK)

    def _seen(self, seen: Doubles, time_s: Doubles, describe: Describe) -> list[LinkSeen]:
        told = []
        for row in np.flatnonzero(np.isfinite(seen)).tolist():
            region, link, _ = describe(row)
            told.append(LinkSeen(float(time_s[row]), region, link, float(seen[row]), self.epoch))
        return told

    def make_room(self, links: int) -> None:
        """For so many links; new ones know nothing yet."""
        if (more := links - len(self)) > 0:
            self._kept = np.concatenate([self._kept, np.zeros((more, len(TARGETS), FIELDS))])
            self._data = np.concatenate([self._data, np.zeros((more, *self._data.shape[1:]))])
            self._slow = np.concatenate([self._slow, np.zeros((more, len(TARGETS), _SLOW_FIELDS))])
            self._seen_s = np.concatenate([self._seen_s, np.full(more, -np.inf)])
            self._adwin += [_adwins() for _ in range(more)]

    def document(self) -> dict[str, Any]:
        """The part of the state that is plain numbers, lists and bytes."""
        return {"epoch": self.epoch, "adwin": [[adwin_state(one) for one in metrics] for metrics in self._adwin]}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The rest of it, float64: drift_kept (L, 4, cusum.FIELDS), drift_data (L, S, data_faults.FIELDS), drift_slow (L, 4, 7) and
        drift_seen_s (L,)."""
        return {f"drift_{name}": getattr(self, f"_{name}").copy() for name in ARRAYS}

    @classmethod
    def restored(cls, document: dict[str, Any], arrays: dict[str, NDArray[Any]], sensitivity: Sensitivity | None = None) -> LinkDrift:
        """What `document` and `arrays` were taken from."""
        drift = cls(document["epoch"], sensitivity)
        for name in ARRAYS:
            setattr(drift, f"_{name}", arrays[f"drift_{name}"].copy())
        drift._adwin = [[restored_adwin(one) for one in metrics] for metrics in document["adwin"]]
        return drift


def _summed(total: float, count: float, since_s: float, mean: float, began_s: float) -> tuple[float, float, float]:
    """A sum of block means above their slack, the number of them, and since when it grows."""
    grown = total + (mean - _SLACK)
    if grown <= 0.0:
        return 0.0, 0.0, 0.0
    return grown, count + 1.0, began_s if total == 0.0 else since_s


def _adwin() -> ADWIN:
    return ADWIN(delta=ADWIN_DELTA, clock=1, grace_period=5)


def _adwins() -> list[ADWIN]:
    return [_adwin() for _ in TARGETS]


def adwin_state(detector: ADWIN) -> list[Any] | None:
    """River keeps an ADWIN's window in compiled code, which gives and takes it as bytes of a fixed layout: data, not a pickle.

    None where it is empty.
    """
    if detector.width == 0:
        return None
    return [bool(detector.drift_detected), bytes(detector._helper.__getstate__())]


def restored_adwin(state: list[Any] | None) -> ADWIN:
    """The detector that `adwin_state` was taken from. The bytes must come from a file whose checksum was verified."""
    detector = _adwin()
    if state is not None:
        detector._drift_detected = state[0]
        detector._helper.__setstate__(state[1])
    return detector
