"""MLP encoder: dense layers over all values of a window. Small, for machines on which three LSTMs cost too much."""

from __future__ import annotations

from typing import Any, Final

import keras

from model.spec.architecture import Mlp
from model.training.network.normalise import batch_norm

READERS: Final = ("mlp_1",)


def encode(windows: Any, sizes: Mlp) -> Any:
    """Return (B, U) for windows (B, T, F); U: units of the last layer, 64 by default."""
    x = keras.layers.Flatten(name="flat_window")(windows)  # (B, T * F)
    for depth, (units, dropout) in enumerate(zip(sizes.mlp_units, sizes.mlp_dropout, strict=True), start=1):
        x = keras.layers.Dense(units, activation="relu", name=f"mlp_{depth}")(x)  # (B, 64)
        x = batch_norm(f"mlp_{depth}_norm")(x)
        x = keras.layers.Dropout(dropout, name=f"mlp_{depth}_dropout")(x)
    return x


def twin(model: keras.Model) -> keras.Model:
    """Return the model itself."""
    return model


def plain(layer: dict[str, Any]) -> None:
    """Leave the layer as it is: the export takes out dropout layers by itself."""


def operators(model: keras.Model, quantised: bool) -> dict[str, int]:
    """Return one product for each layer."""
    layers = sum(layer.name.startswith("mlp_") and isinstance(layer, keras.layers.Dense) for layer in model.layers)
    return {"MatMulInteger" if quantised else "MatMul": layers}
