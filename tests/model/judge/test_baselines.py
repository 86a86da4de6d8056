"""The forecasts that every model has to beat."""

from __future__ import annotations

import numpy as np

from features.offline import RawTable, compute
from features.telemetry import CATEGORIES, NUMERIC
from features.vocabulary import Vocabulary
from model.judge.baselines import BASELINES, baseline_forecasts
from model.windows.index import build_windows, split_by_time, targets_of
from model.windows.scaler import Scaler


def autoregressive(rows: int = 600) -> RawTable:
    """One link: an RTT that falls back to 20 ms by half at every step, a throughput of noise, and no other metric."""
    rng = np.random.default_rng(3)
    numeric = np.full((rows, len(NUMERIC)), np.nan, np.float32)
    numeric[:, 0] = rng.normal(100.0, 5.0, rows)
    rtt = 20.0
    for row in range(rows):
        numeric[row, 1] = rtt = 20.0 + 0.5 * (rtt - 20.0) + rng.normal(0.0, 1.0)
    codes = np.full((rows, len(CATEGORIES)), -1, np.int32)
    return RawTable(("a|b|",), np.zeros(rows, np.int32), 60.0 * np.arange(rows), numeric, codes, tuple(() for _ in CATEGORIES))


def test_each_baseline_is_what_its_name_says() -> None:
    """Persistence repeats the last row, the average is near the mean of noise, Ridge knows the slope; none forecasts what was never
    measured, and none has seen the windows that it is scored on."""
    table = autoregressive()
    features, targets = compute(table, Vocabulary.empty()), targets_of(table)
    split = split_by_time(build_windows(features, table), table)
    seen = features.features[: split.train.target_row.max() + 1]
    scaled = Scaler.fit(seen).transform(features.features)
    forecasts = baseline_forecasts(features, scaled, targets, split.train, split.test)
    assert tuple(forecasts) == BASELINES
    assert np.array_equal(forecasts["persistence"], targets[split.test.end], equal_nan=True)
    assert np.abs(forecasts["ewma"][:, 0] - 100.0).max() < 5.0
    slope = np.polyfit(targets[split.test.end, 1], forecasts["ridge"][:, 1], 1)[0]
    assert 0.35 < slope < 0.65
    assert all(np.isnan(forecast[:, 2:]).all() for forecast in forecasts.values())

    changed = targets.copy()
    changed[split.test.target_row.min() :] += 1e6
    again = baseline_forecasts(features, scaled, changed, split.train, split.test)
    assert np.array_equal(again["ridge"], forecasts["ridge"], equal_nan=True)
