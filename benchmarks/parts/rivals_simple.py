"""Rivals that a line of code computes: last value, weighted average, rolling median, the day before; and linear models on the change.

    python -m parts.rivals_simple JOB    (job: data, out)

Everything that is chosen is chosen on validation windows, for each target and horizon.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness import answer, job_of
from parts.rivals_task import TEST, TRAIN, Task, anchors, calendar, chosen, spreads

LENGTHS: Final = (3, 5, 7, 10, 15, 20, 30)
"""Rows of a rolling median."""
PENALTIES: Final = (1e-4, 1e-2, 0.3, 10.0)
"""Of the squared weights of standardised columns, per row."""
ROUNDS: Final = 12
"""Rounds of reweighting: the absolute error changes by less than .1 % after them."""
_SHARP: Final = 0.01
"""Residuals under this share of their median count as squares, because the weight 1 / |r| is unbounded."""
_FARTHEST: Final = 300.0
"""Spreads from the anchor at which an input is cut off: a link that hardly moves from row to row has its day a hundred spreads away."""
_MOST_ROWS: Final = 40_000
"""Training windows of a linear model, evenly thinned."""


def naive(task: Task, horizon: int, target: int) -> None:
    """Forecast one pair with each rule that fits nothing but a rate or a length."""
    test = task.of_part(TEST)
    averages = anchors(task, target)
    task.column("persistence")[:, horizon, target] = averages[test, 0]
    task.column("ewma")[:, horizon, target] = averages[test, chosen(task, horizon, target, averages)]
    medians = rolling_medians(task.values[:, :, target], averages[:, 0])
    task.column("rolling_median")[:, horizon, target] = medians[test, chosen(task, horizon, target, medians)]
    task.column("day_before")[:, horizon, target] = task.day_before[test, horizon, target]


def rolling_medians(windows: Any, last: Any) -> Any:
    """Return (M, len(LENGTHS)), medians of the newest rows of windows (M, 30); where nothing is measured, the last value (M,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of medians of nothing
        medians = np.stack([np.nanmedian(windows[:, -length:], axis=1) for length in LENGTHS], axis=1)
    return np.where(np.isfinite(medians), medians, last[:, None])


def linear(task: Task, horizon: int, target: int) -> None:
    """Forecast one pair with Ridge and with the least absolute error, both of the change from the best average, in the link's spreads."""
    train, test = np.flatnonzero(task.of_part(TRAIN)), task.of_part(TEST)
    levels = anchors(task, target)
    anchor, spread = levels[:, chosen(task, horizon, target, levels)], spreads(task, target)
    inputs = columns(task, horizon, target, anchor, spread)
    wanted = (task.targets[:, horizon, target] - anchor) / spread
    train = train[np.isfinite(wanted[train])]
    train = train[:: max(1, -(-len(train) // _MOST_ROWS))]
    mean, scale = inputs[train].mean(axis=0), inputs[train].std(axis=0) + 1e-6
    inputs = np.concatenate([(inputs - mean) / scale, np.ones((len(inputs), 1))], axis=1)
    # Errors count in the target's unit: a link of twice the spread weighs twice in an absolute error and four times in a squared one.
    weight = spread[train] / spread[train].mean()
    for name, rounds, power in (("ridge", 1, 2), ("least_absolute", ROUNDS, 1)):
        lines = [line(inputs[train], wanted[train], weight**power, penalty, rounds) for penalty in PENALTIES]
        forecasts = anchor[:, None] + spread[:, None] * (inputs @ np.stack(lines, axis=1))
        best = chosen(task, horizon, target, forecasts)
        task.column(name)[:, horizon, target] = forecasts[test, best]
        task.notes.setdefault(name, {})[f"{target}@{task.horizons[horizon]}"] = PENALTIES[best]


def columns(task: Task, horizon: int, target: int, anchor: Any, spread: Any) -> Any:
    """Return float64 (M, K): window, averages and profile relative to the anchor in spreads, what is missing as 0, and the calendar."""

    def relative(values: Any) -> Any:
        return np.clip(np.nan_to_num((values - anchor[:, None]) / spread[:, None]), -_FARTHEST, _FARTHEST)

    profile = task.profile[:, [0, 1 + horizon], target]
    now, then = profile.T
    hour, weekday = calendar(task.time_s)
    apart = np.abs(hour[:, None] - np.arange(24))
    hours = np.maximum(0.0, 1.0 - np.minimum(apart, 24.0 - apart))
    weekend = (weekday >= 5)[:, None]
    return np.concatenate(
        [
            relative(task.values[:, :, target]),
            relative(task.averages[:, target]),
            relative(profile),
            np.clip(np.nan_to_num((then - now) / spread), -_FARTHEST, _FARTHEST)[:, None],
            np.clip(np.nan_to_num(anchor * (then / np.where(now == 0, np.nan, now) - 1.0) / spread), -_FARTHEST, _FARTHEST)[:, None],
            hours,
            hours * weekend,
        ],
        axis=1,
    )


def line(inputs: Any, wanted: Any, weight: Any, penalty: float, rounds: int) -> Any:
    """Return float64 (K,), weights of inputs (N, K) whose last column is 1: weighted least squares in the first round, then reweighted.

    Schlossmacher 1973, "An iterative technique for absolute deviations curve fitting".
    """
    penalties = np.full(inputs.shape[1], penalty * weight.sum())
    penalties[-1] = 1e-9
    solved, now = np.zeros(inputs.shape[1]), weight
    for _ in range(rounds):
        weighted = inputs * now[:, None]
        scale = now.sum() / weight.sum()
        solved = np.linalg.solve(inputs.T @ weighted + np.diag(penalties * scale), weighted.T @ wanted)
        left = np.abs(wanted - inputs @ solved)
        now = weight / np.maximum(left, _SHARP * np.median(left) + 1e-12)
    return solved


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Write the forecasts of all simple rivals; a recording cut into short runs gets those without a fit alone."""
    task = Task.read(Path(job["data"]))
    for name, rival in (("naive", naive), ("linear", linear))[: 1 if job.get("short") else 2]:
        with task.timed(name):
            for horizon, target in task.pairs():
                rival(task, horizon, target)
    task.write(Path(job["out"]))
    return task.notes


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
