"""Bounds of the network: the layers at both ends that limit its inputs and its forecasts; see bounds.py for the limits themselves.

They are part of the graph, so that every runtime has them. Shapes in the comments: B windows, T = 30 steps, F = 44 features.
Everything is float32 and scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import keras
import numpy as np

from features.telemetry import TARGETS, Flags, Floats
from model.version.possible import highest_scaled, lowest_scaled
from model.windows.bounds import MULTIPLE, Bounds
from model.windows.scaler import Scaler

INPUT_BOUNDS: Final = "input_bounds"
OUTPUT_BOUNDS: Final = "output"
NEXT_BOUNDS: Final = "next_row"
"""Name of the same layer in a network of several horizons, where it is one part of what is blended."""
UNBOUNDED_OUTPUT: Final = "unbounded_output"
_HUGE: Final = 3e38
"""Over every scaled value that is not missing."""
LEVEL_ROWS: Final = 7
"""Newest measured rows whose median is the level of a target: four rows of another size are a level, three are a spike or an outage. With
fewer measured rows it is the median of these, the smaller of two."""
LIMITS: Final = (
    "upper_factor", "upper_offset", "lower_factor", "lower_offset", "edge", "carry", "slack", "unshown", "lowest", "highest", "missing",
)  # fmt: skip
_PASS_ALL: Final = {
    "upper_factor": 1.0, "slack": _HUGE, "unshown": _HUGE, "lower_offset": -_HUGE, "edge": _HUGE, "lowest": -_HUGE, "highest": _HUGE,
}  # fmt: skip
"""Limits that let every number pass; those that are not named are 0."""


@keras.saving.register_keras_serializable("dwcp")
class InputBounds(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Hold each feature to its edges: (B, T, F) to (B, T, F). A missing value, 0, stays 0.

    The edges are not trained: see `set_bounds`. Before that they let everything pass.
    """

    def build(self, shape: Any) -> None:
        """Add the weight `edges`: (2, F), lowest and highest."""
        self.edges = self.add_weight(shape=(2, shape[-1]), initializer=_everything, trainable=False, name="edges")

    def call(self, windows: Any) -> Any:
        return keras.ops.minimum(keras.ops.maximum(windows, self.edges[0]), self.edges[1])

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


