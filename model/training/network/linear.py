"""Linear encoder: none. The linear path forecasts alone, and is solved in closed form; nothing trains."""

from __future__ import annotations

from typing import Any, Final

import keras

from model.spec.architecture import Linear

READERS: Final = ()


def encode(windows: Any, sizes: Linear) -> None:
    """Return None: nothing is encoded."""


def twin(model: keras.Model) -> keras.Model:
    """Return the model itself."""
    return model


def plain(layer: dict[str, Any]) -> None:
    """Leave the layer as it is."""


def operators(model: keras.Model, quantised: bool) -> dict[str, int]:  # noqa: ARG001 - the protocol's
    """Return the one product of the linear path, which stays float in the quantised graph too."""
    return {"MatMul": 1}
