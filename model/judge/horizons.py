"""Errors and intervals of forecasts at several horizons, beside simple forecasts of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from features.telemetry import TARGETS, Doubles, Floats
from model.judge.metrics import target_metrics

_NAIVE: Final = "persistence"


def horizon_figures(
    actual: Floats, ahead: Floats, simple: Mapping[str, Floats], horizons: Sequence[int], coverage: float
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the figures of each horizon, as JSON has them; a figure that is not defined is None.

    Absolute errors are those of the median; rmse, a root mean squared error, and correlation those of the mean.

    Args:
        actual: float32 (M, H, 4), in the targets' units, NaN if not measured.
        ahead: float32 (M, H, 4, 4), lower, median, upper and mean forecast, NaN if not forecast.
        simple: By name float32 (M, 4), forecasts that are the same at each horizon, "persistence" among them.
        horizons: H numbers of rows.
        coverage: Share of what is measured that is to lie between lower and upper.
    """
    return [
        {
            "rows": rows,
            "targets": {
                name: _figures(actual[:, at, target], ahead[:, at, target], {k: v[:, target] for k, v in simple.items()}, coverage)
                for target, name in enumerate(TARGETS)
            },
        }
        for at, rows in enumerate(horizons)
    ]


def _figures(actual: Floats, ahead: Floats, simple: Mapping[str, Floats], coverage: float) -> dict[str, Any]:
    """Return the figures of one pair of horizon and target. actual: (M,). ahead: (M, 4). simple: (M,) each."""
    known = np.isfinite(actual) & np.isfinite(ahead).all(axis=1)
    for forecast in simple.values():
        if np.isfinite(forecast).any():  # one that never forecasts it must not remove the rows of the others
            known &= np.isfinite(forecast)
    if not known.any():
        none = dict.fromkeys(("mae", "rmse", "correlation", "coverage", "width", "interval_score"))
        return {"windows": 0, **none, "simple": {}, "skill": None}
    wanted, lower, median, upper, mean = (part[known].astype(np.float64) for part in (actual, *ahead.T))
    mae, of_mean = float(np.abs(median - wanted).mean()), target_metrics("", wanted, mean)
    errors = {
        name: float(np.abs(forecast[known] - wanted).mean()) for name, forecast in simple.items() if np.isfinite(forecast[known]).all()
    }
    naive = errors.get(_NAIVE, 0.0)
    return {
        "windows": int(known.sum()),
        "mae": mae,
        "rmse": of_mean.rmse,
        "correlation": of_mean.correlation,
        "coverage": float(((wanted >= lower) & (wanted <= upper)).mean()),
        "width": float((upper - lower).mean()),
        "interval_score": float(interval_scores(wanted, lower, upper, coverage).mean()),
        "simple": errors,
        "skill": 1.0 - mae / naive if naive > 0 else None,
    }


def weighted_interval_scores(actual: Floats, ahead: Floats, coverage: float) -> Doubles:
    """Return float64 (M, H, 4), a score of median and interval together, in the target's unit, NaN if not measured; smaller is better.

    (|actual - median| / 2 + (1 - coverage) / 2 * interval score) / 1.5 (Bracher et al. 2021, "Evaluating epidemic forecasts in an interval
    format", equation 1, for one interval). It is infinite if a forecast of what was measured is not finite.

    Args:
        actual: float32 (M, H, 4).
        ahead: float32 (M, H, 4, 4).
        coverage: Of the intervals.
    """
    wanted, (lower, median, upper, _) = actual.astype(np.float64), np.moveaxis(ahead.astype(np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        scores: Doubles = (0.5 * np.abs(wanted - median) + 0.5 * (1.0 - coverage) * interval_scores(wanted, lower, upper, coverage)) / 1.5
    scores[np.isfinite(wanted) & ~np.isfinite(scores)] = np.inf
    return scores


def mean_over_horizons(scores: Doubles, naive: Doubles) -> Doubles:
    """Return float64 (M, 4), the mean of what is known of scores (M, H, 4), each as a share of the mean naive error of its pair.

    Args:
        naive: (M, H, 4), absolute errors of persistence, NaN if not known: horizons further ahead must not outweigh nearer ones.
    """
    known = np.isfinite(naive)
    usual = np.where(known, naive, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)  # (H, 4)
    scaled = scores / np.where(usual > 0, usual, 1.0)
    counted = ~np.isnan(scaled)
    total = np.where(counted, scaled, 0.0).sum(axis=1)
    means: Doubles = np.divide(total, counted.sum(axis=1), out=np.full(total.shape, np.nan), where=counted.any(axis=1))
    return means


def interval_scores(actual: Doubles, lower: Doubles, upper: Doubles, coverage: float) -> Doubles:
    """Return the interval score of each row, in the target's unit; smaller is better.

    Width, and 2 / (1 - coverage) times the distance of what lies outside (Gneiting and Raftery 2007, "Strictly proper scoring rules,
    prediction, and estimation", section 6.2).

    Args:
        actual: (M,).
        lower: (M,); upper: (M,).
        coverage: Of the interval.
    """
    outside = np.maximum(lower - actual, 0.0) + np.maximum(actual - upper, 0.0)
    scores: Doubles = (upper - lower) + 2.0 / (1.0 - coverage) * outside
    return scores
