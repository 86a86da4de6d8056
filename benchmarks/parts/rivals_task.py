"""What every rival gets and returns: arrays of `horizon_data` in, forecasts of the test windows out. NumPy alone, for any environment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

TRAIN, VALIDATION, TEST = 0, 1, 2
LEAST_WINDOWS: Final = 200
"""Windows that a pair of target and horizon must have in the test part, and to be fitted at all in the training part."""
SPREAD_SHARE: Final = 1e-3
"""Least spread as a share of the level: a link that never changed has none."""
DAY_S: Final = 86_400.0


@dataclass
class Task:
    """The arrays of one recording, by their names in `HorizonData`, and the forecasts made so far."""

    arrays: dict[str, Any]
    made: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Task:
        with np.load(path) as file:
            return cls({name: file[name] for name in file.files})

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["arrays"][name]
        except KeyError:
            raise AttributeError(name) from None

    def of_part(self, part: int) -> Any:
        """Return bool (M,), the windows of a part."""
        return self.arrays["part"] == part

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield index of horizon and of target for each pair with enough windows to fit and to judge."""
        _, horizons, targets = self.arrays["targets"].shape
        known = np.isfinite(self.arrays["targets"])
        for target in range(targets):
            for horizon in range(horizons):
                count = [int((known[:, horizon, target] & self.of_part(part)).sum()) for part in (TRAIN, VALIDATION, TEST)]
                if min(count[0], count[2]) >= LEAST_WINDOWS and count[1] > 0:
                    yield horizon, target

    def column(self, name: str) -> Any:
        """Return the forecasts of a rival, float32 (M_test, H, 4), all NaN at first; `name` may end in .lower or .upper."""
        if name not in self.made:
            _, horizons, targets = self.arrays["targets"].shape
            self.made[name] = np.full((int(self.of_part(TEST).sum()), horizons, targets), np.nan, np.float32)
        return self.made[name]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, notes=np.array(json.dumps(self.notes)), **self.made)
        partial.replace(path)

    def timed(self, name: str) -> _Timed:
        """Return a context manager that keeps the CPU and wall seconds of a rival."""
        return _Timed(self, name)


@dataclass
class _Timed:
    task: Task
    name: str
    began: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> None:
        self.began = (time.monotonic(), time.process_time())

    def __exit__(self, *_: object) -> None:
        spent = {"wall_s": time.monotonic() - self.began[0], "cpu_s": time.process_time() - self.began[1]}
        self.task.notes.setdefault(self.name, {}).update(spent)


def mean_error(actual: Any, forecast: Any) -> float:
    """Return the mean absolute error over the rows that both know; infinity if there are none."""
    error = np.abs(actual.astype(np.float64) - forecast)
    known = np.isfinite(error)
    return float(error[known].mean()) if known.any() else float("inf")


def chosen(task: Task, horizon: int, target: int, candidates: Any) -> int:
    """Return the index of the candidate with the least error on the validation windows. candidates: (M, K), forecasts."""
    part = task.of_part(VALIDATION)
    actual = task.targets[part, horizon, target]
    return int(np.argmin([mean_error(actual, candidates[part, index]) for index in range(candidates.shape[1])]))


def calendar(time_s: Any) -> tuple[Any, Any]:
    """Return hour of the day in UTC with its fraction, and day of the week from 0 = Monday."""
    return (time_s / 3600.0) % 24.0, (np.floor(time_s / DAY_S) + 3.0) % 7.0


def anchors(task: Task, target: int) -> Any:
    """Return (M, R), the levels that a change may be counted from: the link's averages, of which the first is the last value."""
    return task.averages[:, target].astype(np.float64)


def spreads(task: Task, target: int) -> Any:
    """Return float64 (M,), the spread of each window's link, over 0."""
    level, spread = np.nan_to_num(task.level[:, target].astype(np.float64)), np.nan_to_num(task.spread[:, target].astype(np.float64))
    return np.maximum(spread, SPREAD_SHARE * np.abs(level) + 1e-9)
