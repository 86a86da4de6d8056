"""The forecasting network: three LSTMs, attention over time, dense layers with a skip connection, and a linear path beside them,
between bounds of what they read and of what they forecast.

Shapes in the comments: B windows, T = 30 steps, F = 44 features. Everything is float32 and scaled.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from features.telemetry import Flags, Floats
from model.spec.job import Architecture
from model.training.network.bound_layers import INPUT_BOUNDS, OUTPUT_BOUNDS, UNBOUNDED_OUTPUT, InputBounds, OutputBounds
from model.training.network.linear_inputs import inputs_of, linear_inputs

INPUT_NAME = "input"
OUTPUT_NAME = OUTPUT_BOUNDS
LINEAR_PATH = "linear_path"
NONLINEAR_OUTPUT = "nonlinear_output"

BATCH_NORM_MOMENTUM = 0.9
"""A fine-tuning may be 80 steps long. Keras's default of 0.99 has then moved the running statistics only 1 - .99**80 = 55 % of the
way to the data, and inference would normalise with numbers that training never saw; 0.9 has moved them 99.98 %."""


def build(architecture: Architecture) -> keras.Model:
    """A new network, float32 (B, T, F) scaled windows to float32 (B, 4) scaled forecasts; about 0.9 M parameters by default."""
    layers = keras.layers
    measured = keras.Input((architecture.window_rows, architecture.features), name=INPUT_NAME)  # (B, T, F)
    x = windows = InputBounds(name=INPUT_BOUNDS)(measured)  # (B, T, F)
    for depth, (units, dropout) in enumerate(zip(architecture.lstm_units, architecture.lstm_dropout, strict=True), start=1):
        x = layers.LSTM(
            units,
            return_sequences=True,
            dropout=dropout,
            recurrent_dropout=architecture.recurrent_dropout,
            kernel_regularizer=keras.regularizers.L2(architecture.l2),
            name=f"lstm_{depth}",
        )(x)  # (B, T, 256), (B, T, 192), (B, T, 128)
        x = _batch_norm(f"lstm_{depth}_norm")(x)

    context = _attention(x, architecture.lstm_units[-1])  # (B, 128)

    y = context
    for depth, (units, dropout) in enumerate(zip(architecture.dense_units, architecture.dense_dropout, strict=True), start=1):
        y = layers.Dense(units, activation="relu", name=f"dense_{depth}")(y)  # (B, 192), (B, 128)
        y = _batch_norm(f"dense_{depth}_norm")(y)
        y = layers.Dropout(dropout, name=f"dense_{depth}_dropout")(y)
    y = layers.Concatenate(name="skip")([context, y])  # (B, 128 + 128)
    y = layers.Dense(architecture.head_units, activation="relu", name="head")(y)  # (B, 64)
    y = layers.Dropout(architecture.head_dropout, name="head_dropout")(y)

    if not architecture.linear_path:
        forecast = layers.Dense(architecture.targets, name=UNBOUNDED_OUTPUT)(y)  # (B, 4)
        return keras.Model(measured, OutputBounds(name=OUTPUT_NAME)(measured, forecast), name="bandwidth_lstm")
    nonlinear = layers.Dense(architecture.targets, name=NONLINEAR_OUTPUT)(y)  # (B, 4)
    # Solved in closed form (linear_path.py) and not trained: steps of 1e-3 on 44 weights of columns that are nearly copies of each
    # other undo the solution faster than the network gains on it.
    inputs = linear_inputs(windows)  # (B, K)
    linear = layers.Dense(architecture.targets, kernel_initializer="zeros", trainable=False, name=LINEAR_PATH)(inputs)  # (B, 4)
    forecast = layers.Add(name=UNBOUNDED_OUTPUT)([nonlinear, linear])  # (B, 4)
    return keras.Model(measured, OutputBounds(name=OUTPUT_NAME)(measured, forecast), name="bandwidth_lstm")


def _attention(x: Any, units: int) -> Any:
    """Weighs the T steps of each channel by a softmax of a tanh score: (B, T, U) to (B, U).

    After Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, section 3.1, with one score per channel instead of one per step.
    """
    layers = keras.layers
    score = layers.Dense(units, activation="tanh", name="attention_score")(x)  # (B, T, 128)
    weight = layers.Softmax(axis=1, name="attention_weight")(score)  # (B, T, 128), sums to 1 over T
    weighted = layers.Multiply(name="attention_weighted")([x, weight])  # (B, T, 128)
    return keras.ops.sum(weighted, axis=1)  # (B, 128)


def _batch_norm(name: str) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=name)


def initialise_linear_path(model: keras.Model, kernel: Floats, bias: Floats) -> None:
    """Makes an untrained network forecast exactly `linear inputs @ kernel + bias`, so that training starts there and can only add to it.

    kernel: float32 (K, 4), bias: float32 (4,), scaled units; K: see linear_inputs.py. The non-linear output starts at zero; its kernel
    still has a gradient (the head's activations are not zero), and the layers below have one from the second step on.
    ValueError: the model has no linear path, or the shapes do not fit it.
    """
    names = {layer.name for layer in model.layers}
    if LINEAR_PATH not in names:
        raise ValueError("this network was built without a linear path; build it with Architecture(linear_path=True)")
    nonlinear = model.get_layer(NONLINEAR_OUTPUT)
    nonlinear.set_weights([np.zeros_like(weight) for weight in nonlinear.get_weights()])
    model.get_layer(LINEAR_PATH).set_weights([kernel, bias])


def silence_features(model: keras.Model, columns: Flags) -> None:
    """Makes the network blind to some input features. columns: bool (F,), those that do not vary in what it is trained on.

    Such a column is 0 in every training window, so its weights stay the random ones of the start; when it begins to vary, unscaled as
    it is, they would throw every forecast off. Silenced ones stay 0, until a fine-tuning in which the column varies.
    """
    for name in ("lstm_1", LINEAR_PATH):
        layer = next((layer for layer in model.layers if layer.name == name), None)
        if layer is not None:
            kernel, *others = layer.get_weights()  # (F or K, units)
            layer.set_weights([np.where(inputs_of(columns, len(kernel))[:, None], 0.0, kernel), *others])


def renewed(parent: keras.Model, architecture: Architecture) -> keras.Model:
    """Return a network as this release builds it, with a parent's weights. What the parent's release did not have is as `build` leaves it.

    Raises ValueError where a layer of the parent is not one of this architecture.
    """
    model = build(architecture)
    own = {layer.name: layer for layer in model.layers}
    for layer in parent.layers:
        # Without a linear path the last dense layer of older releases has the name that the bounds have now.
        name = UNBOUNDED_OUTPUT if layer.name == OUTPUT_NAME and not isinstance(layer, OutputBounds) else layer.name
        weights = layer.get_weights()
        if weights and name not in own:
            raise ValueError(f"the parent's layer {layer.name!r} is not one of this architecture; train a first version without a parent")
        if weights:
            own[name].set_weights(weights)
    return model


def inference_clone(model: keras.Model) -> keras.Model:
    """A copy of the network with the same weights and no dropout of any kind, which tf2onnx turns into three LSTM operators.

    With recurrent dropout Keras computes the four gates as separate products even when it infers; tf2onnx then finds no LSTM and
    exports a loop that is 6.6 times slower.
    """
    config = model.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "LSTM":
            layer["config"] |= {"dropout": 0.0, "recurrent_dropout": 0.0}
        elif layer["class_name"] == "Dropout":
            layer["config"] |= {"rate": 0.0}
    clone = keras.Model.from_config(config)  # not clone_model, which would want the loss and the optimiser as well
    clone.set_weights(model.get_weights())  # without the seed generators, which a layer without dropout does not have
    return clone
