"""Standardisation: mean and scale per column, fitted over what was measured, and kept by every model that is fine-tuned from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.telemetry import Flags, Floats

_CONSTANT: Final = 1e-6
"""A standard deviation under this share of the mean is float32 rounding (2**-24 = 6e-8 a step) and not variation."""


@dataclass(frozen=True, eq=False, slots=True)
class Scaler:
    """Mean and scale of F columns.

    Args:
        mean: float32 (F,); the constant of a constant column, 0 for an empty one.
        scale: float32 (F,); 1 for a column that is not fitted.
        fitted: bool (F,), False for a column that was empty or constant.
    """

    mean: Floats
    scale: Floats
    fitted: Flags

    @classmethod
    def fit(cls, values: Floats, spreads: Mapping[int, tuple[float, float]] | None = None) -> Scaler:
        """Return the scaler of values (N, F), NaN if missing. It is computed in float64, because bytes_total is about 1e10.

        Args:
            spreads: By column, mean and scale to use instead of those of the values, if these are not constant.
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
        """Return this scaler with its unfitted columns fitted on values (N, F). The others stay: a network keeps its parent's units."""
        newly = Scaler.fit(values, spreads)
        new = ~self.fitted & newly.fitted
        return Scaler(
            np.where(new, newly.mean, self.mean), np.where(new, newly.scale, self.scale), self.fitted | new
        )  # fmt: skip

    def transform(self, values: Floats) -> Floats:
        """Return scaled values (..., F), 0 where a value is missing or not finite: what the network reads."""
        scaled = self.standardise(values)
        scaled[~np.isfinite(scaled)] = 0.0
        return scaled

    def standardise(self, values: Floats) -> Floats:
        """Return scaled values (..., F), NaN if missing: for targets, whose gaps the loss masks."""
        with np.errstate(over="ignore"):  # a spike of 1e38 over a small scale is infinite, which is missing for `transform`
            scaled: Floats = (values - self.mean) / self.scale
        return scaled

    def inverse(self, scaled: Floats) -> Floats:
        """Return values (..., F) in their own units."""
        values: Floats = scaled * self.scale + self.mean
        return values
