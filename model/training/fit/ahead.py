"""Training of the network of several horizons: quantile loss, windows cut short at random, and the units that it starts with.

Shapes in the comments: B windows, H horizons. Targets and forecasts are scaled as the version's outputs are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import keras
import numpy as np

from features.definition import SHORT_ROWS
from features.telemetry import Flags, Floats
from model.spec.architecture import Ahead
from model.spec.settings import TrainingSettings
from model.training.dataset import TrainingData
from model.training.fit.loop import Batch, Task, evenly
from model.training.network.ahead import MEMBERS, set_usual, silence_columns
from model.training.network.called import BATCH_WINDOWS, called_in_parts
from model.training.network.relative import COLUMNS, RELATIVE, fit_columns, set_spreads, spreads_of
from model.version.contract import LOWER, MEDIAN, UPPER
from model.windows.index import WindowIndex, targets_at

BATCH_SIZE: Final = 128
EPOCHS_MAX: Final = 60
PATIENCE: Final = 8
LEARNING_RATE: Final = 2e-3
FINE_TUNE_LEARNING_RATE: Final = 5e-4
WEIGHT_DECAY: Final = 1e-3
FITTED_WINDOWS_MAX: Final = 16_384
"""Training windows from which the units of columns and horizons are taken."""

SHORT_SHARE: Final = 0.15
"""Share of the training windows that are cut short, so that the network knows links whose run has just begun."""
FORGOTTEN_SHARE: Final = 0.1
"""Share of the training windows without a context: a consumer may have none, and a new link has none."""
QUANTILE_WEIGHT: Final = 0.3
"""Weight of the two outer quantiles' loss beside the median's: enough to learn the widths, too little to bend the body to them."""
SPREAD_MOST: Final = 100.0
"""Largest spread, in deviations of a target, of a link of which nothing is known."""
_LEAST_ERROR: Final = 1e-6


def is_ahead(model: keras.Model) -> bool:
    """Return whether a network forecasts several horizons."""
    return any(layer.name == MEMBERS for layer in model.layers)


def trained_part(model: keras.Model) -> keras.Model:
    """Return the part of the network, its layers shared, whose weights are trained here: (E, B, H, 4, 3), before blend and bounds."""
    return keras.Model(model.inputs, model.get_layer(MEMBERS).output, name=model.name)


def inputs_of(data: TrainingData, index: WindowIndex) -> list[Floats]:
    """Return the scaled windows (B, T, F) and the context (B, C) of some windows."""
    return [data.windows(index), data.context[index.end]]


def outputs_of(model: keras.Model, data: TrainingData, index: WindowIndex) -> Any:
    """Return the outputs of a network with both inputs for the M windows of index, in parts so that few windows exist at a time."""
    return called_in_parts(model, (inputs_of(data, part) for part in index.parts(BATCH_WINDOWS)))


def fit_units(model: keras.Model, data: TrainingData) -> None:
    """Set the units of columns from the training windows. A column that has not varied yet gets no weights.

    Its first weights are random, and as long as it is constant nothing trains them: in a fine-tuning in which it varies, they would spoil
    the forecasts that the parent makes.
    """
    drawn = data.train.select(evenly(len(data.train), FITTED_WINDOWS_MAX))
    columns = keras.Model(model.inputs, model.get_layer(COLUMNS).input)
    fit_columns(model, outputs_of(columns, data, drawn))
    silence_columns(model)


def fit_usual(model: keras.Model, data: TrainingData, fresh: Flags | None = None) -> None:
    """Set the usual distance from the level at each horizon, (H, 4) in spreads, 1 where a target is not measured.

    Args:
        fresh: bool (4,), the targets whose distance is not known yet: those of the others stay. None: all of them.
    """
    actual, level, spread = _seen(model, data)
    away = np.abs(actual - level[:, None])
    # A ratio of means, not a mean of ratios: a link that hardly varies for hours has next to no spread, and one step is a million of them.
    usual = _means(away, 1.0) / _means(np.where(np.isfinite(away), spread[:, None], np.nan), 1.0)
    (before,) = model.get_layer(MEMBERS).get_weights()
    set_usual(model, usual if fresh is None else np.where(fresh, usual, before))


def fit_spreads(model: keras.Model, data: TrainingData, height: Floats, fresh: Flags | None = None) -> None:
    """Set the spreads of links of which nothing is known, or one value: what is usual in training windows.

    Without a level a target is anywhere, and its distance from the mean, the level then, is as large as the targets themselves.

    Args:
        height: float32 (4,), scaled: of the mean over 0.
        fresh: As of `fit_usual`.
    """
    actual, level, spread = _seen(model, data)
    actual = actual[:, :1]  # (M, 1, 4), of the next row
    known = np.isfinite(actual)
    usual, away, heights, size = (
        _means(np.where(known, each[:, None] if each.ndim < 3 else each, np.nan), 0.0)[0]
        for each in (spread, np.abs(actual - level[:, None]), np.abs(level + height), np.abs(actual))
    )
    unknown, alone = np.clip(size * usual / away, 0.0, SPREAD_MOST), np.clip(usual / heights, 0.0, 1.0)
    if fresh is not None:
        before = spreads_of(model)
        unknown, alone = np.where(fresh, unknown, before[0]), np.where(fresh, alone, before[1])
    set_spreads(model, unknown, alone)


def _seen(model: keras.Model, data: TrainingData) -> tuple[Floats, Floats, Floats]:
    """Return targets (M, H, 4), NaN if not measured, level (M, 4) and spread (M, 4) of training windows, scaled."""
    drawn = data.train.select(evenly(len(data.train), FITTED_WINDOWS_MAX))
    _, level, spread, *_ = outputs_of(keras.Model(model.inputs, model.get_layer(RELATIVE).output), data, drawn)
    return targets_at(data.targets, drawn.ahead), level, spread


def _means(values: Floats, otherwise: float) -> Floats:
    """Return float32 (H, 4), means of values (M, H, 4) over what is known."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64), known.sum(axis=0)
    means = np.divide(total, count, out=np.full(count.shape, otherwise), where=count > 0)
    found: Floats = np.maximum(means, _LEAST_ERROR).astype(np.float32)
    return found


