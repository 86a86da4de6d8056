"""Forecast metrics, the naive forecasts, and the block bootstrap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error, r2_score, root_mean_squared_error

from features.definition import FEATURES
from features.offline import OfflineFeatures
from features.telemetry import TARGETS, Floats
from model.judge.metrics import Ewma, block_bootstrap_difference, block_bootstrap_means, forecast_metrics, persistence
from model.windows.index import WindowIndex


def test_metrics_are_those_of_scikit_learn() -> None:
    """MAE, RMSE, MAPE and R2 equal scikit-learn's over the measured rows; correlation equals NumPy's."""
    rng = np.random.default_rng(0)
    actual = rng.gamma(5.0, 10.0, (500, 4))
    predicted = actual + rng.normal(0, 5, actual.shape)
    actual[rng.random(actual.shape) < 0.3] = np.nan
    for at, target in enumerate(forecast_metrics(actual, predicted).targets):
        known = np.isfinite(actual[:, at])
        y, forecast = actual[known, at], predicted[known, at]
        assert target.windows == target.mape_windows == known.sum()
        assert target.mae == pytest.approx(mean_absolute_error(y, forecast))
        assert target.rmse == pytest.approx(root_mean_squared_error(y, forecast))
        assert target.mape_percent == pytest.approx(100 * mean_absolute_percentage_error(y, forecast))
        assert target.r2 == pytest.approx(r2_score(y, forecast))
        assert target.correlation == pytest.approx(np.corrcoef(y, forecast)[0, 1])


def test_metrics_by_hand() -> None:
    """Actual 1, 2, 3, tiny against 2, 2, 5, tiny: MAE 3/4, MAPE over the three that are not tiny, accuracy 50 %."""
    actual = np.full((4, 4), np.nan)
    actual[:, 0] = [1, 2, 3, 1e-9]
    predicted = np.zeros((4, 4))
    predicted[:, 0] = [2, 2, 5, 0]
    metrics = forecast_metrics(actual, predicted)
    throughput = metrics.targets[0]
    assert throughput.mae == pytest.approx(0.75)
    assert throughput.rmse == pytest.approx(np.sqrt(5 / 4))
    assert throughput.mape_windows == 3
    assert throughput.mape_percent == pytest.approx(100 * (1 + 0 + 2 / 3) / 3)
    assert throughput.r2 == pytest.approx(0.0, abs=1e-8)
    assert throughput.accuracy_percent == pytest.approx(50.0)
    assert metrics.unmeasured == TARGETS[1:]
    assert metrics.mean_accuracy_percent == throughput.accuracy_percent


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_what_is_not_defined_is_none(constant: float) -> None:
    """A target that never varies has no R2 and no correlation, and one that is always 0 no relative error; nothing is NaN."""
    metrics = forecast_metrics(np.full((10, 4), constant), np.full((10, 4), 1.0))
    for target in metrics.targets:
        assert (target.r2, target.correlation) == (None, None)
        assert (target.accuracy_percent is None, target.mape_percent is None) == (constant == 0.0, constant == 0.0)
    assert metrics.mean_correlation is None


def in_runs(run: list[int]) -> OfflineFeatures:
    """Features of rows that matter by their runs alone."""
    count = len(run)
    empty = np.zeros((count, len(FEATURES)), np.float32), np.zeros((count, 0, 4), np.float32)
    return OfflineFeatures(empty[0], np.array(run, np.int64), np.full(count, np.nan), empty[1])


def series(values: list[float | None], run: list[int] | None = None) -> tuple[Floats, OfflineFeatures]:
    targets = np.full((len(values), 4), np.nan, np.float32)
    targets[:, 1] = [np.nan if value is None else value for value in values]
    return targets, in_runs(run or [0] * len(values))


@given(known=st.lists(st.booleans(), min_size=40, max_size=90))
def test_persistence_is_the_last_value_in_the_window(known: list[bool]) -> None:
    """The forecast is the newest measured value of the window's 30 rows, never one from before it."""
    targets, _ = series([float(at) if is_known else None for at, is_known in enumerate(known)])
    end = np.arange(29, len(known) - 1)
    forecast = persistence(targets, WindowIndex(end, end + 1))[:, 1]
    for row, got in zip(end, forecast, strict=True):
        seen = [at for at in range(row - 29, row + 1) if known[at]]
        assert (np.isnan(got) and not seen) or got == seen[-1]


