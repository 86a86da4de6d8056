"""Windows relative to the link's own level: what the network of several horizons reads, and the simple forecasts that it is blended with.

What is learnt on one link so holds for another of any size. Absolute levels, the hour and the last row stand beside it, because some
links do follow them. Shapes in the comments: B windows, T = 30 steps, H horizons, M = 4 targets. Everything is float32; "scaled" is in
the units of the version's outputs.
"""

from __future__ import annotations

from typing import Any, Final

import keras
import numpy as np

from features.telemetry import TARGETS, Floats
from model.training.network.linear_inputs import RATES, averages_of
from model.windows.scaler import Scaler

RELATIVE: Final = "relative"
COLUMNS: Final = "columns"
STEADY: Final = (*(f"average_{rate:g}" for rate in RATES), "slow_level")
BY_PROFILE: Final = ("profile_difference", "profile_ratio")
"""Simple forecasts: averages of the window and the link's slow level, the same at each horizon; and the level moved as the link's hourly
profile moves until then, by its difference and by its ratio."""
_LEVEL_RATE: Final = RATES.index(0.12)
_METRICS: Final = len(TARGETS)
_LIMIT: Final = 1e6
"""Largest scaled value: more is a fault, and would leave no digits to the others."""
_FAR: Final = 1e4
"""Largest difference from the level, in spreads."""
_HELD: Final = 300.0
"""Largest difference that is read as it is: the daily swing of a profile may be a hundred times the spread of neighbours."""
_GROWTH: Final = (0.2, 5.0)
"""Smallest and largest share of its value now that a profile may have at a horizon."""
_LEAST_SPREAD: Final = 1e-3
"""Smallest spread, as a share of the level."""
_TINY: Final = 1e-6
_CLIP: Final = 8.0
LEAST_DEVIATION: Final = 1e-2
"""A column that varied by less in training is not read: in its deviations, the rounding of another window would be a forecast."""


