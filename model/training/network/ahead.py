"""The network of several horizons: a few small dense networks on relative columns, their average blended with simple forecasts.

Shapes in the comments: B windows, P columns, E members, H horizons, S steady forecasts. Everything is float32.
"""

from __future__ import annotations

from typing import Any, Final

import keras
import numpy as np

from features.telemetry import TARGETS, Floats
from model.spec.architecture import Ahead
from model.training.network.bound_layers import LIMITS, limits_of, pass_all, row_limits
from model.training.network.relative import COLUMNS
from model.version.contract import LOWER, MEDIAN, PLACES, UPPER

DENSE: Final = "ahead_dense_"
MEMBERS: Final = "ahead_members"
BLEND: Final = "ahead_blend"
_METRICS: Final = len(TARGETS)
_QUANTILES: Final = 3
"""Lower, median and upper: what the members forecast."""
_FIRST_WIDTH: Final = 1.5
"""Widths at the start, in units of a horizon's usual error: 90 % of a normal distribution lies within 2.06 mean absolute deviations."""


def members(columns: Any, level: Any, spread: Any, sizes: Ahead) -> Any:
    """Return (E, B, H, 4, 3), the scaled forecasts of each member, for standardised columns (B, P), level and spread (B, 4), scaled.

    The members share a linear part.
    """
    layers, outputs, y = keras.layers, len(sizes.horizons) * _METRICS, columns
    for depth, units in enumerate(sizes.units, start=1):
        y = Members(sizes.members, units, activation="relu", name=f"{DENSE}{depth}")(y)
        y = layers.Dropout(sizes.dropout, name=f"ahead_dropout_{depth}")(y)
    median = layers.Dense(outputs, kernel_initializer="zeros", name="ahead_linear")(columns)
    if sizes.units:
        more = Members(sizes.members, outputs, kernel_initializer="zeros", name="ahead_median")(y)
        median = keras.ops.add(more, median)  # not layers.Add, which would align their first axes
    start = float(np.log(np.expm1(_FIRST_WIDTH)))
    widths = Members(
        sizes.members, 2 * outputs, activation="softplus", kernel_initializer="zeros", bias_initializer=start, name="ahead_width"
    )(y)
    return Anchored(name=MEMBERS)(median, widths, level, spread)