def ahead_task(model: keras.Model, data: TrainingData, sizes: Ahead, settings: TrainingSettings, fine_tuned: bool) -> Task:
    """Return the training of `trained_part`."""
    actual, level, _ = _seen(model, data)
    usual = _means(np.abs(actual - level[:, None]), 1.0)
    random = np.random.default_rng(settings.seed)

    def batch(index: WindowIndex, training: bool) -> Batch:
        inputs = inputs_of(data, index)
        if training:
            _shorten(inputs[0], inputs[1], data.empty, random)
        return inputs, targets_at(data.targets, index.ahead)

    return Task(
        batch=batch,
        loss=quantile_loss(usual, sizes.coverage),
        batch_size=max(settings.batch_size, BATCH_SIZE),
        epochs=min(settings.epochs, EPOCHS_MAX),
        patience=min(settings.patience, PATIENCE),
        learning_rate=FINE_TUNE_LEARNING_RATE if fine_tuned else LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
    )


def _shorten(windows: Floats, context: Floats, empty: Floats, random: np.random.Generator) -> None:
    """Make the first rows of some windows empty ones (F,), and forget the context of some, in place."""
    count, rows = windows.shape[:2]
    for window in np.flatnonzero(random.random(count) < SHORT_SHARE).tolist():
        windows[window, : int(random.integers(1, rows - SHORT_ROWS + 1))] = empty
    context[random.random(count) < FORGOTTEN_SHARE] = np.nan


def quantile_loss(usual: Floats, coverage: float) -> Callable[[Any, Any], Any]:
    """Return the loss of targets (B, H, 4), NaN if missing, and forecasts (E, B, H, 4, 3).

    The mean over members and known targets of the absolute error of the median, and of QUANTILE_WEIGHT times the outer quantiles' pinball
    losses (Koenker and Bassett 1978, "Regression quantiles"). Each pair of horizon and target counts the same: errors are in units of
    what the link's level alone would have.

    Args:
        usual: float32 (H, 4), scaled: mean absolute distance of the targets from the level.
        coverage: Share of the targets between lower and upper forecast.
    """
    tail = 0.5 * (1.0 - coverage)
    weight = (1.0 / usual).astype(np.float32)

    def quantiles(y_true: Any, y_pred: Any) -> Any:
        ops = keras.ops
        missing = ops.isnan(y_true)
        known = 1.0 - ops.cast(missing, y_pred.dtype)
        # The NaN is replaced before the subtraction: 0 * NaN would be NaN, in the gradient too.
        error = ops.where(missing, 0.0, y_true)[..., None] - y_pred  # (E, B, H, 4, 3)
        below = ops.maximum(tail * error[..., LOWER], (tail - 1.0) * error[..., LOWER])
        above = ops.maximum((1.0 - tail) * error[..., UPPER], -tail * error[..., UPPER])
        loss = ops.abs(error[..., MEDIAN]) + 2.0 * QUANTILE_WEIGHT * (below + above)
        return ops.sum(ops.mean(loss, axis=0) * weight * known) / ops.maximum(ops.sum(known), 1.0)

    return quantiles
