"""Forecast errors per target, the two naive forecasts to beat, and confidence intervals of error differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.definition import WINDOW_ROWS
from features.offline import OfflineFeatures
from features.telemetry import TARGETS, Doubles, Floats, Longs
from model.windows.index import WindowIndex

AnyFloats = NDArray[np.floating[Any]]

MAPE_FLOOR_RATIO: Final = 0.01
"""MAPE leaves out rows whose actual value is under this share of the target's mean: a single loss of 1e-6 would decide it."""
EWMA_ALPHAS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Weights of the newest value that are tried. 1.0 is persistence, so the chosen average is never worse on the rows it is chosen on."""


@dataclass(frozen=True, slots=True)
class TargetMetrics:
    """Errors of one target. A figure that is not defined is None.

    Args:
        windows: How many windows have the target measured.
        mae: Mean absolute error, in the target's unit; rmse: root of the mean squared error.
        mape_percent: Over the mape_windows whose actual value is not tiny (MAPE_FLOOR_RATIO).
        r2: 1 - residual / total sum of squares.
        correlation: Pearson's.
        accuracy_percent: 100 (1 - MAE / mean actual value).
    """

    name: str
    windows: int
    mae: float | None = None
    rmse: float | None = None
    mape_percent: float | None = None
    mape_windows: int = 0
    r2: float | None = None
    correlation: float | None = None
    accuracy_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of every target, and their means over those that were measured (None if none was)."""

    targets: tuple[TargetMetrics, ...]
    unmeasured: tuple[str, ...]
    mean_correlation: float | None
    mean_r2: float | None
    mean_accuracy_percent: float | None


def forecast_metrics(actual: AnyFloats, predicted: AnyFloats) -> Metrics:
    """Return the metrics of predicted against actual, both (M, 4) in the targets' units, NaN if not measured or not forecast."""
    targets = tuple(target_metrics(name, actual[:, column], predicted[:, column]) for column, name in enumerate(TARGETS))
    return Metrics(
        targets=targets,
        unmeasured=tuple(target.name for target in targets if target.windows == 0),
        mean_correlation=_mean([target.correlation for target in targets]),
        mean_r2=_mean([target.r2 for target in targets]),
        mean_accuracy_percent=_mean([target.accuracy_percent for target in targets]),
    )


