"""LightGBM: the change from the link's level, with absolute error for the forecast and quantiles for its interval. Runs in .venv-rivals.

    python -m parts.rivals_trees JOB    (job: data, out, threads, rounds)

Once pooled over the links and once for each link; the better on the validation windows counts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import lightgbm  # type: ignore[import-not-found]  # it is installed in .venv-rivals only
import numpy as np

from harness import answer, job_of, say
from parts.rivals_task import LEAST_WINDOWS, TEST, TRAIN, VALIDATION, Task, anchors, calendar, chosen

SETTINGS: Final = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 40,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "verbosity": -1,
    "seed": 1,
}
PATIENCE: Final = 40
"""Rounds without a better validation error after which a fit ends."""
QUANTILES: Final = {"lower": 0.05, "upper": 0.95}


def inputs(task: Task, horizon: int, target: int, anchor: Any) -> Any:
    """Return float32 (M, K): window, averages and profile relative to the anchor, anchor, level, spread, calendar and link."""
    hour, weekday = calendar(task.time_s)
    profile = task.profile[:, [0, 1 + horizon], target]
    apart = anchor[:, None]
    return np.concatenate(
        [
            task.values[:, :, target] - apart,
            task.averages[:, target] - apart,
            profile - apart,
            profile[:, 1:] - profile[:, :1],
            np.stack([anchor, task.level[:, target], task.spread[:, target], hour, weekday, task.link], axis=1),
        ],
        axis=1,
    ).astype(np.float32)


def fitted(task: Task, rows: Any, wanted: Any, objective: dict[str, Any], job: dict[str, Any]) -> Any:
    """Return float64 (M,), forecasts of the trees, NaN beside the links they are for; None if there are too few windows.

    Args:
        rows: float32 (M, K), NaN in what is of no use.
        wanted: float64 (M,), NaN if it is not to be learnt.
        objective: of LightGBM.
        job: threads and rounds.
    """
    train, validation = (np.flatnonzero(task.of_part(part) & np.isfinite(wanted)) for part in (TRAIN, VALIDATION))
    if len(train) < LEAST_WINDOWS or not len(validation):
        return None
    learnt = lightgbm.Dataset(rows[train], wanted[train])
    trees = lightgbm.train(
        SETTINGS | objective | {"num_threads": job["threads"]},
        learnt,
        job["rounds"],
        valid_sets=[lightgbm.Dataset(rows[validation], wanted[validation], reference=learnt)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return trees.predict(rows, num_threads=job["threads"])


def both(task: Task, rows: Any, wanted: Any, objective: dict[str, Any], job: dict[str, Any]) -> list[Any]:
    """Return the forecasts of the change, float64 (M,), pooled over the links and, if there are several, of each link by itself."""
    pooled = fitted(task, rows, wanted, objective, job)
    links = np.unique(task.link)
    if pooled is None or len(links) == 1:
        return [] if pooled is None else [pooled]
    alone = pooled.copy()  # a link with too little to learn from keeps the pooled forecast
    for link in links:
        own = task.link == link
        made = fitted(task, rows, np.where(own, wanted, np.nan), objective, job)
        if made is not None:
            alone[own] = made[own]
    return [pooled, alone]


def pinball(actual: Any, forecast: Any, quantile: float) -> float:
    left = actual - forecast
    return float(np.nanmean(np.maximum(quantile * left, (quantile - 1.0) * left)))


def forecast(task: Task, horizon: int, target: int, job: dict[str, Any]) -> dict[str, Any]:
    """Forecast one pair, and return what was chosen."""
    test, validation = task.of_part(TEST), task.of_part(VALIDATION)
    levels = anchors(task, target)
    rate = chosen(task, horizon, target, levels)
    anchor = levels[:, rate]
    actual = task.targets[:, horizon, target].astype(np.float64)
    rows, wanted = inputs(task, horizon, target, anchor), actual - anchor
    found = both(task, rows, wanted, {"objective": "l1"}, job)
    if not found:
        return {}
    candidates = anchor[:, None] + np.stack(found, axis=1)
    best = chosen(task, horizon, target, candidates)
    task.column("lightgbm")[:, horizon, target] = candidates[test, best]
    choices = {"anchor": rate, "l1": ("pooled", "by link")[best]}
    ends = {}
    for name, quantile in QUANTILES.items():
        found = both(task, rows, wanted, {"objective": "quantile", "alpha": quantile}, job)
        losses = [pinball(wanted[validation], one[validation], quantile) for one in found]
        best = int(np.argmin(losses))
        ends[name] = (anchor + found[best])[test]
        choices[name] = ("pooled", "by link")[best]
    low, high = np.minimum(ends["lower"], ends["upper"]), np.maximum(ends["lower"], ends["upper"])
    task.column("lightgbm.lower")[:, horizon, target] = low
    task.column("lightgbm.upper")[:, horizon, target] = high
    return choices


def run(job: dict[str, Any]) -> dict[str, Any]:
    task = Task.read(Path(job["data"]))
    with task.timed("lightgbm"):
        for horizon, target in task.pairs():
            choices = forecast(task, horizon, target, job)
            task.notes.setdefault("lightgbm", {})[f"{target}@{task.horizons[horizon]}"] = choices
            say(f"lightgbm: target {target}, {task.horizons[horizon]} rows ahead: {choices}")
    task.notes["lightgbm"]["version"] = lightgbm.__version__
    task.write(Path(job["out"]))
    return task.notes


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
