"""Scores of forecasts beside those of their rivals: one pair of target and horizon of a recording at a time."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from features.telemetry import TARGETS
from model.judge import horizons
from model.judge.metrics import block_bootstrap_difference
from model.spec.architecture import COVERAGE
from parts.rivals_task import LEAST_WINDOWS, TEST, TRAIN

SIMPLE: Final = ("persistence", "ewma", "rolling_median", "day_before", "ridge", "least_absolute", "statistical")
"""Rivals that no forecast may be worse than."""
TREES: Final = "lightgbm"
NEURAL: Final = "nhits"
RIVALS: Final = (*SIMPLE, TREES, NEURAL)
DENSE: Final = 0.9
"""Share of a pair's windows that a rival must forecast to be compared with others. One that forecasts fewer is compared with by itself."""
SPARSE_LEAST: Final = 50
"""Fewest windows of such a comparison."""
BLOCKS: Final = 32
RESAMPLES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Pair:
    """One target of one recording at one horizon, on the test part.

    Errors are mean absolute ones in the target's unit; the network's is the mean of its seeds. Where there is no forecast, or no rival's,
    a figure is None.

    Args:
        windows: How many windows measure the target.
        network: Error over the windows that the network forecasts.
        network_sd: Its standard deviation over the seeds.
        scale: The mean absolute change of the target from row to row in the training part.
        errors: Of each rival, over the windows that it and the network forecast; its own windows if there is no network's forecast.
        ratios: The network's error over each rival's, on the same windows.
        best: The simple rival of least error on the windows that all dense ones forecast.
        change: The network's error less that rival's, and the ends of its 95 % interval (block bootstrap).
        worse_than: Simple rivals that the network is worse than beyond the interval: the best one, or a sparse one.
        correlation: Of the mean forecast, where there is one; mean over the seeds.
        coverage: Share of the values within the network's intervals.
        interval_score: Mean of the network's (Winkler 1972).
        interval_ratio: The network's over LightGBM's quantiles', on the same windows.
        over_linear: The network's error over that of its linear path alone.
    """

    recording: str
    target: str
    horizon: int
    windows: int
    network: float | None
    network_sd: float
    scale: float | None
    errors: Mapping[str, float]
    ratios: Mapping[str, float]
    best: str | None
    change: tuple[float, float, float] | None
    worse_than: tuple[str, ...]
    correlation: float | None
    correlation_sd: float
    coverage: float | None
    interval_score: float | None
    interval_ratio: float | None
    over_linear: float | None

    @property
    def scaled(self) -> float | None:
        """The network's error in changes from row to row."""
        return None if self.network is None or not self.scale else self.network / self.scale

    @property
    def not_worse(self) -> bool:
        return self.change is not None and not self.worse_than

    @property
    def better(self) -> bool:
        return self.change is not None and self.change[0] < 0

    def row(self) -> dict[str, Any]:
        """Return a row of the table. skill: 1 - network / best simple rival, in percent, and its interval."""
        skill = "-"
        if self.change is not None and self.best is not None and self.errors[self.best] > 0:
            low, middle, high = (-100 * value / self.errors[self.best] for value in (self.change[2], self.change[0], self.change[1]))
            skill = f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"
        return {
            "recording": self.recording,
            "target": self.target,
            "rows ahead": self.horizon,
            "windows": self.windows,
            "network": self.network,
            "± seeds": self.network_sd,
            "scaled": self.scaled,
            **{name: self.errors.get(name) for name in RIVALS},
            "skill over the best simple one": skill,
            "correlation": self.correlation,
            "coverage": self.coverage,
            "interval score": self.interval_score,
            "to LightGBM's": self.interval_ratio,
        }