def target_metrics(name: str, actual: AnyFloats, predicted: AnyFloats) -> TargetMetrics:
    """Return the metrics of one target. actual, predicted: (M,), in its unit, NaN if not measured or not forecast."""
    measured = np.isfinite(actual) & np.isfinite(predicted)
    y, forecast = actual[measured].astype(np.float64), predicted[measured].astype(np.float64)
    if not len(y):
        return TargetMetrics(name, 0)
    error = np.abs(y - forecast)
    mae, mean = float(error.mean()), float(y.mean())
    large = np.abs(y) > MAPE_FLOOR_RATIO * np.abs(y).mean()
    total = float(np.sum((y - mean) ** 2))
    varies = total > 0 and forecast.std() > 0
    return TargetMetrics(
        name=name,
        windows=len(y),
        mae=mae,
        rmse=float(np.sqrt(np.mean(error**2))),
        mape_percent=float(100 * np.mean(error[large] / np.abs(y[large]))) if large.any() else None,
        mape_windows=int(large.sum()),
        r2=1.0 - float(np.sum(error**2)) / total if total > 0 else None,
        correlation=float(np.corrcoef(y, forecast)[0, 1]) if varies else None,
        accuracy_percent=100.0 * (1.0 - mae / mean) if mean != 0 else None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def persistence(targets: Floats, index: WindowIndex, window_rows: int = WINDOW_ROWS) -> Floats:
    """Return float32 (M, 4): the last value of each target in the window, NaN where there is none. targets: (N, 4), rows as in index."""
    rows = np.arange(len(targets), dtype=np.int64)
    forecast = np.full((len(index), targets.shape[1]), np.nan, np.float32)
    for target in range(targets.shape[1]):
        last = np.maximum.accumulate(np.where(np.isfinite(targets[:, target]), rows, -1))[index.end]
        inside = (last >= index.begin) & (last > index.end - window_rows)
        forecast[inside, target] = targets[last[inside], target]
    return forecast


@dataclass(frozen=True, slots=True)
class Ewma:
    """Exponentially weighted average over a link's run, missing values skipped. alphas: weight of the newest value, for each of TARGETS."""

    alphas: tuple[float, ...]

    @classmethod
    def chosen(cls, targets: Floats, features: OfflineFeatures, index: WindowIndex) -> Ewma:
        """Return the average with the alphas of least mean absolute error on these windows: training or validation, never test."""
        mean_errors = np.empty((len(EWMA_ALPHAS), targets.shape[1]))
        for row, alpha in enumerate(EWMA_ALPHAS):
            forecast = cls((alpha,) * targets.shape[1]).forecast(targets, features, index)
            error = np.abs(forecast.astype(np.float64) - targets[index.target_row])
            known = np.isfinite(error)
            mean_errors[row] = np.where(known, error, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return cls(tuple(EWMA_ALPHAS[best] for best in np.argmin(mean_errors, axis=0)))

    def forecast(self, targets: Floats, features: OfflineFeatures, index: WindowIndex) -> Floats:
        """Return float32 (M, 4), the average up to each window's last row, NaN if the run has no value yet. targets: (N, 4)."""
        averages: Floats = _ewma(targets, features.run, np.array(self.alphas))[index.end]
        return averages


@compiled
def _ewma(targets: Floats, run: Longs, alphas: Doubles) -> Floats:
    averages = np.empty_like(targets)
    state = np.full(targets.shape[1], np.nan)
    for row in range(len(targets)):
        if row == 0 or run[row] != run[row - 1]:
            state[:] = np.nan
        for target in range(targets.shape[1]):
            value = float(targets[row, target])
            if value == value:
                known = state[target] == state[target]
                state[target] = state[target] + alphas[target] * (value - state[target]) if known else value
            averages[row, target] = state[target]
    return averages


BLOCKS: Final = 32
"""Blocks of a bootstrap over judged windows: fewer make its interval too narrow, more cut apart what neighbouring windows share."""
RESAMPLES: Final = 2_000
SEED: Final = 42


def block_bootstrap_means(differences: AnyFloats, block: int, resamples: int, seed: int) -> Doubles:
    """Return float64 (resamples, K), means over resampled rows of differences (M, K), NaN left out.

    Rows are drawn in circular blocks of `block` neighbours (Politis and Romano 1992, "A circular block-resampling procedure for
    stationary data"), which keeps what neighbouring windows share: single rows would make every interval too narrow.

    Args:
        differences: In time order.
        block: Rows of one block.
        resamples: How many means are drawn.
    """
    count, columns = differences.shape
    known = np.isfinite(differences)
    # Prefix sums over the rows and their first `block` ones again: the sum of a block is the difference of two of them.
    extended = np.concatenate([np.arange(count), np.arange(min(block, count))])
    sums = np.zeros((len(extended) + 1, columns))
    counts = np.zeros((len(extended) + 1, columns))
    np.cumsum(np.where(known, differences, 0.0)[extended], axis=0, out=sums[1:], dtype=np.float64)
    np.cumsum(known[extended], axis=0, out=counts[1:], dtype=np.float64)
    block = min(block, count)
    starts = np.random.default_rng(seed).integers(0, count, (resamples, -(-count // block)))
    total = (sums[starts + block] - sums[starts]).sum(axis=1)
    number = (counts[starts + block] - counts[starts]).sum(axis=1)
    means: Doubles = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    return means


def block_bootstrap_difference(
    errors_a: AnyFloats, errors_b: AnyFloats, block: int, resamples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean of errors_a - errors_b (M,), paired and in time order, and the ends of its percentile interval.

    Pairs with a NaN are left out.

    Raises:
        ValueError: No pair is known.
    """
    differences = (np.asarray(errors_a, np.float64) - np.asarray(errors_b, np.float64))[:, None]
    if not np.isfinite(differences).any():
        raise ValueError("no row has both errors")
    tail = 50.0 * (1.0 - confidence)
    means = block_bootstrap_means(differences, block, resamples, seed)
    low, high = np.nanpercentile(means[:, 0], [tail, 100.0 - tail])
    return float(np.nanmean(differences)), float(low), float(high)