@keras.saving.register_keras_serializable("dwcp")
class Members(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A dense layer of each of E members, as one product: (B, P) or (E, B, P) to (E, B, U)."""

    def __init__(
        self, members: int, units: int, activation: str = "linear", kernel_initializer: str = "glorot_uniform",
        bias_initializer: float = 0.0, **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(**more)
        self._config: dict[str, Any] = {
            "members": members, "units": units, "activation": activation, "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
        }  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._config}

    def build(self, shape: Any) -> None:
        """Add the weights `kernel`, (E, P, U), and `bias`, (E, 1, U)."""
        members, units = self._config["members"], self._config["units"]

        def kernels(wanted: Any, dtype: Any = None) -> Any:
            # An initialiser returns the same numbers at each call: members that shared one would start, and stay, nearly alike.
            firsts = [keras.initializers.get(self._config["kernel_initializer"]) for _ in range(members)]
            return keras.ops.stack([first(wanted[1:], dtype) for first in firsts])

        self.kernel = self.add_weight(shape=(members, shape[-1], units), initializer=kernels, name="kernel")
        constant = keras.initializers.Constant(self._config["bias_initializer"])
        self.bias = self.add_weight(shape=(members, 1, units), initializer=constant, name="bias")
        self._activation = keras.activations.get(self._config["activation"])

    def call(self, inputs: Any) -> Any:
        return self._activation(keras.ops.matmul(inputs, self.kernel) + self.bias)


@keras.saving.register_keras_serializable("dwcp")
class Anchored(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Lower, median and upper forecast in scaled units, which never cross: (E, B, H, 4, 3).

    Medians (E, B, H * 4), or (B, H * 4), and widths (E, B, 2 * H * 4), not negative, are in units of the usual distance from the level at
    each horizon; level (B, 4) and spread (B, 4) are scaled. The weight `usual` has those distances, in spreads: see `set_usual`.
    """

    def build(self, median_shape: Any, widths_shape: Any, level_shape: Any, spread_shape: Any) -> None:  # noqa: ARG002 - Keras's names
        """Add the weight `usual`: (H, 4)."""
        self.usual = self.add_weight(shape=(median_shape[-1] // _METRICS, _METRICS), initializer="ones", trainable=False, name="usual")

    def call(self, median: Any, widths: Any, level: Any, spread: Any) -> Any:
        ops, outputs = keras.ops, median.shape[-1]
        below, above = widths[..., :outputs], widths[..., outputs:]
        relative = ops.stack([median - below, ops.broadcast_to(median, ops.shape(below)), median + above], axis=-1)
        relative = ops.reshape(relative, (widths.shape[0], -1, outputs // _METRICS, _METRICS, _QUANTILES))  # (E, B, H, 4, 3)
        away = (spread[:, None] * self.usual)[..., None]  # (B, H, 4, 1)
        return level[:, None, :, None] + relative * away


@keras.saving.register_keras_serializable("dwcp")
class Blend(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The average of the members, blended with simple forecasts: the forecasts before their bounds, (B, H, 4, 4).

    Members (E, B, H, 4, 3), simple forecasts (B, 4, S) and (B, H, 4, 2), and the forecast of the next row (B, 4), all scaled. Weights:
    `share` (H, 4) of the members, `choice` (H, 4, S + 3), what the rest is made of, in the order of the inputs, `stretch` (H, 4, 2) of
    the widths below and above the median, `skew` (H, 4, 2) and `toward` (H, 4, S + 2): the mean lies those shares of the widths below and
    above, and of the way to each simple forecast, from the median. None is trained: see `model.training.fit.blend`.
    """

    def build(self, members_shape: Any, steady_shape: Any, by_profile_shape: Any, next_row_shape: Any) -> None:  # noqa: ARG002
        """Add the weights: the members alone."""
        horizons = members_shape[2]
        self.share = self.add_weight(shape=(horizons, _METRICS), initializer="ones", trainable=False, name="share")
        choice = (horizons, _METRICS, steady_shape[-1] + by_profile_shape[-1] + 1)
        self.choice = self.add_weight(shape=choice, initializer="zeros", trainable=False, name="choice")
        self.stretch = self.add_weight(shape=(horizons, _METRICS, 2), initializer="ones", trainable=False, name="stretch")
        self.skew = self.add_weight(shape=(horizons, _METRICS, 2), initializer="zeros", trainable=False, name="skew")
        toward = (horizons, _METRICS, steady_shape[-1] + by_profile_shape[-1])
        self.toward = self.add_weight(shape=toward, initializer="zeros", trainable=False, name="toward")

    def call(self, members: Any, steady: Any, by_profile: Any, next_row: Any) -> Any:
        ops = keras.ops
        mean = ops.mean(members, axis=0)  # (B, H, 4, 3)
        known = ops.where(ops.isnan(next_row), 0.0, next_row)
        same = ops.concatenate([steady, known[..., None]], axis=-1)[:, None]  # (B, 1, 4, S + 1)
        of_same = ops.concatenate([self.choice[..., : steady.shape[-1]], self.choice[..., -1:]], axis=-1)
        rest = ops.sum(same * of_same, axis=-1) + ops.sum(by_profile * self.choice[..., steady.shape[-1] : -1], axis=-1)  # (B, H, 4)
        middle = mean[..., MEDIAN]
        median = self.share * middle + (1.0 - self.share) * rest
        below, above = self.stretch[..., 0] * (middle - mean[..., LOWER]), self.stretch[..., 1] * (mean[..., UPPER] - middle)
        moved = self.skew[..., 1] * above - self.skew[..., 0] * below
        moved = moved + ops.sum((steady[:, None] - median[..., None]) * self.toward[..., : steady.shape[-1]], axis=-1)
        moved = moved + ops.sum((by_profile - median[..., None]) * self.toward[..., steady.shape[-1] :], axis=-1)
        return ops.stack([median - below, median, median + above, median + moved], axis=-1)

    def compute_output_shape(self, members_shape: Any, steady_shape: Any, by_profile_shape: Any, next_row_shape: Any) -> Any:  # noqa: ARG002
        return (*members_shape[1:-1], PLACES)


@keras.saving.register_keras_serializable("dwcp")
class AheadBounds(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Limit all forecasts to possible values, and to a multiple of what their target is in the window.

    (B, T, F) and (B, H, 4, 4) to (B, H, 4, 4). The limits are those of `OutputBounds`, but for the lower one, which is 0, and the slack,
    which is what training windows have had at any horizon. They hold lower and upper forecasts as well, so that these stay around the
    median.
    """

    def build(self, windows_shape: Any, forecast_shape: Any) -> None:  # noqa: ARG002 - Keras asks for these names
        """Add the weight `limits`: (11, 4)."""
        self.limits = self.add_weight(shape=(len(LIMITS), _METRICS), initializer=pass_all, trainable=False, name="limits")

    def call(self, windows: Any, forecast: Any) -> Any:
        lower, upper = row_limits(windows, limit := limits_of(self.limits))
        lower, upper, missing = (part[:, None, :, None] for part in (lower, upper, limit["missing"][None]))
        return keras.ops.minimum(keras.ops.maximum(forecast, lower), upper) + missing

    def compute_output_shape(self, windows_shape: Any, forecast_shape: Any) -> Any:  # noqa: ARG002 - Keras asks for these names
        return forecast_shape


@keras.saving.register_keras_serializable("dwcp")
class NextRow(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The median of the first horizon, the next row: (B, H, 4, 4) to (B, 4)."""

    def call(self, forecast: Any) -> Any:
        return forecast[:, 0, :, MEDIAN]


def silence_columns(model: keras.Model) -> None:
    """Make the weights zero that a network's first hidden layer has for columns that have never varied."""
    first = f"{DENSE}1"
    if not any(layer.name == first for layer in model.layers):
        return  # the other layers that read columns start at zero
    (unit,) = model.get_layer(COLUMNS).get_weights()
    kernel, bias = model.get_layer(first).get_weights()  # (E, P, U)
    kernel[:, unit[1] == 0.0] = 0.0
    model.get_layer(first).set_weights([kernel, bias])


def set_usual(model: keras.Model, usual: Floats) -> None:
    """Set the usual distance from the level: float32 (H, 4), spreads."""
    model.get_layer(MEMBERS).set_weights([usual])
