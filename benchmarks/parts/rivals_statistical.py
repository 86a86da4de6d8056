"""Models of statsforecast, fitted anew at each origin: MSTL where the history shows the day, AutoETS elsewhere. Runs in .venv-rivals.

    python -m parts.rivals_statistical JOB    (job: data, out, origins)

A fit takes a tenth of a second to seconds, so only every k-th test window of a pair is forecast: about `origins` of them.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import statsforecast  # type: ignore[import-not-found]  # it is installed in .venv-rivals only
from statsforecast.models import MSTL, AutoETS  # type: ignore[import-not-found]

from harness import answer, job_of, say
from parts.rivals_task import DAY_S, TEST, Task

DAYS: Final = 7
"""Days of history that show a day's season."""
DAYS_LEAST: Final = 2.5
SEASON_ROWS: Final = (8, 720)
"""Least and most rows of a day for which a season is looked for: a week of minutes takes MSTL ten seconds at each origin."""
PLAIN_ROWS: Final = 400
"""Rows of history without a season."""


def history(task: Task, row: int, target: int, rows: int) -> Any:
    """Return float64 (K,), K <= rows: a link's values at its sampling interval up to a row, filled with the one before where none is."""
    first = max(int(np.searchsorted(task.row_link, task.row_link[row])), row - rows + 1)
    values = task.row_values[first : row + 1, target].astype(np.float64)
    back = np.round((task.row_time_s[row] - task.row_time_s[first : row + 1]) / task.interval_s[task.end == row][0]).astype(np.int64)
    near = (back < rows) & np.isfinite(values)
    regular = np.full(rows, np.nan)
    regular[rows - 1 - back[near]] = values[near]
    last = np.maximum.accumulate(np.where(np.isfinite(regular), np.arange(rows), -1))
    return regular[last[last >= 0]]


def forecast(task: Task, window: int, target: int) -> tuple[str, Any]:
    """Return the name of the model and its forecasts, float64 (last horizon,)."""
    row, ahead, interval_s = int(task.end[window]), int(task.horizons[-1]), float(task.interval_s[window])
    day = round(DAY_S / interval_s)
    if SEASON_ROWS[0] <= day <= SEASON_ROWS[1]:
        values = history(task, row, target, DAYS * day)
        if len(values) >= DAYS_LEAST * day and values.std() > 0:
            model = MSTL(season_length=[day], trend_forecaster=AutoETS(model="ZZN"))
            return "MSTL", model.forecast(y=values, h=ahead)["mean"]
    values = history(task, row, target, PLAIN_ROWS)
    return "AutoETS", AutoETS(model="ZZN").forecast(y=values, h=ahead)["mean"] if values.std() > 0 else np.full(ahead, values[-1])


def run(job: dict[str, Any]) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    task = Task.read(Path(job["data"]))
    test = np.flatnonzero(task.of_part(TEST))
    steps = task.horizons - 1
    used: dict[str, int] = {}
    with task.timed("statistical"):
        for target in sorted({target for _, target in task.pairs()}):
            known = np.flatnonzero(np.isfinite(task.targets[test][:, :, target]).any(axis=1) & np.isfinite(task.averages[test, target, 0]))
            for place in known[:: max(1, len(known) // job["origins"])]:
                name, made = forecast(task, test[place], target)
                task.column("statistical")[place, :, target] = made[steps]
                used[name] = used.get(name, 0) + 1
            say(f"statistical: target {target}, {used}")
    task.notes.setdefault("statistical", {}).update({"forecasts": used, "version": statsforecast.__version__})
    task.write(Path(job["out"]))
    return task.notes


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
