"""Possible forecasts: the ranges that every valid record is in."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.columns import RANGES
from features.telemetry import TARGETS, Flags, Floats

LOWEST: Final = min(RANGES[name][0] for name in TARGETS)
"""Of every target: none is measured below it."""
LARGEST: Final = 1e37
"""Largest forecast of a target without a smaller limit, in its unit.

A thirtieth of the largest float32: the sum of a few forecasts stays finite."""


def highest() -> Floats:
    """Return float32 (4,): the largest possible value of each of TARGETS."""
    return np.array([min(RANGES[name][1], LARGEST) for name in TARGETS], np.float32)


def possible(forecasts: Floats, measured: Flags | None = None) -> Floats:
    """Return forecasts held to what is possible, because graphs of older releases are not bounded in themselves.

    Args:
        forecasts: (B, 4), in the targets' units; NaN stays NaN.
        measured: bool (4,), the targets that the version forecasts; the others become NaN. None: all of them.
    """
    held: Floats = np.clip(forecasts, np.float32(LOWEST), highest())
    if measured is not None and not measured.all():
        held[:, ~measured] = np.nan
    return held
