"""What a forecast can be at all: the ranges that are demanded of every record."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.telemetry import TARGETS, Flags, Floats

LOWEST: Final = 0.0
"""Of every target: none is measured below it."""
SHARES: Final = ("packet_loss",)
"""The targets that are a share of something, 0 to 1."""
LARGEST: Final = 1e37
"""Largest forecast of the other targets, in their units: a thirtieth of the largest float32, so that whoever adds a few stays finite."""


def highest() -> Floats:
    """float32 (4,): the largest possible value of each of TARGETS."""
    return np.array([1.0 if name in SHARES else LARGEST for name in TARGETS], np.float32)


def possible(forecasts: Floats, measured: Flags | None = None) -> Floats:
    """The forecasts (B, 4), in the targets' units, held to what is possible: graphs of older releases are not bounded in themselves.

    measured: bool (4,), the targets that the version forecasts; the others become NaN. None: all of them. NaN stays NaN.
    """
    held: Floats = np.clip(forecasts, np.float32(LOWEST), highest())
    if measured is not None and not measured.all():
        held[:, ~measured] = np.nan
    return held