@keras.saving.register_keras_serializable("dwcp")
class OutputBounds(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Limit each forecast to possible values, and to the range of its target in the window: (B, T, F) and (B, 4) to (B, 4).

    The forecast of a target that was never measured in training becomes NaN. If a target's level lies over the upper edge of the network's
    input, the link is of another size: the excess over the edge is added to the forecast.
    The limits are not trained: see `set_bounds`. Before that they let everything pass.
    """

    def build(self, windows_shape: Any, forecast_shape: Any) -> None:  # noqa: ARG002 - Keras asks for these names
        """Add the weight `limits`: (11, 4), a row for each of LIMITS."""
        self.limits = self.add_weight(shape=(len(LIMITS), len(TARGETS)), initializer=pass_all, trainable=False, name="limits")

    def call(self, windows: Any, forecast: Any) -> Any:
        """Return the limited forecasts, (B, 4). windows: before their features were limited to the edges."""
        ops, limit = keras.ops, limits_of(self.limits)
        lower, upper = row_limits(windows, limit)
        carried = forecast + ops.relu(_level(windows[:, :, : len(TARGETS)]) - limit["edge"]) * limit["carry"]
        return ops.minimum(ops.maximum(carried, lower), upper) + limit["missing"]

    def compute_output_shape(self, windows_shape: Any, forecast_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:  # noqa: ARG002
        return forecast_shape


def limits_of(limits: Any) -> dict[str, Any]:
    """Return the rows (4,) of limits (11, 4) by name."""
    return {name: limits[index] for index, name in enumerate(LIMITS)}


def row_limits(windows: Any, limit: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return lowest and highest forecast, (B, 4) each, for windows (B, T, F) before their features were limited to the edges."""
    ops = keras.ops
    values = windows[:, :, : len(TARGETS)]  # (B, T, 4)
    away = ops.cast(ops.equal(values, 0.0), values.dtype) * _HUGE  # (B, T, 4), over every value where there is none, else 0
    most = ops.max(values - away, axis=1)  # (B, 4), -_HUGE if nothing was measured
    least = ops.minimum(ops.min(values + away, axis=1), most)
    upper = ops.maximum(most * limit["upper_factor"] + limit["upper_offset"], limit["slack"])
    upper = ops.maximum(upper, ops.minimum(limit["unshown"], -0.5 * _HUGE - most))  # `unshown` if nothing was measured
    upper = ops.minimum(upper, limit["highest"])
    return ops.maximum(least * limit["lower_factor"] + limit["lower_offset"], limit["lowest"]), upper


def _level(values: Any) -> Any:
    """Return the median of the newest measured values: (B, T, 4), 0 if missing, to (B, 4); -_HUGE if nothing was measured."""
    ops = keras.ops
    measured = ops.cast(ops.not_equal(values, 0.0), values.dtype)  # (B, T, 4)
    count = ops.cumsum(measured, axis=1)
    total = count[:, -1:]  # (B, 1, 4)
    newest = ops.minimum(measured, ops.relu(count - total + LEVEL_ROWS))  # 1 for the last LEVEL_ROWS of the measured, else 0
    known = ops.transpose(values * newest - _HUGE * (1.0 - newest), (0, 2, 1))  # (B, 4, T)
    largest = ops.top_k(known, min(LEVEL_ROWS, values.shape[1]))[0]  # (B, 4, LEVEL_ROWS), falling
    middle = ops.floor(ops.minimum(total[:, 0], LEVEL_ROWS) / 2.0)  # (B, 4)
    chosen = ops.equal(ops.expand_dims(middle, -1), np.arange(largest.shape[-1], dtype=np.float32))
    return ops.sum(largest * ops.cast(chosen, largest.dtype), axis=-1)


def pass_all(shape: Any, dtype: Any = None) -> Any:
    """Return limits that let every number pass."""
    rows = np.array([[_PASS_ALL.get(name, 0.0)] for name in LIMITS], np.float32)
    return keras.ops.convert_to_tensor(np.broadcast_to(rows, shape), dtype)


def _everything(shape: Any, dtype: Any = None) -> Any:
    """Return edges that let every number pass."""
    return keras.ops.convert_to_tensor(np.broadcast_to(np.array([[-_HUGE], [_HUGE]], np.float32), shape), dtype)


def set_bounds(model: keras.Model, bounds: Bounds, inputs: Scaler, outputs: Scaler) -> None:
    """Write the bounds into the layers of a network. inputs, outputs: its scalers."""
    model.get_layer(INPUT_BOUNDS).set_weights([np.stack([bounds.low, bounds.high])])
    scale_in, mean_in = (part[: len(TARGETS)].astype(np.float64) for part in (inputs.scale, inputs.mean))
    scale_out, mean_out = outputs.scale.astype(np.float64), outputs.mean.astype(np.float64)
    lowest = lowest_scaled(outputs)

    def scaled(values: Floats) -> Floats:
        return np.maximum((values - mean_out) / scale_out, lowest)

    # A target that never varied in training is 0 once it is scaled, as a missing one is: what the window shows is only what differs.
    varied = outputs.fitted
    slack = np.where(varied, bounds.slack, np.maximum(bounds.slack, bounds.unshown))
    limits = {
        "upper_factor": MULTIPLE * scale_in / scale_out,
        "upper_offset": (MULTIPLE * mean_in - mean_out) / scale_out,
        "lower_factor": np.where(varied, scale_in / MULTIPLE / scale_out, 0.0),
        "lower_offset": np.where(varied, (mean_in / MULTIPLE - mean_out) / scale_out, -_HUGE),
        "edge": bounds.high[: len(TARGETS)],
        "carry": np.where(varied, scale_in / scale_out, 0.0),
        "slack": scaled(slack),
        "unshown": scaled(bounds.unshown),
        "lowest": lowest,
        "highest": highest_scaled(outputs),
        "missing": np.where(bounds.measured, 0.0, np.nan),
    }
    huge = float(np.finfo(np.float32).max)
    rows = [np.clip(np.asarray(limits[name], np.float64), -huge, huge) for name in LIMITS]
    for layer in model.layers:
        if isinstance(layer, OutputBounds):
            layer.set_weights([np.array(rows, np.float32)])
        elif _limits_ahead(layer):  # a link may well fall to a tenth within hours
            further = dict(zip(LIMITS, rows, strict=True)) | {
                "lower_factor": np.zeros(len(TARGETS)),
                "lower_offset": np.full(len(TARGETS), -_HUGE),
                "slack": scaled(np.maximum(slack, bounds.ahead_slack)),
            }
            layer.set_weights([np.array([further[name] for name in LIMITS], np.float32)])


def read_bounds(model: keras.Model, outputs: Scaler) -> Bounds | None:
    """Return the bounds in the layers of a network; None if it was made by a release without bounds."""
    layers = {type(layer): layer for layer in model.layers if isinstance(layer, InputBounds | OutputBounds)}
    if len(layers) != 2:
        return None
    low, high = layers[InputBounds].get_weights()[0]
    limit = dict(zip(LIMITS, layers[OutputBounds].get_weights()[0], strict=True))
    measured: Flags = ~np.isnan(limit["missing"])
    further = next((layer.get_weights()[0] for layer in model.layers if _limits_ahead(layer)), layers[OutputBounds].get_weights()[0])
    scaled = limit["slack"], limit["unshown"], further[LIMITS.index("slack")]
    slack, unshown, ahead_slack = (np.maximum(outputs.inverse(each), np.float32(0)) for each in scaled)
    return Bounds(low, high, slack, unshown, measured, ahead_slack)


def _limits_ahead(layer: Any) -> bool:
    """Return whether a layer limits the forecasts of all horizons: `model.training.network.ahead.AheadBounds`."""
    return hasattr(layer, "limits") and not isinstance(layer, OutputBounds)


def forecast_targets(model: keras.Model) -> Flags:
    """Return bool (4,): the targets that a network forecasts. The others were never measured in its training."""
    layer = next((layer for layer in model.layers if isinstance(layer, OutputBounds)), None)
    if layer is None:
        return np.ones(len(TARGETS), np.bool_)
    measured: Flags = ~np.isnan(layer.get_weights()[0][LIMITS.index("missing")])
    return measured


def unbounded(model: keras.Model) -> keras.Model:
    """Return the same network, its layers shared, up to its forecast before the bounds: what is trained.

    Bounds have no gradient where they hold, and a forecast of NaN, of a target that was never measured, has none at all.
    """
    if not any(layer.name == UNBOUNDED_OUTPUT for layer in model.layers):
        return model
    return keras.Model(model.inputs[0], model.get_layer(UNBOUNDED_OUTPUT).output, name=model.name)
