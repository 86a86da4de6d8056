"""LSTM encoder: stacked LSTM layers, each with batch normalisation, and attention over time. The published network."""

from __future__ import annotations

from typing import Any, Final

import keras

from model.spec.architecture import Lstm
from model.training.network.fused_lstm import fused_twin
from model.training.network.normalise import batch_norm

READERS: Final = ("lstm_1",)

twin = fused_twin


def encode(windows: Any, sizes: Lstm) -> Any:
    """Return (B, U) for windows (B, T, F); U: units of the last layer, 128 by default."""
    x = windows
    for depth, (units, dropout) in enumerate(zip(sizes.lstm_units, sizes.lstm_dropout, strict=True), start=1):
        x = keras.layers.LSTM(
            units,
            return_sequences=True,
            dropout=dropout,
            recurrent_dropout=sizes.recurrent_dropout,
            kernel_regularizer=keras.regularizers.L2(sizes.l2),
            name=f"lstm_{depth}",
        )(x)  # (B, T, 256), (B, T, 192), (B, T, 128)
        x = batch_norm(f"lstm_{depth}_norm")(x)
    return _attention(x, sizes.lstm_units[-1])  # (B, 128)


def plain(layer: dict[str, Any]) -> None:
    """Remove the dropout of an LSTM.

    With recurrent dropout Keras computes the four gates as separate products even when it infers; tf2onnx then finds no LSTM and
    exports a loop that is 6.6 times slower.
    """
    if layer["class_name"] == "LSTM":
        layer["config"] |= {"dropout": 0.0, "recurrent_dropout": 0.0}


def operators(model: keras.Model, quantised: bool) -> dict[str, int]:
    """Return one LSTM operator for each layer."""
    layers = sum(isinstance(layer, keras.layers.LSTM) for layer in model.layers)
    return {"DynamicQuantizeLSTM" if quantised else "LSTM": layers}


def _attention(x: Any, units: int) -> Any:
    """Weigh the T steps of each channel by a softmax of a tanh score: (B, T, U) to (B, U).

    After Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, section 3.1, with one score per channel instead of one per step.
    """
    layers = keras.layers
    score = layers.Dense(units, activation="tanh", name="attention_score")(x)  # (B, T, 128)
    weight = layers.Softmax(axis=1, name="attention_weight")(score)  # (B, T, 128), sums to 1 over T
    weighted = layers.Multiply(name="attention_weighted")([x, weight])  # (B, T, 128)
    return keras.ops.sum(weighted, axis=1)  # (B, 128)
