"""Assembly of the forecasting network: an encoder, dense layers with a skip connection, and a linear path beside them. Bounds limit their
inputs and their forecasts.

Shapes in the comments: B windows, T = 30 steps, F = 44 features, U units of the encoder. Everything is float32 and scaled.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from features.memory import CONTEXT_ROWS
from features.telemetry import TARGETS, Flags, Floats
from model.spec.architecture import Ahead, Architecture
from model.training.network.ahead import BLEND, AheadBounds, Blend, NextRow, members
from model.training.network.bound_layers import INPUT_BOUNDS, NEXT_BOUNDS, OUTPUT_BOUNDS, UNBOUNDED_OUTPUT, InputBounds, OutputBounds
from model.training.network.encoders import ENCODERS, MODEL_PREFIX, encoder_of
from model.training.network.linear_inputs import inputs_of, linear_inputs
from model.training.network.normalise import batch_norm
from model.training.network.relative import COLUMNS, RELATIVE, Columns, Relative
from model.version.contract import AHEAD, CONTEXT

INPUT_NAME = "input"
OUTPUT_NAME = OUTPUT_BOUNDS
LINEAR_PATH = "linear_path"
NONLINEAR_OUTPUT = "nonlinear_output"


def build(architecture: Architecture) -> keras.Model:
    """Return a new network from float32 (B, T, F) scaled windows to float32 (B, 4) scaled forecasts; about 0.9 M parameters by default."""
    layers = keras.layers
    measured = keras.Input((architecture.window_rows, architecture.features), name=INPUT_NAME)  # (B, T, F)
    windows = InputBounds(name=INPUT_BOUNDS)(measured)  # (B, T, F)
    encoded = ENCODERS[architecture.encoder].encode(windows, architecture)  # (B, U)
    nonlinear = linear = None
    if encoded is not None:
        y = _head(encoded, architecture)  # before the next layer is made: the order decides which random numbers each one starts with
        name = NONLINEAR_OUTPUT if architecture.linear_path else UNBOUNDED_OUTPUT
        nonlinear = layers.Dense(architecture.targets, name=name)(y)  # (B, 4)
    if architecture.linear_path:
        # Solved in closed form (linear_path.py) and not trained: steps of 1e-3 on 44 weights of columns that are nearly copies of each
        # other undo the solution faster than the network gains on it.
        inputs = linear_inputs(windows)  # (B, K)
        linear = layers.Dense(architecture.targets, kernel_initializer="zeros", trainable=False, name=LINEAR_PATH)(inputs)  # (B, 4)
    if nonlinear is not None and linear is not None:
        forecast = layers.Add(name=UNBOUNDED_OUTPUT)([nonlinear, linear])  # (B, 4)
    else:
        forecast = nonlinear if linear is None else layers.Identity(name=UNBOUNDED_OUTPUT)(linear)
    name = f"{MODEL_PREFIX}{architecture.encoder}"
    if not architecture.ahead.horizons:
        return keras.Model(measured, OutputBounds(name=OUTPUT_NAME)(measured, forecast), name=name)  # (B, 4)
    next_row = OutputBounds(name=NEXT_BOUNDS)(measured, forecast)  # (B, 4)
    context = keras.Input((len(TARGETS) * (CONTEXT_ROWS + len(architecture.ahead.horizons)),), name=CONTEXT)
    return keras.Model([measured, context], _ahead(measured, windows, context, next_row, architecture.ahead), name=name)


def _ahead(measured: Any, windows: Any, context: Any, next_row: Any, sizes: Ahead) -> list[Any]:
    """Return the median of the next row, (B, 4), and the forecasts of all horizons, (B, H, 4, 4).

    Args:
        measured: (B, T, F), and `windows`, the same within their bounds.
        context: (B, 4 * (3 + H)).
        next_row: (B, 4), the forecast of the next row by the encoder and the linear path.
    """
    relative, level, spread, steady, by_profile = Relative(name=RELATIVE)(measured, context)
    rows = linear_inputs(windows, prefix="ahead_")  # (B, K), layers of its own: the linear path keeps its names
    columns = Columns(name=COLUMNS)(keras.layers.Concatenate(name="ahead_inputs")([relative, rows]))  # (B, P)
    forecasts = Blend(name=BLEND)(members(columns, level, spread, sizes), steady, by_profile, next_row)  # (B, H, 4, 4)
    bounded = AheadBounds(name=AHEAD)(measured, forecasts)
    return [NextRow(name=OUTPUT_NAME)(bounded), bounded]


def _head(encoded: Any, sizes: Any) -> Any:
    """Return (B, 64) for what an encoder returns, (B, U), which also skips the dense layers."""
    layers, y = keras.layers, encoded
    for depth, (units, dropout) in enumerate(zip(sizes.dense_units, sizes.dense_dropout, strict=True), start=1):
        y = layers.Dense(units, activation="relu", name=f"dense_{depth}")(y)  # (B, 192), (B, 128)
        y = batch_norm(f"dense_{depth}_norm")(y)
        y = layers.Dropout(dropout, name=f"dense_{depth}_dropout")(y)
    y = layers.Concatenate(name="skip")([encoded, y])  # (B, U + 128)
    y = layers.Dense(sizes.head_units, activation="relu", name="head")(y)  # (B, 64)
    return layers.Dropout(sizes.head_dropout, name="head_dropout")(y)


def initialise_linear_path(model: keras.Model, kernel: Floats, bias: Floats) -> None:
    """Make an untrained network forecast exactly `linear inputs @ kernel + bias`, so that training starts there and can only add to it.

    The non-linear output starts at zero. Its kernel still has a gradient, because the head's activations are not zero, and the layers below
    have one from the second step on.

    Args:
        model: changed in place.
        kernel: float32 (K, 4), scaled units; K: see linear_inputs.py.
        bias: float32 (4,), scaled units.

    Raises:
        ValueError: if the model has no linear path, or the shapes do not fit it.
    """
    layers = {layer.name: layer for layer in model.layers}
    if LINEAR_PATH not in layers:
        raise ValueError("this network was built without a linear path; build it with linear_path=True in its architecture")
    if (nonlinear := layers.get(NONLINEAR_OUTPUT)) is not None:
        nonlinear.set_weights([np.zeros_like(weight) for weight in nonlinear.get_weights()])
    layers[LINEAR_PATH].set_weights([kernel, bias])


def silence_features(model: keras.Model, columns: Flags) -> None:
    """Make the network blind to some input features.

    Such a feature is 0 in every training window, so its weights stay random as at the start. When it begins to vary, it is not scaled, and
    these weights would spoil every forecast. Silenced weights stay 0 until a fine-tuning in which the feature varies.

    Args:
        model: changed in place.
        columns: bool (F,), the features that do not vary in the training data.

    Raises:
        ValueError: if a layer that the encoder names is missing, or nothing in the network reads features.
    """
    layers, readers = {layer.name: layer for layer in model.layers}, encoder_of(model).READERS
    if not (readers or LINEAR_PATH in layers) or not layers.keys() >= set(readers):
        raise ValueError(f"the network {model.name!r} lacks a layer that reads features ({', '.join(readers) or LINEAR_PATH})")
    for name in readers:
        kernel, *others = layers[name].get_weights()  # (F, units), or (T * F, units) of flattened windows
        silent = np.tile(columns, len(kernel) // len(columns))
        layers[name].set_weights([np.where(silent[:, None], 0.0, kernel), *others])
    if LINEAR_PATH in layers:
        kernel, *others = layers[LINEAR_PATH].get_weights()  # (K, 4)
        layers[LINEAR_PATH].set_weights([np.where(inputs_of(columns, len(kernel))[:, None], 0.0, kernel), *others])


def renewed(parent: keras.Model, architecture: Architecture) -> keras.Model:
    """Return a network as this release builds it, with a parent's weights.

    Layers that the parent's release did not have are as `build` leaves them.

    Raises:
        ValueError: if a layer of the parent is not one of this architecture.
    """
    model = build(architecture)
    layer_of = {layer.name: layer for layer in model.layers}
    for layer in parent.layers:
        # Without a linear path the last dense layer of older releases has the name that the bounds have now.
        name = UNBOUNDED_OUTPUT if layer.name == OUTPUT_NAME and not isinstance(layer, OutputBounds) else layer.name
        weights = layer.get_weights()
        if weights and name not in layer_of:
            raise ValueError(f"the parent's layer {layer.name!r} is not one of this architecture; train a first version without a parent")
        if weights:
            layer_of[name].set_weights(weights)
    return model


def inference_clone(model: keras.Model) -> keras.Model:
    """Return a copy of the network with the same weights and without dropout, in the form that tf2onnx converts to fast operators."""
    config, encoder = model.get_config(), encoder_of(model)
    for layer in config["layers"]:
        if layer["class_name"] == "Dropout":
            layer["config"] |= {"rate": 0.0}
        encoder.plain(layer)
    clone = keras.Model.from_config(config)  # not clone_model, which would want the loss and the optimiser as well
    clone.set_weights(model.get_weights())  # without the seed generators, which a layer without dropout does not have
    return clone