def pairs(recording: str, data: Mapping[str, Any], rivals: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """Return every pair with at least LEAST_WINDOWS.

    Args:
        data: Arrays of `HorizonData`.
        rivals: float32 (M_test, H, 4), by rival, and by rival with .lower and .upper.
        runs: One for each seed: median, mean, lower, upper and linear, float32 (M_test, H, 4), NaN where there is no forecast.
    """
    actual = data["targets"][data["part"] == TEST]
    scale = row_changes(data)
    found = []
    for target, name in enumerate(TARGETS):
        for place, horizon in enumerate(data["horizons"].tolist()):
            values = actual[:, place, target].astype(np.float64)
            known = np.isfinite(values)
            if known.sum() < LEAST_WINDOWS:
                continue
            # No target can be negative: rivals may know that, as the network does.
            columns = {rival: np.maximum(made[known, place, target].astype(np.float64), 0.0) for rival, made in rivals.items()}
            own = [{part: run[part][known, place, target].astype(np.float64) for part in run} for run in runs]
            found.append(pair(recording, name, horizon, values[known], scale[target], columns, own))
    return found


def pair(
    recording: str,
    target: str,
    horizon: int,
    actual: Any,
    scale: float | None,
    rivals: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
) -> Pair:
    """Return the scores of one pair. All arrays are float64 (M,); see `pairs`."""
    seeds = np.stack([np.abs(run["median"] - actual) for run in runs]) if runs else np.full((1, len(actual)), np.nan)
    network = seeds.mean(axis=0)
    has = np.isfinite(network)
    errors = {name: np.abs(rivals[name] - actual) for name in RIVALS if name in rivals}
    both = {name: np.isfinite(error) & (has if has.any() else True) for name, error in errors.items()}
    means = {name: float(error[both[name]].mean()) for name, error in errors.items() if both[name].any()}
    if not has.any():
        return Pair(recording, target, horizon, len(actual), None, 0.0, scale, means, {}, None, None, (), None, 0.0, None, None, None, None)
    # A rival without an error leaves no ratio: nothing can be better.
    ratios = {name: float(network[both[name]].mean()) / error for name, error in means.items() if error > 0}
    best, change, worse_than = against(network, {name: errors[name] for name in SIMPLE if name in means})
    correlations = [correlation(run.get("mean", run["median"])[has], actual[has]) for run in runs]
    own = interval_scores(actual, runs)
    covered = [np.mean(inside[known]) for known, inside in (within(actual, run) for run in runs) if known.any()]
    linear = [np.abs(run["linear"] - actual) for run in runs if "linear" in run]
    return Pair(
        recording=recording,
        target=target,
        horizon=horizon,
        windows=len(actual),
        network=float(network[has].mean()),
        network_sd=deviation(seeds[:, has].mean(axis=1).tolist()),
        scale=scale,
        errors=means,
        ratios=ratios,
        best=best,
        change=change,
        worse_than=worse_than,
        correlation=statistics.mean(correlations),
        correlation_sd=deviation(correlations),
        coverage=float(np.mean(covered)) if covered else None,
        interval_score=_mean(own),
        interval_ratio=ratio(own, interval_scores(actual, [bounds_of(rivals, TREES)]) if f"{TREES}.lower" in rivals else None),
        over_linear=ratio(network, np.mean(linear, axis=0)) if linear else None,
    )


def against(network: Any, errors: Mapping[str, Any]) -> tuple[str | None, tuple[float, float, float] | None, tuple[str, ...]]:
    """Return the best dense rival, the difference to it with its interval, and the rivals that are better beyond the interval.

    Args:
        network: float64 (M,), absolute errors, NaN if there is no forecast.
        errors: The same of each rival.
    """
    has = np.isfinite(network)
    dense = [name for name, error in errors.items() if np.isfinite(error[has]).mean() >= DENSE]
    common = has & np.all([np.isfinite(errors[name]) for name in dense], axis=0)
    best, change = None, None
    worse = []
    if dense and common.any():
        best = min(dense, key=lambda name: float(errors[name][common].mean()))
        change = _difference(network[common], errors[best][common])
        worse = [best] if change[1] > 0 else []
    for name in errors:
        rows = has & np.isfinite(errors[name])
        if name not in dense and rows.sum() >= SPARSE_LEAST and _difference(network[rows], errors[name][rows])[1] > 0:
            worse.append(name)
    return best, change, tuple(worse)


def _difference(one: Any, other: Any) -> tuple[float, float, float]:
    return block_bootstrap_difference(one, other, max(1, -(-len(one) // BLOCKS)), RESAMPLES, seed=1)


def interval_scores(actual: Any, runs: Sequence[Mapping[str, Any]]) -> Any:
    """Return float64 (M,), the mean interval score over the runs with bounds, NaN where a bound or the value is missing."""
    scores = [horizons.interval_scores(actual, run["lower"], run["upper"], COVERAGE) for run in runs]
    return np.mean(scores, axis=0) if scores else np.full(len(actual), np.nan)


def within(actual: Any, run: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return bool (M,) twice: which values have an interval, and which lie in it."""
    known = np.isfinite(actual) & np.isfinite(run["lower"]) & np.isfinite(run["upper"])
    return known, known & (run["lower"] <= actual) & (actual <= run["upper"])


def bounds_of(rivals: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {end: rivals[f"{name}.{end}"] for end in ("lower", "upper")}


def row_changes(data: Mapping[str, Any]) -> list[float | None]:
    """Return the mean absolute change from row to row of each target in the training part; None if it never changes."""
    run, part = data["row_run"], data["row_part"]
    same = (run[1:] == run[:-1]) & (part[1:] == TRAIN)
    changes = np.abs(np.diff(data["row_values"].astype(np.float64), axis=0))[same]
    return [_mean(column) or None for column in changes.T]


def ratio(one: Any, other: Any | None) -> float | None:
    """Return the ratio of two means over the rows that both know; None if there are none, or the second is 0."""
    if other is None:
        return None
    known = np.isfinite(one) & np.isfinite(other)
    below = float(other[known].mean()) if known.any() else 0.0
    return float(one[known].mean()) / below if below > 0 else None


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean; None if there are no values, or one is missing: a share of the pairs is not all of them."""
    found = list(values)
    if not found or any(value is None or value <= 0 for value in found):
        return None
    return float(np.exp(np.mean(np.log(np.array(found, np.float64)))))


def mean_scaled_errors(found: Sequence[Pair]) -> dict[str, float]:
    """Return for the network and each rival the mean over the pairs of its error in changes from row to row; only those with every pair."""
    scaled: dict[str, list[float]] = {"network": []}
    pairs_of = [one for one in found if one.scale]
    for one in pairs_of:
        for name, error in (*one.errors.items(), *([] if one.network is None else [("network", one.network)])):
            scaled.setdefault(name, []).append(error / one.scale)
    return {name: statistics.mean(values) for name, values in scaled.items() if values and len(values) == len(pairs_of)}


def correlation(one: Any, other: Any) -> float:
    """Return the correlation; 0 if either does not vary, because a constant forecast explains nothing."""
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 0 and other.std() > 0 else 0.0


def deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _mean(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
