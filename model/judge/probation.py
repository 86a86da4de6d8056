"""A new version beside the one that it has replaced: both forecast the next row of the same links, until it is clear which is better.

The gate has compared them on rows of the past. What counts is what comes after: if the new version is worse, beyond chance, the daemon goes
back to the one before; what it really brought goes into the ledger. It depends on the partition's own rows and journal alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.changes import FeatureRows
from features.telemetry import TARGETS, Doubles, Flags, Floats, Ints
from model.judge.behind import BEHIND_ROWS, COUNT, DIFFERENCES, NEW, OLD, compare_rows, is_worse, no_periods, worse_by
from model.version.predictor import Predictor

LINKS: Final = 16
EACH: Final = 8
"""Both versions forecast on the first LINKS monitored links of a partition, and on each of so many others. That must not depend on how many
there are: a batch brings new ones before its rows are compared."""
PERIODS: Final = 3
"""Periods (see behind.py) without being worse after which a version has proved itself."""
_NORMAL: Final = 1.96
"""Standard errors on either side of a mean that make its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What a version has brought for one target, against the version that it replaced, on the same rows.

    Args:
        outcomes: how many.
        mae, mae_before: mean absolute errors, in the target's unit.
        low, high: 95 % interval of their difference, in the target's unit; under 0: it is better.
    """

    target: str
    outcomes: int
    mae: float
    mae_before: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Proof:
    """The end of a probation.

    Args:
        before: the version that was live before, and is again if this one has failed.
        worse: by how much of their errors the targets are worse in the mean (under 0: better); of one that has failed, by how much all
            errors together are larger, in usual deviations of their links, for which it failed.
    """

    version: str
    before: str
    failed: bool
    worse: float
    brought: tuple[Brought, ...]


class Probation:
    """At most one new version at a time, on W links by watch index."""

    def __init__(self) -> None:
        self.version: str | None = None
        """The new version; None without a probation."""
        self.before: str | None = None
        self._model: Predictor | None = None
        self._forecast: Floats = np.full((0, len(TARGETS)), np.nan, np.float32)  # the old version's, of each link's next row
        self._period: Doubles = no_periods(1)[0, 0]  # of all sampled links and targets together
        self._sums: Doubles = np.zeros((len(TARGETS), 4))
        self._passed = 0

    def begin(self, version: str, model: Predictor | None, before: str | None, old: Predictor | None) -> None:
        """Begin with a new version; there is no probation if the two cannot be compared, or if an older version has come back."""
        self.end()
        comparable = model is not None and old is not None and model.vocabulary == old.vocabulary and model.horizons == old.horizons
        if comparable and before is not None and version > before and len(old.horizons) > 0:  # type: ignore[union-attr]
            self.version, self.before, self._model = version, before, old

    def end(self) -> None:
        """End the probation: the old version is not needed any more."""
        self.version = self.before = self._model = None
        self._forecast[:] = np.nan
        self._period, self._sums, self._passed = no_periods(1)[0, 0], np.zeros((len(TARGETS), 4)), 0

    def extend(self, count: int) -> None:
        """Make room for more links at the end."""
        self._forecast = np.concatenate([self._forecast, np.full((count, len(TARGETS)), np.nan, np.float32)])

    def select(self, index: Ints) -> None:
        """Keep only the links of these watch indices."""
        self._forecast = self._forecast[index]

    def forget(self, index: Ints | slice = slice(None)) -> None:
        """Drop the forecasts under way of some links; by default of all."""
        self._forecast[index] = np.nan

    def follow(self, rows: FeatureRows, index: Ints, time_s: Doubles, actual: Floats, live: Floats) -> None:
        """Compare W rows with what both versions have forecast for them, and forecast the next ones of the sampled links.

        Args:
            index: int32 (W,), watch index of each row.
            time_s: float64 (W,), UTC seconds.
            actual: float32 (W, 4), what was measured.
            live: float32 (W, 4), the new version's forecast of the row, NaN if there is none.
        """
        if self._model is None or rows.windows is None:
            return
        sampled: Flags = rows.ready & ((index < LINKS) | (index % EACH == 0))
        made = np.full((len(index), len(TARGETS)), np.nan, np.float32)
        if sampled.any():
            made[sampled] = self._model.predict_both(rows.windows[sampled], rows.context[sampled])[0]
        old = np.where(rows.previous[:, None] >= 0, made[rows.previous], self._forecast[index])
        old[rows.restarted[rows.watched]] = np.nan
        self._forecast[index] = made
        least_s = time_s - BEHIND_ROWS * rows.interval_s
        spread = rows.context[:, 1]
        self._passed += compare_rows(self._period, self._sums, actual, live, old, spread, time_s, least_s)
        if self.proof() is not None:
            self._model = None

    def proof(self) -> Proof | None:
        """Return what is known at the end of the probation; None before it."""
        if self.version is None or self.before is None:
            return None
        failed = is_worse(self._period, 1)
        if not failed and self._passed < PERIODS:
            return None
        counted = [(name, sums) for name, sums in zip(TARGETS, self._sums, strict=True) if sums[COUNT] > 0]
        brought = tuple(_brought(name, sums) for name, sums in counted)
        worse = [sums[NEW] / sums[OLD] - 1.0 for _, sums in counted if sums[OLD] > 0]
        mean = float(np.mean(worse)) if worse else 0.0
        return Proof(self.version, self.before, failed, worse_by(self._period) if failed else mean, brought)

    def state(self) -> dict[str, Any]:
        """Return everything but the arrays, as plain values."""
        return {"probation": [self.version, self.before, self._passed]}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the forecasts under way, float32 (W, 4), and the sums."""
        return {
            "probation_forecast": self._forecast.copy(), "probation_period": self._period.copy(), "probation_sums": self._sums.copy(),
        }  # fmt: skip

    @classmethod
    def restored(
        cls, state: dict[str, Any], arrays: dict[str, NDArray[Any]], model_of: Callable[[str], Predictor | None]
    ) -> Probation:  # fmt: skip
        """Return what `state` and `arrays` were made from. If the old version cannot be loaded any more, the probation is over."""
        made = cls()
        made._forecast, made._period, made._sums = (arrays[f"probation_{name}"] for name in ("forecast", "period", "sums"))
        version, before, passed = state["probation"]
        if version is not None:
            made.version, made.before, made._passed = version, before, passed
            if made.proof() is None and (old := model_of(before)) is not None:
                made._model = old
            elif made.proof() is None:
                made.end()
        return made


