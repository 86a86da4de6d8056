"""Standardising: mean and scale per column, fitted over what was measured, and kept by every model that is fine-tuned from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.telemetry import Flags, Floats

_CONSTANT: Final = 1e-6
"""A standard deviation under this share of the mean is float32 rounding (2**-24 = 6e-8 a step), no variation."""


@dataclass(frozen=True, eq=False, slots=True)
class Scaler:
    """mean, scale: float32 (F,). fitted: bool (F,), False for a column that was empty or constant: its scale is 1, its mean the
    constant, or 0 where nothing was measured."""

    mean: Floats
    scale: Floats
    fitted: Flags

    @classmethod
    def fit(cls, values: Floats, spreads: Mapping[int, tuple[float, float]] | None = None) -> Scaler:
        """The scaler of values (N, F), NaN where missing; computed in float64, for bytes_total is about 1e10.

        spreads: mean and scale of columns for which a few values say little. They are fitted where the values are not all the same.
        """
        columns = values.shape[1]
        mean, scale, fitted = np.zeros(columns), np.ones(columns), np.zeros(columns, np.bool_)
        for column in range(columns):  # one at a time: a float64 copy of the whole table would be twice its size
            known = values[:, column].astype(np.float64)
            known = known[np.isfinite(known)]
            if not len(known):
                continue
            mean[column], deviation = known.mean(), known.std()
            if deviation > _CONSTANT * abs(mean[column]) and np.float32(deviation) > 0:
                fitted[column] = True
                mean[column], scale[column] = (spreads or {}).get(column, (mean[column], deviation))
        return cls(mean.astype(np.float32), scale.astype(np.float32), fitted)

    def extended(self, values: Floats, spreads: Mapping[int, tuple[float, float]] | None = None) -> Scaler:
        """This scaler with its unfitted columns fitted on values (N, F); all others stay, so that a network keeps its parent's units."""
        newly = Scaler.fit(values, spreads)
        take = ~self.fitted & newly.fitted
        return Scaler(
            np.where(take, newly.mean, self.mean), np.where(take, newly.scale, self.scale), self.fitted | take
        )  # fmt: skip

    def transform(self, values: Floats) -> Floats:
        """Scaled values (..., F), 0 where a value is missing or not finite: what the network reads."""
        scaled = self.standardise(values)
        scaled[~np.isfinite(scaled)] = 0.0
        return scaled

    def standardise(self, values: Floats) -> Floats:
        """Scaled values (..., F), NaN where missing: targets, whose gaps the loss masks."""
        with np.errstate(over="ignore"):  # a spike of 1e38 over a small scale is infinite, which `transform` takes as missing
            scaled: Floats = (values - self.mean) / self.scale
        return scaled

    def inverse(self, scaled: Floats) -> Floats:
        """Values (..., F) in their own units."""
        values: Floats = scaled * self.scale + self.mean
        return values
