"""Encoders: the part of the network that turns a window into features of its own, one module for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import keras

from model.training.network import linear, lstm, mlp

MODEL_PREFIX: Final = "bandwidth_"
"""A network has this name, then that of its encoder; best_model.keras keeps it."""


class Encoder(Protocol):
    """The interface of an encoder's module. A new one needs a module, its sizes in `model.spec.architecture`, and an entry in `ENCODERS`.

    Shapes: B windows, T steps, F features, U units of the encoder's choice; float32, scaled.
    """

    @property
    def READERS(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """Names of the layers whose kernel is multiplied with features: (F, units), or (T * F, units) for flattened windows."""

    def encode(self, windows: Any, sizes: Any) -> Any:
        """Return (B, U) for windows (B, T, F); None if there is nothing beside the linear path.

        Args:
            windows: symbolic tensor (B, T, F).
            sizes: the encoder's own structure of `model.spec.architecture`.
        """

    def twin(self, model: keras.Model) -> keras.Model:
        """Return the network to train in place of the model: same forecasts, same order of weights, at less cost; or the model itself."""

    def plain(self, layer: dict[str, Any]) -> None:
        """Remove from a layer's Keras configuration the entries that only training needs and the export cannot convert."""

    def operators(self, model: keras.Model, quantised: bool) -> dict[str, int]:
        """Return the least number of operators of each type in the exported graph, before or after it is quantised."""


ENCODERS: Final[Mapping[str, Encoder]] = {"relative": linear, "lstm": lstm, "linear": linear, "mlp": mlp}
"""Encoders by the tag of their architecture. `relative` has none for the next row: its network is that of several horizons."""


def encoder_of(model: keras.Model) -> Encoder:
    """Return the encoder of a network, by the network's name. Raises ValueError if this release does not know it."""
    return ENCODERS[encoder_name(model)]


def encoder_name(model: keras.Model) -> str:
    """Return the name of the encoder of a network. Raises ValueError if this release does not know it."""
    name: str = model.name.removeprefix(MODEL_PREFIX)
    if name not in ENCODERS:
        raise ValueError(f"the network {model.name!r} has none of the encoders {', '.join(ENCODERS)}")
    return name


def training_twin(model: keras.Model) -> keras.Model:
    """Return the network to train in place of the model, with copies of its weights in the same order: see `Encoder.twin`."""
    return encoder_of(model).twin(model)
