"""Forecasts of the monitored links of one partition, from the row they were made at to the row that they were made for.

Each link has one forecast under way at each horizon. When the row comes that it was made for, it is compared with it, the calibration of
the link's region and type and the mixture of the link learn from it, and the next one sets out. All of this depends on the link's own rows
and on the order of the partition alone, so that a replay gives the same.
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
from model.judge.behind import BEHIND_ROWS, Behind, behind, judge, no_periods
from model.judge.calibration import ABOVE, BELOW, ends, learn_outcome, stretch
from model.judge.mixture import VERSION, learn_own, learn_weights, mixed, no_simple, no_weights, own_stretch, trusting, weights_of
from model.version.contract import LOWER, MEDIAN, UPPER
from model.version.possible import highest

GROUPS_MOST: Final = 1_000
"""Regions and link types with a calibration of their own. Further ones share the last."""
_PARTS: Final = 3
"""Of a forecast under way: lower, median and upper as they were given out."""
_COUNT, _COVERED, _ERROR, _MIXED_COVERED, _MIXED_ERROR = range(5)


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """What became of the forecasts that met their row, float64 (H, 4) each, and what is published now.

    Args:
        count: How many.
        covered: How many of the version's had the row between lower and upper, stretched.
        error: Sum of the absolute errors of the version's median, in the target's unit.
        mixed_covered, mixed_error: The same of the mixtures.
        published: float32 (R, H, 4, 3), lower, median and upper of the mixture at each row, NaN where nothing is forecast.
    """

    count: Doubles
    covered: Doubles
    error: Doubles
    mixed_covered: Doubles
    mixed_error: Doubles
    published: Floats


class Outlook:
    """The forecasts under way of W monitored links, and the calibrations of their intervals.

    >>> outlook = Outlook()
    >>> outlook.begin((1, 2), 0.9, links=1)
    >>> ahead = np.full((1, 2, 4, 4), [9.0, 10.0, 11.0, 10.0], np.float32)
    >>> simple, spread = np.full((1, 2, 4, 4), 12.0, np.float32), np.ones((1, 4), np.float32)
    >>> def follow(time_s, value):
    ...     no, one = np.zeros(1, np.int64), np.full((1, 4), value, np.float32)
    ...     times, false = (np.array([time_s]), np.array([60.0])), np.zeros(1, bool)
    ...     return outlook.follow(no, [("eu", "fibre")], *times, false, ahead, one, simple, spread)
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
        self._simple = no_simple(0, 0)  # under way, beside the version's
        self._weights = no_weights(0, 0)
        self._own: Any = np.zeros((0, 0, len(TARGETS), 2), np.int16)
        self._judged: Doubles = no_periods(0)

    def begin(self, horizons: Sequence[int], coverage: float | None, links: int) -> None:
        """Begin with a version: no forecast is under way, and intervals are as the version has them.

        What links have learnt of the simple forecasts stays, if the horizons are the same.

        Args:
            horizons: H numbers of rows; none: the version forecasts only the next row.
            coverage: Of the version's intervals.
            links: W.
        """
        weights = trusting(self._weights) if self.horizons.tolist() == list(horizons) and len(self._weights) == links else None
        self.horizons, self._miss = np.array(horizons, np.int64), 0.5 * (1.0 - (coverage or 0.9))
        self._due_s = self._tolerance_s = np.zeros((0, len(self.horizons)))
        self._under_way = np.zeros((0, len(self.horizons), len(TARGETS), _PARTS), np.float32)
        self._groups, self._log_stretch = {}, np.zeros((0, len(self.horizons), len(TARGETS), 2))
        self._judged = no_periods(0)
        self._simple = no_simple(0, len(self.horizons))
        self._weights, self._own = no_weights(0, len(self.horizons)), np.zeros((0, len(self.horizons), len(TARGETS), 2), np.int16)
        self.extend(links)
        if weights is not None:
            self._weights = weights

    def extend(self, links: int) -> None:
        """Make room for more links at the end."""
        none = np.full((links, len(self.horizons)), np.nan)
        self._due_s, self._tolerance_s = (np.concatenate([times, none]) for times in (self._due_s, self._tolerance_s))
        empty = np.full((links, *self._under_way.shape[1:]), np.nan, np.float32)
        self._under_way = np.concatenate([self._under_way, empty])
        self._simple = np.concatenate([self._simple, no_simple(links, len(self.horizons))])
        self._weights = np.concatenate([self._weights, no_weights(links, len(self.horizons))])
        self._own = np.concatenate([self._own, np.zeros((links, *self._own.shape[1:]), np.int16)])

    def select(self, index: Ints) -> None:
        """Keep only the links of these watch indices."""
        self._due_s, self._tolerance_s, self._under_way = self._due_s[index], self._tolerance_s[index], self._under_way[index]
        self._simple, self._weights, self._own = self._simple[index], self._weights[index], self._own[index]

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
        simple: Floats,
        spread: Floats,
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
            simple: float32 (R, H, 4, 4), see mixture.simple_forecasts.
            spread: float32 (R, 4), the usual deviation of each target of the link from its average, NaN if not known.
        """
        sums = np.zeros((5, len(self.horizons), len(TARGETS)))
        published = np.full((len(index), len(self.horizons), len(TARGETS), _PARTS), np.nan, np.float32)
        of = np.array([self._group(each) for each in groups], np.int64)
        _follow(
            index, of, time_s, interval_s, restarted, ahead, actual, simple, spread, self.horizons, self._miss, highest(),
            self._due_s, self._tolerance_s, self._under_way, self._log_stretch, self._simple, self._weights, self._own, self._judged,
            sums, published,
        )  # fmt: skip
        return Outcomes(sums[_COUNT], sums[_COVERED], sums[_ERROR], sums[_MIXED_COVERED], sums[_MIXED_ERROR], published)

    def trust(self) -> Floats:
        """Return how much the version is trusted, float32 (W, H, 4): its weight in each mixture, NaN if no outcome has taught anything."""
        trust = weights_of(self._weights)[..., VERSION].astype(np.float32)
        trust[(self._weights == no_weights(1, 1)).all(axis=-1)] = np.nan
        return trust

    def stretched(self, groups: Sequence[tuple[str, str]], ahead: Floats) -> Floats:
        """Return forecasts with their intervals as they are kept calibrated by now, float32 (R, H, 4, 4).

        Args:
            groups: R regions and link types.
            ahead: float32 (R, H, 4, 4), as the version forecasts.
        """
        found, of = ahead.copy(), np.array([self._group(each) for each in groups], np.int64)  # a new group makes the stretches longer
        stretch(self._log_stretch, of, highest(), found)
        return found

    def behind(self) -> list[Behind]:
        """Return where the version has been worse than what is published, beyond chance and for long."""
        return behind(self._judged, list(self._groups))

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
            "outlook_simple": self._simple.copy(),
            "outlook_weights": self._weights.copy(),
            "outlook_own": self._own.copy(),
            "outlook_judged": self._judged.copy(),
        }

    @staticmethod
    def empty_mixture(links: int, horizons: int, groups: int) -> dict[str, NDArray[Any]]:
        """Return the arrays of mixtures that have learnt nothing, as `arrays` has them."""
        return {
            "outlook_simple": no_simple(links, horizons),
            "outlook_weights": no_weights(links, horizons),
            "outlook_own": np.zeros((links, horizons, len(TARGETS), 2), np.int16),
            "outlook_judged": no_periods(groups),
        }

    @classmethod
    def restored(cls, state: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Outlook:
        """Return what `state` and `arrays` were made from."""
        outlook = cls()
        outlook.horizons, outlook._miss = np.array(state["outlook_horizons"], np.int64), state["outlook_miss"]
        outlook._groups = {(region, kind): number for number, (region, kind) in enumerate(state["outlook_groups"])}
        outlook._due_s, outlook._tolerance_s = arrays["outlook_due_s"], arrays["outlook_tolerance_s"]
        outlook._under_way, outlook._log_stretch = arrays["outlook_under_way"], arrays["outlook_log_stretch"]
        outlook._simple, outlook._weights, outlook._own = (arrays[f"outlook_{name}"] for name in ("simple", "weights", "own"))
        outlook._judged = arrays["outlook_judged"]
        return outlook

    def _group(self, name: tuple[str, str]) -> int:
        if name not in self._groups:
            if len(self._groups) >= GROUPS_MOST:
                return GROUPS_MOST - 1
            self._groups[name] = len(self._groups)
            self._log_stretch = np.concatenate([self._log_stretch, np.zeros((1, *self._log_stretch.shape[1:]))])
            self._judged = np.concatenate([self._judged, no_periods(1)])
        return self._groups[name]


@compiled
def _follow(
    index: Longs, group: Longs, time_s: Doubles, interval_s: Doubles, restarted: Flags, ahead: Floats, actual: Floats, simple: Floats,
    spread: Floats, horizons: Longs, miss: float, highest: Floats, due_s: Doubles, tolerance_s: Doubles, under_way: Floats,
    log_stretch: Doubles, simple_under_way: Floats, weights: Any, own: Any, judged: Doubles, sums: Doubles,
    published: Floats,
) -> None:  # fmt: skip
    """See Outlook.follow. The state, from due_s to judged, is changed in place; sums (5, H, 4) are added up, and published is filled."""
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
                        value, held = float(actual[row, target]), under_way[link, horizon, target]
                        if value == value and held[MEDIAN] == held[MEDIAN]:
                            sums[_COUNT, horizon, target] += 1.0
                            sums[_COVERED, horizon, target] += 1.0 if held[LOWER] <= value <= held[UPPER] else 0.0
                            sums[_ERROR, horizon, target] += abs(value - held[MEDIAN])
                            learn_outcome(stretches[target], held[LOWER], held[UPPER], value, miss)
                            others, kept = simple_under_way[link, horizon, target], weights[link, horizon, target]
                            stretch_of = own[link, horizon, target]
                            lower, median, upper = _around(stretch_of, mixed(kept, held[MEDIAN], others), held)
                            sums[_MIXED_COVERED, horizon, target] += 1.0 if lower <= value <= upper else 0.0
                            sums[_MIXED_ERROR, horizon, target] += abs(value - median)
                            learn_own(stretch_of, BELOW, value < lower, miss)
                            learn_own(stretch_of, ABOVE, value > upper, miss)
                            learn_weights(kept, held[MEDIAN], others, value, spread[row, target])
                            least_s = time_s[row] - BEHIND_ROWS * interval_s[row]
                            judge(judged[group[row], target], value, held[MEDIAN], median, spread[row, target], time_s[row], least_s)
            begins = due_s[link, horizon] != due_s[link, horizon] and interval_s[row] > 0.0
            found = False
            for target in range(actual.shape[1]):
                places = ahead[row, horizon, target]
                made = published[row, horizon, target]
                made[LOWER], made[UPPER] = ends(stretches[target], places[LOWER], places[MEDIAN], places[UPPER])
                made[MEDIAN] = places[MEDIAN]
                if begins:
                    found = found or places[MEDIAN] == places[MEDIAN]
                    under_way[link, horizon, target] = made
                    simple_under_way[link, horizon, target] = simple[row, horizon, target]
                if places[MEDIAN] == places[MEDIAN]:
                    median = mixed(weights[link, horizon, target], places[MEDIAN], simple[row, horizon, target])
                    made[LOWER], made[MEDIAN], made[UPPER] = _around(own[link, horizon, target], median, made)
                    made[UPPER] = min(made[UPPER], highest[target])
            if begins and found:
                due_s[link, horizon] = time_s[row] + horizons[horizon] * interval_s[row]
                tolerance_s[link, horizon] = 0.5 * interval_s[row]


@compiled
def _around(own: Any, median: float, version: Floats) -> tuple[float, float, float]:
    """Return lower, median and upper of a mixture, with the sides of the version's interval stretched. version: (3,). own: (2,)."""
    below = own_stretch(float(own[BELOW])) * (version[MEDIAN] - version[LOWER])
    above = own_stretch(float(own[ABOVE])) * (version[UPPER] - version[MEDIAN])
    return max(median - below, 0.0), median, median + above
