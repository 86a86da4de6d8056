"""An online linear model of River for each link, target and horizon: the rival that learns at every row."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np
from river import linear_model, optim, preprocessing

from daemon.commands.backtest.scores import Table, stretches
from features.telemetry import TARGETS, Floats

LAGS: Final = 10
RATE: Final = 0.01


def online_forecasts(table: Table) -> Floats:
    """Return float32 (N, H, 4), forecasts made before their outcome was learnt, which comes when its row does; NaN before the first.

    The model sees the last LAGS measured values, and forecasts the change from the last one.
    """
    made = np.full(table.targets.shape, np.nan, np.float32)
    for begin, end in stretches(table.link):
        for target in range(len(TARGETS)):
            for at, horizon in enumerate(table.horizons):
                _one(table, made, range(begin, end), target, at, horizon)
    return made


def _one(table: Table, made: Floats, rows: range, target: int, at: int, horizon: int) -> None:
    scaler, model = preprocessing.StandardScaler(), linear_model.LinearRegression(optim.SGD(RATE), intercept_lr=RATE)
    lags: deque[float] = deque(maxlen=LAGS)
    waiting: deque[tuple[int, dict[int, float], float]] = deque()
    scale = 0.0
    for row in rows:
        value = float(table.actual[row, target])
        while waiting and row - waiting[0][0] >= horizon:
            past, features, last = waiting.popleft()
            outcome = float(table.targets[past, at, target])
            if outcome == outcome and scale > 0.0:
                model.learn_one(features, (outcome - last) / scale)
        if value == value:
            if lags:
                scale = abs(value - lags[-1]) if scale == 0.0 else scale + 0.05 * (abs(value - lags[-1]) - scale)
            lags.append(value)
        if len(lags) == LAGS and scale > 0.0:
            raw: dict[int, float] = {back: lags[-1 - back] - lags[-1] for back in range(1, LAGS)}
            scaler.learn_one(raw)
            features = scaler.transform_one(raw)
            change: Any = model.predict_one(features)
            made[row, at, target] = max(0.0, lags[-1] + float(np.clip(change, -50.0, 50.0)) * scale)
            waiting.append((row, features, lags[-1]))
