"""Possible forecasts: the ranges of all valid records."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.columns import RANGES
from features.telemetry import TARGETS, Flags, Floats
from model.windows.scaler import Scaler

LOWEST: Final = min(RANGES[name][0] for name in TARGETS)
"""Lowest possible value of every target."""
LARGEST: Final = 1e37
"""Largest forecast of a target without a smaller limit, in its unit.

A thirtieth of the largest float32: the sum of a few forecasts stays finite."""


def highest() -> Floats:
    """Return float32 (4,): the largest possible value of each of TARGETS."""
    return np.array([min(RANGES[name][1], LARGEST) for name in TARGETS], np.float32)


def possible(forecasts: Floats, measured: Flags | None = None) -> Floats:
    """Return forecasts limited to possible values, because graphs of older releases have no bounds of their own.

    Args:
        forecasts: (..., 4), in the targets' units; NaN stays NaN.
        measured: bool (4,), the targets that the version forecasts; the others become NaN. None: all of them.
    """
    held: Floats = np.clip(forecasts, np.float32(LOWEST), highest())
    if measured is not None and not measured.all():
        held[..., ~measured] = np.nan
    return held


def unscaled_ahead(scaled: Floats, outputs: Scaler) -> Floats:
    """Return forecasts (B, H, 4, 4) in the targets' units. outputs: scaler of the targets."""
    forecasts: Floats = scaled * outputs.scale[:, None] + outputs.mean[:, None]
    return forecasts


def possible_ahead(forecasts: Floats, measured: Flags | None = None) -> Floats:
    """Return forecasts (B, H, 4, 4) limited as by `possible`."""
    return np.moveaxis(possible(np.moveaxis(forecasts, 2, -1), measured), -1, 2)
