"""Linear forecasts with the least mean absolute error: solved by reweighting, then blended by their errors on later windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from features.telemetry import Doubles, Flags, Floats

AnyFloats = NDArray[np.floating[Any]]

ROUNDS_MAX: Final = 12
"""Most rounds of reweighting."""
_CONVERGED: Final = 1e-3
"""Change of the standardised weights at which the rounds end. Twenty rounds down to 1e-4 had the same validation errors to .1 %."""
_SHARP: Final = 0.02
"""Residuals under this share of their median count as squares, because the weight 1 / |r| is unbounded."""
_CONSTANT: Final = 1e-6
"""Standard deviation up to which a column is constant, and unused."""
BLEND_ROUNDS: Final = 10
"""Rounds of the greedy blend: shares come in tenths."""


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """A linear forecast `rows @ kernel + bias` of one target. kernel: float64 (K,), in scaled units, as bias."""

    kernel: Doubles
    bias: float

    def of(self, rows: AnyFloats) -> Doubles:
        """Return float64 (M,), the forecasts for rows (M, K)."""
        forecast: Doubles = rows @ self.kernel + self.bias
        return forecast


def least_absolute(rows: Floats, wanted: AnyFloats, base: Line, penalties: tuple[float, ...], allowed: Flags) -> list[Line]:
    """Return for each penalty the line with about the least mean absolute error, the largest penalty first.

    Iteratively reweighted least squares (Schlossmacher 1973, "An iterative technique for absolute deviations curve fitting"). Least squares
    would follow the tails of throughput and delay, which are long.

    Args:
        rows: float32 (M, K), what is forecast from.
        wanted: (M,), what is to be forecast.
        base: Line from which the distance is penalised, in units of the columns' spread: a larger penalty stays nearer to it.
        penalties: Of the squared distance, per unit of spread.
        allowed: bool (K,), the columns that may be used beside base's.
    """
    mean, spread = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    used = allowed & (spread > _CONSTANT)
    columns = np.ones((len(rows), int(used.sum()) + 1), np.float32)
    columns[:, :-1] = (rows[:, used] - mean[used]) / spread[used]
    left = (wanted - base.of(rows)).astype(np.float32)
    start = np.zeros(columns.shape[1])
    start[-1] = np.median(left)
    least = np.float32(max(_SHARP * float(np.median(np.abs(left - start[-1]))), 1e-6))
    lines = []
    # One thread: products this small are over before a second has woken, and on a busy machine they took 17 times longer with two.
    with threadpool_limits(1, user_api="blas"):
        for penalty in sorted(penalties, reverse=True):  # the strongest first: each solution starts the next one
            start = _solve(columns, left, penalty, start, least)
            kernel = base.kernel.copy()
            kernel[used] += start[:-1] / spread[used]
            lines.append(Line(kernel, base.bias + float(start[-1] - mean[used] @ (start[:-1] / spread[used]))))
    return lines


def _solve(columns: Floats, wanted: Floats, penalty: float, start: Doubles, least: np.float32) -> Doubles:
    """float64 (K + 1,), the last one the intercept, which has no penalty."""
    solution = start
    ridge = np.diag(np.append(np.full(len(start) - 1, penalty), 0.0))
    for _ in range(ROUNDS_MAX):
        # float32 throughout: a mixed product would copy all columns first. Standardised columns lose nothing by it.
        weight = 1.0 / np.maximum(np.abs(wanted - columns @ solution.astype(np.float32)), least)
        weighted = columns * (weight / weight.sum())[:, None]
        before, solution = solution, np.linalg.solve((weighted.T @ columns) + ridge, weighted.T @ wanted)
        if np.abs(solution - before).max() < _CONVERGED:
            break
    return solution


def blended(lines: list[Line], rows: AnyFloats, wanted: AnyFloats) -> Line:
    """Return the average of lines, each weighted by how often it was chosen, with the least mean absolute error.

    Greedy selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models"): every round adds the line
    with which the average has the least error. Shares of a handful of lines are hard to overfit.

    Args:
        rows: (M, K), of later windows than the lines were fitted on.
        wanted: (M,).
    """
    forecasts = np.stack([line.of(rows) for line in lines])  # (lines, M)
    total, chosen, errors = np.zeros(len(wanted)), [], []
    for count in range(1, BLEND_ROUNDS + 1):
        error = np.abs((total + forecasts) / count - wanted).mean(axis=1)
        best = int(np.argmin(error))
        total += forecasts[best]
        chosen.append(best)
        errors.append(error[best])
    picked = [lines[index] for index in chosen[: int(np.argmin(errors)) + 1]]
    return Line(np.mean([line.kernel for line in picked], axis=0), float(np.mean([line.bias for line in picked])))
