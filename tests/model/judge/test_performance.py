"""The report on a network's forecasts: its metrics, the baselines on the same rows, skill with an interval, and the criteria."""

from __future__ import annotations

import json

import numpy as np
import pytest

from features.telemetry import Floats
from model.judge.performance import best_baseline, performance


def forecasts(rows: int = 2_000) -> tuple[Floats, dict[str, Floats]]:
    """Actual values, a model that is right to 1 %, a baseline that is right to 2 %, and one that has no RTT; jitter is not measured."""
    rng = np.random.default_rng(1)
    actual = rng.uniform(50.0, 150.0, (rows, 4)).astype(np.float32)
    actual[:, 3] = np.nan

    def near(share: float) -> Floats:
        return (actual * (1 + share * rng.choice([-1.0, 1.0], actual.shape))).astype(np.float32)

    without = near(0.04)
    without[:, 1] = np.nan
    return actual, {"network": near(0.01), "persistence": near(0.02), "ridge": without}


def test_figures_by_construction() -> None:
    """MAPE, skill and criteria are those that the forecasts were made with; an interval encloses its figure."""
    actual, made = forecasts()
    report = performance(actual, made, np.arange(len(actual), dtype=np.float64))
    json.dumps(report, allow_nan=False)
    assert report["averages"]["mape_percent"] == pytest.approx(1.0, rel=1e-3)
    assert report["unmeasured"] == ["jitter_ms"]
    assert report["criteria_met"] == {"correlation": True, "accuracy_percent": True, "mape_percent": True}
    skill = report["skill"]["persistence"]["rtt_ms"]
    assert skill["skill"] == pytest.approx(0.5, abs=0.02)
    assert skill["low"] < skill["skill"] < skill["high"]
    assert report["skill"]["ridge"]["rtt_ms"] is None
    assert report["skill"]["ridge"]["jitter_ms"] is None
    assert best_baseline(report, "throughput_mbps") == (
        "persistence",
        report["baselines"]["persistence"]["targets"]["throughput_mbps"]["mae"],
    )
    assert best_baseline(report, "jitter_ms") is None


def test_what_squared_errors_decide_is_of_the_mean() -> None:
    """Correlation, r2 and rmse are of the mean forecast if there is one; absolute errors and what follows from them stay the median's."""
    actual, made = forecasts()
    times = np.arange(len(actual), dtype=np.float64)
    median, both = (performance(actual, made, times, mean) for mean in (None, actual.copy()))
    for name in ("rmse", "r2", "correlation"):
        assert both["targets"]["rtt_ms"][name] != median["targets"]["rtt_ms"][name]
    assert both["averages"]["correlation"] == pytest.approx(1.0)
    assert both["criteria"]["correlation"]["reached"] == pytest.approx(1.0)
    for name in ("mae", "mape_percent", "accuracy_percent"):
        assert both["targets"]["rtt_ms"][name] == median["targets"]["rtt_ms"][name]
    assert both["skill"] == median["skill"]


def test_success_needs_a_criterion() -> None:
    """Forecasts that meet no criterion are no success, however much better than the baselines they are."""
    actual, made = forecasts()
    rng = np.random.default_rng(2)
    made["network"] = (actual + rng.normal(0, 30, actual.shape)).astype(np.float32)
    report = performance(actual, made, np.arange(len(actual), dtype=np.float64))
    assert report["criteria_met"] == {"correlation": False, "accuracy_percent": False, "mape_percent": False}
    assert report["success"] is False


def test_all_are_judged_on_the_same_rows() -> None:
    """A row that one of them has no forecast for counts for none of them, and the order of the rows does not matter."""
    actual, made = forecasts()
    made["persistence"][:500, 0] = np.nan
    report = performance(actual, made, np.arange(len(actual), dtype=np.float64))
    assert {report["targets"]["throughput_mbps"]["windows"], report["baselines"]["ridge"]["targets"]["throughput_mbps"]["windows"]} == {
        1_500
    }
    shuffled = np.random.default_rng(3).permutation(len(actual))
    again = performance(actual[shuffled], {name: each[shuffled] for name, each in made.items()}, shuffled.astype(np.float64))
    assert again["skill"] == report["skill"]
