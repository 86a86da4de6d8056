"""Forecasts that every model has to beat, made for the same windows: persistence, an exponentially weighted average, and Ridge."""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.linear_model import Ridge

from features.definition import WINDOW_ROWS
from features.offline import OfflineFeatures
from features.telemetry import Floats
from model.judge.metrics import Ewma, persistence
from model.windows.index import WindowIndex

BASELINES: Final = ("persistence", "ewma", "ridge")
ALPHA: Final = 1.0
"""Ridge's penalty: enough for columns that are nearly copies of each other (a metric and its means), little beside thousands of windows."""


def baseline_forecasts(
    features: OfflineFeatures,
    scaled: Floats,
    targets: Floats,
    fitted_on: WindowIndex,
    index: WindowIndex,
    window_rows: int = WINDOW_ROWS,
) -> dict[str, Floats]:
    """Return float32 (M, 4) for each of BASELINES, its forecasts for the M windows of index in the targets' units, NaN if it has none.

    Args:
        scaled: float32 (N, 44), scaled features, 0 if missing.
        targets: float32 (N, 4), in the targets' units, NaN if not measured.
        fitted_on: Windows that the model is trained on. The average's weights and Ridge are chosen on them alone.
    """
    kernel, bias = ridge(scaled[fitted_on.end], targets[fitted_on.target_row])
    known = np.isfinite(targets[fitted_on.target_row]).any(axis=0)
    return {
        "persistence": persistence(targets, index, window_rows),
        "ewma": Ewma.chosen(targets, features, fitted_on).forecast(targets, features, index),
        "ridge": np.where(known, scaled[index.end] @ kernel + bias, np.nan).astype(np.float32),
    }


def ridge(rows: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """Return kernel (F, 4) and bias (4,) of a linear map from rows (M, F) to wanted (M, 4), NaN if unknown; 0 for a target never known.

    Hoerl and Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems".
    """
    kernel = np.zeros((rows.shape[1], wanted.shape[1]), np.float32)
    bias = np.zeros(wanted.shape[1], np.float32)
    for target, column in enumerate(wanted.T):
        known = np.isfinite(column)
        if known.any():
            solved = Ridge(alpha=ALPHA).fit(rows[known].astype(np.float64), column[known].astype(np.float64))
            kernel[:, target], bias[target] = solved.coef_, solved.intercept_
    return kernel, bias
