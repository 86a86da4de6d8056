"""Inputs of the linear path: a window's last row, averages of what was measured of each target, and the hour of the day.

Shapes in the comments: B windows, T = 30 steps, F = 44 features, K = 116 inputs. Everything is float32.
"""

from __future__ import annotations

import math
from typing import Any, Final

import keras
import numpy as np

from features.calendar import WEEK_DAYS
from features.definition import FEATURES
from features.telemetry import TARGETS, Flags, Floats
from model.windows.scaler import Scaler

AVERAGES: Final = "averages"
CALENDAR: Final = "calendar"
LINEAR_INPUTS: Final = "linear_inputs"

RATES: Final = (1.0, 0.5, 0.25, 0.12, 0.06, 0.02)
"""Rates of the exponentially weighted averages. 1.0 is the last known value; at 0.02 all values of a window count about the same."""
HOURS: Final = 24
SATURDAY: Final = 5
_HOUR, _WEEKDAY = FEATURES.index("time_of_day"), FEATURES.index("day_of_week")
_OF_HOUR: Final = [FEATURES.index(name) for name in ("time_of_day", "hour_sin", "hour_cos")]
_OF_WEEKDAY: Final = [FEATURES.index(name) for name in ("day_of_week", "weekday_sin", "weekday_cos")]
HOURS_UNSEEN_MAX: Final = 3.0
"""Longest gap, in hours, of a day that counts as seen: a probe every two hours is enough."""
_LAST_ONLY: Final = -69.0  # log of 1e-30: every value before the last one weighs nothing
_DECAYS: Final = tuple(math.log(1.0 - rate) if rate < 1.0 else _LAST_ONLY for rate in RATES)
_TINY: Final = 1e-20

assert FEATURES[: len(TARGETS)] == TARGETS  # the averages are those of the first columns


def linear_inputs(windows: Any, prefix: str = "") -> Any:
    """Return (B, K) for float32 (B, T, F) scaled windows: the last row, TARGETS x RATES averages, 2 x HOURS of the calendar.

    prefix: of the names of its layers.
    """
    last_row = keras.layers.Cropping1D((windows.shape[1] - 1, 0), name=f"{prefix}last_step")(windows)  # (B, 1, F)
    last_row = keras.layers.Flatten(name=f"{prefix}last_row")(last_row)  # (B, F)
    return keras.layers.Concatenate(name=f"{prefix}{LINEAR_INPUTS}")(
        [last_row, Averages(name=f"{prefix}{AVERAGES}")(windows), Calendar(name=f"{prefix}{CALENDAR}")(last_row)]
    )


def averages_of(values: Any, measured: Any) -> Any:
    """Return (B, 4, rates), exponentially weighted averages of values (B, T, 4) at RATES. measured: (B, T, 4), 1 or 0."""
    ops = keras.ops
    after = ops.sum(measured, axis=1, keepdims=True) - ops.cumsum(measured, axis=1)  # (B, T, 4), measured values that came later
    weight = ops.expand_dims(measured, -1) * ops.exp(ops.expand_dims(after, -1) * np.array(_DECAYS, np.float32))  # (B, T, 4, rates)
    total = ops.sum(weight * ops.expand_dims(values, -1), axis=1)  # (B, 4, rates)
    return total / ops.maximum(ops.sum(weight, axis=1), _TINY)


@keras.saving.register_keras_serializable("dwcp")
class Averages(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Exponentially weighted averages of each target's measured values, 0 (its mean) where there is none.

    (B, T, F) scaled windows to (B, TARGETS * RATES). A missing value is exactly 0 in a scaled window. Only measured values count as
    steps, so that a probe every hour among rows of every minute has the average that it would have alone.
    """

    def call(self, windows: Any) -> Any:
        values = windows[:, :, : len(TARGETS)]  # (B, T, 4)
        averages = averages_of(values, keras.ops.sign(keras.ops.abs(values)))
        return keras.ops.reshape(averages, (-1, len(TARGETS) * len(RATES)))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        return (shape[0], len(TARGETS) * len(RATES))


@keras.saving.register_keras_serializable("dwcp")
class Calendar(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The hour of the day as HOURS overlapping triangles, and the same once more for weekends: a daily profile for a linear path.

    (B, F) scaled rows to (B, 2 * HOURS), each 0 to 1. The hour and the weekday are scaled back with the two rows of `unit`, which is
    no trained weight: see `set_calendar`. Triangles and not sines: a profile with office hours in it has corners.
    """

    def build(self, _shape: Any) -> None:
        """Add the weight `unit`: (2, 2), scale and mean of hour and weekday."""
        self.unit = self.add_weight(shape=(2, 2), initializer="zeros", trainable=False, name="unit")

    def call(self, rows: Any) -> Any:
        ops = keras.ops
        hour = rows[:, _HOUR : _HOUR + 1] * self.unit[0, 0] + self.unit[0, 1]  # (B, 1)
        weekday = rows[:, _WEEKDAY : _WEEKDAY + 1] * self.unit[1, 0] + self.unit[1, 1]  # (B, 1), Monday is 0
        away = ops.abs(hour - np.arange(HOURS, dtype=np.float32))  # (B, 24)
        near = ops.relu(1.0 - ops.minimum(away, ops.abs(float(HOURS) - away)))  # midnight is both 0 and 24
        weekend = ops.clip(weekday - float(SATURDAY - 1), 0.0, 1.0)
        return ops.concatenate([near, near * weekend], axis=1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        return (shape[0], 2 * HOURS)


def set_calendar(model: keras.Model, inputs: Scaler) -> None:
    """Set how the network's hours and weekdays are scaled, for every new scaler. A model without a calendar is left alone."""
    unit = [[inputs.scale[column], inputs.mean[column]] for column in (_HOUR, _WEEKDAY)]
    for layer in model.layers:
        if isinstance(layer, Calendar):
            layer.set_weights([np.array(unit, np.float32)])


def unseen_calendar(rows: Floats, inputs: Scaler) -> Flags:
    """Return bool (K,): inputs of the calendar without evidence in the training rows, because whole parts of a day or week are missing.

    An hour that was never seen is extrapolated. With two hours of data the calendar's columns were nearly collinear, got weights of a
    thousand that cancelled each other, and the forecasts of the third hour were meaningless.

    Args:
        rows: float32 (M, K), training rows.
        inputs: their scaler.
    """
    hours = np.unique(rows[:, _HOUR] * inputs.scale[_HOUR] + inputs.mean[_HOUR])
    weekdays = np.unique(np.rint(rows[:, _WEEKDAY] * inputs.scale[_WEEKDAY] + inputs.mean[_WEEKDAY]))
    unseen = np.zeros(len(FEATURES), np.bool_)
    unseen[_OF_HOUR] = np.diff(hours, append=hours[:1] + HOURS).max(initial=0.0) > HOURS_UNSEEN_MAX
    unseen[_OF_WEEKDAY] = len(weekdays) < WEEK_DAYS
    return inputs_of(unseen, rows.shape[1])


def inputs_of(columns: Flags, width: int) -> Flags:
    """Return bool (width,): the linear path's inputs that are made of the features `columns`, bool (F,)."""
    averages = np.repeat(columns[: len(TARGETS)], len(RATES))
    calendar = np.concatenate([np.full(HOURS, columns[_HOUR]), np.full(HOURS, columns[_HOUR] or columns[_WEEKDAY])])
    return np.concatenate([columns, averages, calendar])[:width]
