"""Forecasts further ahead of the monitored links of one partition, from the row they were made at to the row that they were made for.

Each link has one forecast under way at each horizon. When the row comes that it was made for, it is compared with it, the calibration of
the link's region and type learns from it, and the next one sets out. All of this depends on the link's own rows and on the order of the
partition alone, so that a replay gives the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.telemetry import TARGETS, Doubles, Flags, Floats, Ints, Longs
from model.judge.calibration import ends, learn_outcome, stretch
from model.version.contract import LOWER, MEDIAN, UPPER
from model.version.possible import highest

GROUPS_MOST: Final = 1_000
"""Regions and link types with a calibration of their own. Further ones share the last."""
_PARTS: Final = 3
"""Of a forecast under way: lower, median and upper as they were given out."""
_COUNT, _COVERED, _ERROR = range(3)


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """What became of the forecasts that met their row, float64 (H, 4) each.

    Args:
        count: How many.
        covered: How many of them had the row between lower and upper, stretched.
        error: Sum of the absolute errors of the median, in the target's unit.
    """

    count: Doubles
    covered: Doubles
    error: Doubles


class Outlook:
    """The forecasts under way of W monitored links, and the calibrations of their intervals.

    >>> outlook = Outlook()
    >>> outlook.begin((1, 2), 0.9, links=1)
    >>> ahead = np.full((1, 2, 4, 4), [9.0, 10.0, 11.0, 10.0], np.float32)
    >>> def follow(time_s, value):
    ...     no, one = np.zeros(1, np.int64), np.full((1, 4), value, np.float32)
    ...     return outlook.follow(no, [("eu", "fibre")], np.array([time_s]), np.array([60.0]), np.zeros(1, bool), ahead, one)
    >>> follow(0.0, 10.0).count[:, 0].tolist(), follow(60.0, 12.0).count[:, 0].tolist(), follow(120.0, 10.5).covered[:, 0].tolist()
    ([0.0, 0.0], [1.0, 0.0], [1.0, 1.0])
    """

    def __init__(self) -> None:
        self.horizons: Longs = np.zeros(0, np.int64)
        self._miss = 0.05
        self._due_s, self._tolerance_s = np.zeros((0, 0)), np.zeros((0, 0))
        self._under_way: Floats = np.zeros((0, 0, len(TARGETS), _PARTS), np.float32)
        self._groups: dict[tuple[str, str], int] = {}
        self._log_stretch: Doubles = np.zeros((0, 0, len(TARGETS), 2))

    def begin(self, horizons: Sequence[int], coverage: float | None, links: int) -> None:
        """Begin with a version: no forecast is under way, and intervals are as the version has them.

        Args:
            horizons: H numbers of rows; none: the version forecasts only the next row.
            coverage: Of the version's intervals.
            links: W.
        """
        self.horizons, self._miss = np.array(horizons, np.int64), 0.5 * (1.0 - (coverage or 0.9))
        self._due_s = self._tolerance_s = np.zeros((0, len(self.horizons)))
        self._under_way = np.zeros((0, len(self.horizons), len(TARGETS), _PARTS), np.float32)
        self._groups, self._log_stretch = {}, np.zeros((0, len(self.horizons), len(TARGETS), 2))
        self.extend(links)

    def extend(self, links: int) -> None:
        """Make room for more links at the end."""
        none = np.full((links, len(self.horizons)), np.nan)
        self._due_s, self._tolerance_s = (np.concatenate([times, none]) for times in (self._due_s, self._tolerance_s))
        empty = np.full((links, *self._under_way.shape[1:]), np.nan, np.float32)
        self._under_way = np.concatenate([self._under_way, empty])

    def select(self, index: Ints) -> None:
        """Keep only the links of these watch indices."""
        self._due_s, self._tolerance_s, self._under_way = self._due_s[index], self._tolerance_s[index], self._under_way[index]

    def forget(self, index: Ints | slice = slice(None)) -> None:
        """Drop the forecasts under way of some links; by default of all."""
        self._due_s[index] = np.nan

    def follow(
        self,
        index: Longs,
        groups: Sequence[tuple[str, str]],
        time_s: Doubles,
        interval_s: Doubles,
        restarted: Flags,
        ahead: Floats,
        actual: Floats,
    ) -> Outcomes:
        """Compare rows with the forecasts that were made for them, and let the next forecasts set out.

        Args:
            index: int64 (R,), watch index of each row's link.
            groups: R regions and link types.
            time_s: float64 (R,), UTC seconds.
            interval_s: float64 (R,), the link's sampling interval, seconds, NaN if not known.
            restarted: bool (R,), whether a gap lies before the row.
            ahead: float32 (R, H, 4, 4), NaN where nothing was forecast.
            actual: float32 (R, 4), NaN if not measured.
        """
        sums = np.zeros((3, len(self.horizons), len(TARGETS)))
        of = np.array([self._group(each) for each in groups], np.int64)
        _follow(
            index, of, time_s, interval_s, restarted, ahead, actual, self.horizons, self._miss,
            self._due_s, self._tolerance_s, self._under_way, self._log_stretch, sums,
        )  # fmt: skip
        return Outcomes(sums[_COUNT], sums[_COVERED], sums[_ERROR])

    def stretched(self, groups: Sequence[tuple[str, str]], ahead: Floats) -> Floats:
        """Return forecasts with their intervals as they are kept calibrated by now, float32 (R, H, 4, 4).

        Args:
            groups: R regions and link types.
            ahead: float32 (R, H, 4, 4), as the version forecasts.
        """
        found = ahead.copy()
        stretch(self._log_stretch, np.array([self._group(each) for each in groups], np.int64), highest(), found)
        return found

    def state(self) -> dict[str, Any]:
        """Return everything but the arrays, as plain values."""
        return {
            "outlook_horizons": self.horizons.tolist(),
            "outlook_miss": self._miss,
            "outlook_groups": [list(each) for each in self._groups],
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the forecasts under way and the stretches."""
        return {
            "outlook_due_s": self._due_s.copy(),
            "outlook_tolerance_s": self._tolerance_s.copy(),
            "outlook_under_way": self._under_way.copy(),
            "outlook_log_stretch": self._log_stretch.copy(),
        }

    @classmethod
    def restored(cls, state: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Outlook:
        """Return what `state` and `arrays` were made from."""
        outlook = cls()
        outlook.horizons, outlook._miss = np.array(state["outlook_horizons"], np.int64), state["outlook_miss"]
        outlook._groups = {(region, kind): number for number, (region, kind) in enumerate(state["outlook_groups"])}
        outlook._due_s, outlook._tolerance_s = arrays["outlook_due_s"], arrays["outlook_tolerance_s"]
        outlook._under_way, outlook._log_stretch = arrays["outlook_under_way"], arrays["outlook_log_stretch"]
        return outlook

    def _group(self, name: tuple[str, str]) -> int:
        if name not in self._groups:
            if len(self._groups) >= GROUPS_MOST:
                return GROUPS_MOST - 1
            self._groups[name] = len(self._groups)
            self._log_stretch = np.concatenate([self._log_stretch, np.zeros((1, *self._log_stretch.shape[1:]))])
        return self._groups[name]


@compiled
def _follow(
    index: Longs, group: Longs, time_s: Doubles, interval_s: Doubles, restarted: Flags, ahead: Floats, actual: Floats, horizons: Longs,
    miss: float, due_s: Doubles, tolerance_s: Doubles, under_way: Floats, log_stretch: Doubles, sums: Doubles,
) -> None:  # fmt: skip
    """See Outlook.follow. due_s, tolerance_s, under_way and log_stretch are changed in place; sums (3, H, 4) are added up."""
    for row in range(len(index)):
        link = index[row]
        for horizon in range(len(horizons)):
            stretches = log_stretch[group[row], horizon]
            if restarted[row]:
                due_s[link, horizon] = math.nan
            late_s = time_s[row] - due_s[link, horizon]  # NaN if nothing is under way
            if late_s >= -tolerance_s[link, horizon]:
                due_s[link, horizon] = math.nan
                if late_s <= tolerance_s[link, horizon]:
                    for target in range(actual.shape[1]):
                        value = float(actual[row, target])
                        lower, median, upper = under_way[link, horizon, target]
                        if value == value and median == median:
                            sums[_COUNT, horizon, target] += 1.0
                            sums[_COVERED, horizon, target] += 1.0 if lower <= value <= upper else 0.0
                            sums[_ERROR, horizon, target] += abs(value - median)
                            learn_outcome(stretches[target], lower, upper, value, miss)
            if due_s[link, horizon] != due_s[link, horizon] and interval_s[row] > 0.0:
                found = False
                for target in range(actual.shape[1]):
                    lower, median, upper = ahead[row, horizon, target, :_PARTS]
                    found = found or median == median
                    held = under_way[link, horizon, target]
                    held[LOWER], held[UPPER] = ends(stretches[target], lower, median, upper)
                    held[MEDIAN] = median
                if found:
                    due_s[link, horizon] = time_s[row] + horizons[horizon] * interval_s[row]
                    tolerance_s[link, horizon] = 0.5 * interval_s[row]