@given(known=st.lists(st.booleans(), min_size=40, max_size=90), alpha=st.sampled_from([0.05, 0.3, 1.0]))
def test_the_average_is_that_of_pandas(known: list[bool], alpha: float) -> None:
    """The EWMA equals pandas' ewm(adjust=False, ignore_na=True), starts anew with each run, and skips missing values."""
    run = [int(at >= len(known) // 2) for at in range(len(known))]
    targets, features = series([float(at % 7) if is_known else None for at, is_known in enumerate(known)], run)
    end = np.arange(len(known) - 1)
    forecast = Ewma((alpha,) * 4).forecast(targets, features, WindowIndex(end, end + 1))
    by_run = pd.Series(targets[:, 1].astype(np.float64)).groupby(np.array(run), group_keys=False)
    expected = by_run.apply(lambda part: part.ewm(alpha=alpha, adjust=False, ignore_na=True).mean())
    np.testing.assert_allclose(forecast[:, 1], expected.to_numpy()[:-1], rtol=1e-6)


def test_alpha_follows_the_series() -> None:
    """Noise around a level wants a slow average, a random walk the last value; a target never measured takes any."""
    rng = np.random.default_rng(0)
    targets = np.full((2_000, 4), np.nan, np.float32)
    targets[:, 0] = 10 + rng.normal(0, 1, 2_000)
    targets[:, 1] = np.cumsum(rng.normal(0, 1, 2_000))
    end = np.arange(29, 1_999)
    features = in_runs([0] * 2_000)
    alphas = Ewma.chosen(targets, features, WindowIndex(end, end + 1)).alphas
    assert alphas[0] <= 0.1
    assert alphas[1] >= 0.9


def autocorrelated(rng: np.random.Generator, count: int) -> Floats:
    noise = rng.normal(0, 1, count)
    for at in range(1, count):
        noise[at] += 0.9 * noise[at - 1]
    return noise.astype(np.float32)


def test_the_interval_covers_what_single_rows_would_not() -> None:
    """For autocorrelated differences of mean 0, the 95 % interval of blocks holds 0 nearly always; one of single rows mostly misses it."""
    rng = np.random.default_rng(1)
    covered = {1: 0, 60: 0}
    for _ in range(100):
        a, b = autocorrelated(rng, 2_000), autocorrelated(rng, 2_000)
        for block in covered:
            _, low, high = block_bootstrap_difference(a, b, block, 400, seed=0)
            covered[block] += low <= 0 <= high
    assert covered[60] >= 85
    assert covered[1] <= 50


def test_the_difference_is_paired_and_repeatable() -> None:
    """A common error of both cancels: a constant difference has an interval of no width. The same seed gives the same interval."""
    a = np.array([5.0, 100.0, np.nan, 7.0, 2.0])
    assert block_bootstrap_difference(a, a - 0.5, 2, 100, seed=3) == pytest.approx((0.5, 0.5, 0.5))
    b = np.array([4.0, 1.0, 3.0, 9.0, np.nan])
    assert block_bootstrap_difference(a, b, 2, 100, seed=3) == block_bootstrap_difference(a, b, 2, 100, seed=3)
    with pytest.raises(ValueError, match="no row"):
        block_bootstrap_difference(a, np.full(5, np.nan), 2, 100, seed=3)


@given(count=st.integers(1, 40), block=st.integers(1, 60))
def test_blocks_wrap_around(count: int, block: int) -> None:
    """Every row is drawn equally often, the last and the first ones too: resampled means average to the mean."""
    values = np.zeros((count, 1))
    values[-1] = 1.0
    means = block_bootstrap_means(values, block, 4_000, seed=0)
    assert means.mean() == pytest.approx(1 / count, abs=0.05)
