"""Performance of forecasts beside what they have to beat: metrics per target, the baselines on the same rows, skill, and criteria."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np

from features.definition import WINDOW_ROWS
from features.telemetry import TARGETS, Doubles, Floats
from model.judge.metrics import BLOCKS, RESAMPLES, SEED, Metrics, block_bootstrap_means, forecast_metrics

NETWORK: Final = "network"
CRITERIA: Final = {"correlation": (">=", 0.98), "accuracy_percent": (">=", 98.0), "mape_percent": ("<=", 5.0)}
"""Criteria for the averages over the measured targets. Meeting one of them is enough for success."""
_TAIL_PERCENT: Final = 2.5


def performance(actual: Floats, forecasts: Mapping[str, Floats], time_s: Doubles, mean: Floats | None = None) -> dict[str, Any]:
    """Return the figures of one network's forecasts, as JSON has them. All are measured on the rows on which each has a forecast.

    Args:
        actual: float32 (M, 4), in the targets' units, NaN if not measured.
        forecasts: (M, 4) each; the network's as NETWORK, the others are baselines.
        time_s: float64 (M,), UTC seconds of the forecast rows: the bootstrap's blocks are neighbours in time.
        mean: (M, 4), the network's forecasts of the mean, if it has some beside those of the median: correlation, r2 and rmse are of
            these, because squared errors want the mean as absolute ones want the median.
    """
    in_time = np.argsort(time_s, kind="stable")
    actual = actual[in_time].copy()
    ordered = {name: forecast[in_time] for name, forecast in forecasts.items()}
    for target in range(len(TARGETS)):
        # A baseline without any forecast of a target (never measured in training) must not remove the rows of the others.
        able = [forecast[:, target] for forecast in ordered.values() if np.isfinite(forecast[:, target]).any()]
        if able:
            actual[~np.isfinite(able).all(axis=0), target] = np.nan
    measured = {name: forecast_metrics(actual, forecast) for name, forecast in ordered.items()}
    network = _document(measured[NETWORK] if mean is None else _of_mean(measured[NETWORK], forecast_metrics(actual, mean[in_time])))
    criteria = _criteria(network["averages"])
    baselines = {name: _document(metrics) for name, metrics in measured.items() if name != NETWORK}
    return {
        **network,
        "windows": len(actual),
        "intervals": {name: _mae_interval(actual[:, column], ordered[NETWORK][:, column]) for column, name in enumerate(TARGETS)},
        "baselines": baselines,
        "skill": {name: _skills(actual, ordered[NETWORK], ordered[name]) for name in baselines},
        "criteria": criteria,
        "criteria_met": {name: entry["met"] for name, entry in criteria.items()},
        "success": any(entry["met"] for entry in criteria.values()),
    }


def _of_mean(median: Metrics, mean: Metrics) -> Metrics:
    """Return the metrics of the median, with those that squared errors decide of the mean."""
    targets = tuple(
        replace(one, rmse=other.rmse, r2=other.r2, correlation=other.correlation)
        for one, other in zip(median.targets, mean.targets, strict=True)
    )
    return replace(median, targets=targets, mean_correlation=mean.mean_correlation, mean_r2=mean.mean_r2)


def best_baseline(report: Mapping[str, Any], target: str) -> tuple[str, float] | None:
    """Return name and mean absolute error of the baseline that is best at a target; None if none forecasts it."""
    errors = {name: entry["targets"][target]["mae"] for name, entry in report["baselines"].items()}
    known = {name: mae for name, mae in errors.items() if mae is not None}
    name = min(known, key=lambda each: known[each], default=None)
    return None if name is None else (name, known[name])


def _document(metrics: Metrics) -> dict[str, Any]:
    targets = {target.name: {key: value for key, value in asdict(target).items() if key != "name"} for target in metrics.targets}
    averages: dict[str, float | None] = {}
    for figure in ("correlation", "accuracy_percent", "mape_percent", "r2"):
        known = [entry[figure] for entry in targets.values() if entry[figure] is not None]
        averages[figure] = sum(known) / len(known) if known else None
    return {"targets": targets, "averages": averages, "unmeasured": list(metrics.unmeasured)}


def _criteria(averages: Mapping[str, float | None]) -> dict[str, Any]:
    document = {}
    for name, (op, wanted) in CRITERIA.items():
        reached = averages[name]
        met = reached is not None and (reached >= wanted if op == ">=" else reached <= wanted)
        document[name] = {"wanted": wanted, "op": op, "reached": reached, "met": met}
    return document


def _mae_interval(actual: Floats, forecast: Floats) -> dict[str, float] | None:
    """Return the 95 % interval of the mean absolute error."""
    return _interval(_resampled(np.abs(actual.astype(np.float64) - forecast)[:, None])[:, 0])


def _skills(actual: Floats, forecast: Floats, baseline: Floats) -> dict[str, Any]:
    """Return for each target 1 - MAE / MAE of the baseline (over 0: better) with its 95 % interval; None if it is not defined."""
    document: dict[str, Any] = {}
    for column, name in enumerate(TARGETS):
        errors = np.abs(actual[:, column, None].astype(np.float64) - np.stack([forecast[:, column], baseline[:, column]], axis=1))
        errors[~np.isfinite(errors).all(axis=1)] = np.nan
        network, other = (float(mean) for mean in np.nanmean(errors, axis=0)) if np.isfinite(errors).any() else (np.nan, np.nan)
        if not other > 0:
            document[name] = None
            continue
        resampled = _resampled(errors)
        ratios = np.divide(resampled[:, 0], resampled[:, 1], out=np.full(len(resampled), np.nan), where=resampled[:, 1] > 0)
        document[name] = {"skill": 1.0 - network / other, **(_interval(1.0 - ratios) or {"low": None, "high": None})}
    return document


def _resampled(errors: Doubles) -> Doubles:
    block = max(WINDOW_ROWS, -(-len(errors) // BLOCKS))
    return block_bootstrap_means(errors, block, RESAMPLES, SEED)


def _interval(resampled: Doubles) -> dict[str, float] | None:
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return None
    low, high = np.percentile(known, [_TAIL_PERCENT, 100.0 - _TAIL_PERCENT])
    return {"low": float(low), "high": float(high)}
