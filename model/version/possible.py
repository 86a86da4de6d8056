"""Possible forecasts: the ranges of all valid records."""

from __future__ import annotations

import functools
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


@functools.lru_cache(maxsize=16)
def lowest_scaled(outputs: Scaler) -> Floats:
    """Return float32 (4,), the scaled forecasts that stand for 0, moved up by the last bits until they are not below 0 when scaled back.

    It is read-only, and kept for the scalers that were asked for last: each batch of forecasts of the live version asks for it.
    """
    lowest = _inside(np.full(len(TARGETS), LOWEST, np.float32), outputs, up=True)
    lowest.flags.writeable = False
    return lowest


def highest_scaled(outputs: Scaler) -> Floats:
    """Return float32 (4,), the scaled forecasts that stand for the largest possible values, moved down likewise."""
    return _inside(highest(), outputs, up=False)


def _inside(limit: Floats, outputs: Scaler, *, up: bool) -> Floats:
    finfo = np.finfo(np.float32)
    scaled = np.clip((limit.astype(np.float64) - outputs.mean) / outputs.scale, finfo.min, finfo.max).astype(np.float32)
    towards = np.float32(np.inf if up else -np.inf)
    while True:
        with np.errstate(over="ignore"):
            single = (scaled * outputs.scale + outputs.mean).astype(np.float32)
        double = scaled.astype(np.float64) * outputs.scale + outputs.mean
        outside = ((single < limit) | (double < limit)) if up else ((single > limit) | (double > limit))
        if not outside.any():
            return scaled
        scaled = np.where(outside, np.nextafter(scaled, towards), scaled).astype(np.float32)


def unscaled(scaled: Floats, outputs: Scaler) -> Floats:
    """Return forecasts (..., 4) in the targets' units. What its bounds have held is 0, not the rounding of 0. outputs: of the targets."""
    forecasts = outputs.inverse(scaled)
    forecasts[scaled <= lowest_scaled(outputs)] = LOWEST
    return forecasts


def unscaled_ahead(scaled: Floats, outputs: Scaler) -> Floats:
    """Return forecasts (B, H, 4, 4) in the targets' units, as `unscaled` does."""
    return np.moveaxis(unscaled(np.moveaxis(scaled, 2, -1), outputs), -1, 2)


def possible_ahead(forecasts: Floats, measured: Flags | None = None) -> Floats:
    """Return forecasts (B, H, 4, 4) limited as by `possible`."""
    return np.moveaxis(possible(np.moveaxis(forecasts, 2, -1), measured), -1, 2)