@keras.saving.register_keras_serializable("dwcp")
class Relative(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Level and spread of each target, the window and the context relative to them, and the simple forecasts.

    Windows (B, T, F), scaled as the inputs are, 0 where missing, and context (B, 4 * (3 + H)), engineering units, NaN where not known, to
    columns (B, P), level (B, 4), spread (B, 4) and the simple forecasts STEADY (B, 4, 7) and BY_PROFILE (B, H, 4, 2), scaled as the
    outputs are.

    The level is an exponentially weighted average of the window (rate .12), or the link's slow level if the window shows nothing. The
    spread is the link's own, or the window's mean absolute deviation if the context is not known. If the window has only one value or none,
    it is the usual spread of training windows.

    All is computed from differences to one value of the window, its largest. So equal values differ by exactly 0, whatever their size: the
    rounding of a sum would be as large as the spread of a loss that is 0 all the time, and no two runtimes round a sum alike.
    """

    def build(self, windows_shape: Any, context_shape: Any) -> None:  # noqa: ARG002 - Keras asks for these names
        """Add the weight `unit`: (8, 4).

        Scale and mean of the inputs, factor and offset from inputs to outputs, scale and mean of these; spread of a link of which nothing
        is known, and that of one of which one value is, as a share of its height.
        """
        self.unit = self.add_weight(shape=(8, _METRICS), initializer=_same_units, trainable=False, name="unit")

    def call(self, windows: Any, context: Any) -> Any:
        ops, rows = keras.ops, windows.shape[1]
        in_scale, in_mean, factor, offset, scale, mean, unknown, alone = (self.unit[row] for row in range(8))
        shown = windows[:, :, :_METRICS]  # (B, T, 4)
        measured = ops.sign(ops.abs(shown))
        values = ops.clip(shown * factor + offset, -_LIMIT, _LIMIT) * measured
        any_measured = ops.max(measured, axis=1, keepdims=True)  # (B, 1, 4)
        own, own_spread, knows = _context(context, scale)  # (B, 2 + H, 4): slow level, profile now and at the horizons
        # Scaled by the same steps as the windows, so that equal values stay equal; 0, the mean, if not known. A constant divisor would
        # become a factor in the exported graph, which rounds otherwise.
        own = (own - in_mean) / ops.where(knows > 0.0, in_scale, 1.0)
        own = ops.clip(own * factor + offset, -_LIMIT, _LIMIT) * knows
        largest = ops.max(ops.where(measured > 0.0, values, -_LIMIT), axis=1, keepdims=True)
        base = ops.where(any_measured > 0.0, largest, own[:, :1])  # (B, 1, 4)
        rows_apart = (values - base) * measured  # (B, T, 4)
        averages = averages_of(rows_apart, measured)  # (B, 4, rates), less the base
        level_apart = any_measured * averages[:, None, :, _LEVEL_RATE]  # (B, 1, 4)
        level = base + level_apart
        height = level + mean / scale  # above 0 in the targets' units
        count = ops.sum(measured, axis=1, keepdims=True)
        deviation = ops.sum(ops.abs(rows_apart - level_apart) * measured, axis=1, keepdims=True) / ops.maximum(count, 1.0)
        deviation = ops.where(count > 1.0, deviation, ops.where(count > 0.0, alone * ops.abs(height), unknown))
        spread = ops.where(own_spread > 0.0, ops.maximum(own_spread, 0.5 * deviation * ops.minimum(count, 1.0)), deviation)
        spread = ops.maximum(spread, _LEAST_SPREAD * ops.abs(height) + _TINY)  # (B, 1, 4)

        known = ops.concatenate([measured, ops.repeat(any_measured, len(RATES), axis=1), knows], axis=1)
        from_base = ops.concatenate([rows_apart, ops.transpose(averages, (0, 2, 1)), own - base], axis=1)  # (B, T + rates + 2 + H, 4)
        apart = ops.clip((from_base - level_apart) / spread, -_FAR, _FAR) * known
        now, ahead = rows + len(RATES) + 1, rows + len(RATES) + 2
        both = knows[:, 1:2] * knows[:, 2:]  # (B, H, 4)
        moved = (apart[:, ahead:] - apart[:, now:ahead]) * both
        heights = height / spread
        own_height = own + mean / scale
        grown = own_height[:, 2:] / ops.maximum(own_height[:, 1:2], _TINY)  # as a share of the profile now
        grown = (ops.clip(grown, *_GROWTH) - 1.0) * heights * both
        units = height * scale
        columns = ops.concatenate([
            ops.arcsinh(apart / 2.0), known, _held(apart[:, rows : ahead]), _held(moved), _held(grown), ops.arcsinh(moved),
            ops.clip(ops.log(spread / ops.maximum(ops.abs(height), _TINY)), -8.0, 3.0),
            ops.sign(units) * ops.log(1.0 + ops.abs(units)), level, own,
        ], axis=1)  # fmt: skip
        slow = ops.where(knows[:, :1] > 0.0, own[:, :1], level)
        steady = ops.concatenate(
            [ops.where(any_measured[:, 0, :, None] > 0.0, base[:, 0, :, None] + averages, level[:, 0, :, None]), slow[:, 0, :, None]],
            axis=-1,
        )
        by_profile = level[..., None] + ops.stack([moved, grown], axis=-1) * spread[..., None]  # (B, H, 4, 2)
        return ops.reshape(columns, (-1, columns.shape[1] * _METRICS)), level[:, 0], spread[:, 0], steady, by_profile


def _held(apart: Any) -> Any:
    return keras.ops.clip(apart, -_HELD, _HELD)


def _context(context: Any, scale: Any) -> tuple[Any, Any, Any]:
    """Return what the link remembers, 0 where it is not known, its spread, and which of it is known.

    (B, 2 + H, 4), slow level, profile now and at the horizons, engineering units; the spread (B, 1, 4), scaled; (B, 2 + H, 4), 1 or 0.
    """
    ops = keras.ops
    rows = ops.reshape(context, (-1, context.shape[-1] // _METRICS, _METRICS))  # (B, 3 + H, 4)
    spread, rows = rows[:, 1:2], ops.concatenate([rows[:, :1], rows[:, 2:]], axis=1)
    knows = 1.0 - ops.cast(ops.isnan(rows), rows.dtype)
    spread = ops.clip(ops.where(ops.isnan(spread), 0.0, spread) / scale, 0.0, _LIMIT)
    return ops.where(ops.isnan(rows), 0.0, rows), spread, knows


def _same_units(shape: Any, dtype: Any = None) -> Any:
    rows = np.array([[1.0], [0.0], [1.0], [0.0], [1.0], [0.0], [0.0], [0.0]], np.float32)
    return keras.ops.convert_to_tensor(np.broadcast_to(rows, shape), dtype)


@keras.saving.register_keras_serializable("dwcp")
class Columns(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Standardised columns: (B, P) to (B, P), each within 8 deviations. A column that never varied in training is 0: see `fit_columns`."""

    def build(self, shape: Any) -> None:
        """Add the weight `unit`: (2, P), mean and factor."""
        self.unit = self.add_weight(shape=(2, shape[-1]), initializer="zeros", trainable=False, name="unit")

    def call(self, columns: Any) -> Any:
        return keras.ops.clip((columns - self.unit[0]) * self.unit[1], -_CLIP, _CLIP)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


def set_units(model: keras.Model, inputs: Scaler, outputs: Scaler) -> None:
    """Tell the layer how windows and context are scaled. inputs, outputs: scalers of the network."""
    in_scale, in_mean = (part[:_METRICS].astype(np.float64) for part in (inputs.scale, inputs.mean))
    scale, mean = outputs.scale.astype(np.float64), outputs.mean.astype(np.float64)
    (unit,) = model.get_layer(RELATIVE).get_weights()
    unit[:6] = np.stack([in_scale, in_mean, in_scale / scale, (in_mean - mean) / scale, scale, mean])
    model.get_layer(RELATIVE).set_weights([unit])


def set_spreads(model: keras.Model, unknown: Floats, alone: Floats) -> None:
    """Set the spread of a link of which nothing is known, (4,) scaled, and of one of which one value is, (4,) as a share of its height."""
    (unit,) = model.get_layer(RELATIVE).get_weights()
    unit[6], unit[7] = unknown, alone
    model.get_layer(RELATIVE).set_weights([unit])


def spreads_of(model: keras.Model) -> tuple[Floats, Floats]:
    """Return what `set_spreads` has set."""
    (unit,) = model.get_layer(RELATIVE).get_weights()
    return unit[6], unit[7]


def fit_columns(model: keras.Model, columns: Floats) -> None:
    """Fit the columns that have not varied before, so that a network that is fine-tuned keeps its parent's units.

    Args:
        columns: float32 (N, P), unscaled, of training windows.
    """
    layer = model.get_layer(COLUMNS)
    (unit,) = layer.get_weights()
    mean, deviation = columns.mean(axis=0, dtype=np.float64), columns.std(axis=0, dtype=np.float64)
    varies = deviation > LEAST_DEVIATION * np.maximum(1.0, np.abs(mean))
    new = varies & (unit[1] == 0.0)
    unit[0, new], unit[1, new] = mean[new], 1.0 / deviation[new]
    layer.set_weights([unit])