def together(proofs: Sequence[Proof]) -> Proof:
    """Return the proofs of several partitions as one: failed if one has, errors in the mean of all outcomes."""
    first = proofs[0]
    brought = []
    for name in TARGETS:
        own = [one for proof in proofs for one in proof.brought if one.target == name]
        if total := sum(one.outcomes for one in own):
            figures = [sum(getattr(one, field) * one.outcomes for one in own) / total for field in ("mae", "mae_before", "low", "high")]
            brought.append(Brought(name, total, *figures))
    ratios = [one.mae / one.mae_before - 1.0 for one in brought if one.mae_before > 0]
    failed = [proof.worse for proof in proofs if proof.failed]
    worse = max(failed, default=float(np.mean(ratios)) if ratios else 0.0)
    return Proof(first.version, first.before, bool(failed), worse, tuple(brought))


def _brought(target: str, sums: Doubles) -> Brought:
    count, difference = sums[COUNT], (sums[NEW] - sums[OLD]) / sums[COUNT]
    half = _NORMAL * math.sqrt(max(sums[DIFFERENCES] / count - difference**2, 0.0) / count)
    figures = (sums[NEW] / count, sums[OLD] / count, difference - half, difference + half)
    return Brought(target, int(count), *(float(figure) for figure in figures))
