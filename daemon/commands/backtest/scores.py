"""Errors of all forecasts that were made in a replay, each beside the row that it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.ingest.ahead import Made
from features.telemetry import TARGETS, Doubles, Floats, Ints, Longs, Partition
from model.judge.mixture import SIMPLE
from model.version.contract import LOWER, MEDIAN, UPPER

METHODS: Final = ("published", "version", *SIMPLE)
"""Forecasts of every replay: what is published, and what it is mixed from."""


@dataclass
class Rows:
    """A Listener that keeps the forecasts of all rows at some horizons.

    Args:
        horizons: rows ahead; those that the version does not forecast are left out.
    """

    horizons: tuple[int, ...]
    parts: list[tuple[Ints, Doubles, Doubles, Ints, Floats, Floats, Floats]] = field(default_factory=list)
    links: dict[str, int] = field(default_factory=dict)

    def measured(
        self, partition: Partition, time_s: Doubles, links: Sequence[str], actual: Floats, forecast: Floats, persistence: Floats
    ) -> None:
        """See daemon.ingest.ahead.Listener. The same comes again with all horizons."""

    def forecast(self, made: Made) -> None:
        """See daemon.ingest.ahead.Listener."""
        known = [made.horizons.index(rows) for rows in self.horizons if rows in made.horizons]
        self.horizons = tuple(made.horizons[at] for at in known)
        link = np.array([self.links.setdefault(name, len(self.links)) for name in made.links], np.int32)
        medians = [forecasts[:, known][..., MEDIAN, None] for forecasts in (made.published, made.version)]
        forecasts = np.concatenate([*medians, made.simple[:, known]], axis=3)
        bounds = made.published[:, known][..., [LOWER, UPPER]]
        self.parts.append((link, made.time_s, made.interval_s, made.restarted.astype(np.int32), made.actual, forecasts, bounds))

    def table(self) -> Table | None:
        """Return all of it in order of link and time; None without any row."""
        if not self.parts:
            return None
        link, time_s, interval_s, restarted, actual, forecasts, bounds = (
            np.concatenate(column) for column in zip(*self.parts, strict=True)
        )
        order = np.lexsort((time_s, link))
        link, time_s, interval_s, actual = link[order], time_s[order], interval_s[order], actual[order]
        first = np.concatenate([[True], link[1:] != link[:-1]]) | (restarted[order] != 0)
        targets = targets_of(np.cumsum(first), time_s, interval_s, actual, self.horizons)
        names = sorted(self.links, key=lambda name: self.links[name])
        return Table(names, link, time_s, interval_s, actual, targets, forecasts[order], bounds[order], self.horizons)


@dataclass(frozen=True, eq=False)
class Table:
    """N rows by link and time, with M methods and H horizons.

    Args:
        link: int32 (N,), index into links.
        time_s: float64 (N,), UTC seconds.
        interval_s: float64 (N,), seconds, NaN if not known.
        actual: float32 (N, 4), what was measured at the row.
        targets: float32 (N, H, 4), what came at each horizon, NaN if it did not.
        forecasts: float32 (N, H, 4, M), of METHODS.
        bounds: float32 (N, H, 4, 2), of what is published.
    """

    links: list[str]
    link: Ints
    time_s: Doubles
    interval_s: Doubles
    actual: Floats
    targets: Floats
    forecasts: Floats
    bounds: Floats
    horizons: tuple[int, ...]


def targets_of(run: Longs, time_s: Doubles, interval_s: Doubles, actual: Floats, horizons: Sequence[int]) -> Floats:
    """Return what came at each horizon of each row: the row of the same run nearest to the time, within half an interval.

    >>> run, time_s, actual = np.array([1, 1, 1, 2]), np.array([0.0, 60.0, 121.0, 180.0]), np.arange(4.0, dtype=np.float32)[:, None]
    >>> targets_of(run, time_s, np.full(4, 60.0), actual, (1, 2))[:, :, 0].tolist()
    [[1.0, 2.0], [2.0, nan], [nan, nan], [nan, nan]]

    Args:
        run: int64 (N,), ascending: rows with the same number are of one link without a gap.
        time_s: float64 (N,), ascending within a run.
        interval_s: float64 (N,), NaN if not known.
        actual: float32 (N, T).
        horizons: H numbers of rows.
    """
    found = np.full((len(run), len(horizons), actual.shape[1]), np.nan, np.float32)
    for begin, end in stretches(run):
        times, rows = time_s[begin:end], np.arange(begin, end)
        for at, horizon in enumerate(horizons):
            due_s = times + horizon * interval_s[begin:end]
            after = np.clip(np.searchsorted(times, due_s), 1, max(1, len(times) - 1))
            if len(times) < 2:
                continue
            nearest = np.where(np.abs(times[after] - due_s) < np.abs(times[after - 1] - due_s), after, after - 1)
            hit = (np.abs(times[nearest] - due_s) <= 0.5 * interval_s[begin:end]) & (rows - begin < nearest)
            found[rows[hit], at] = actual[begin + nearest[hit]]
    return found


def stretches(number: NDArray[np.integer[Any]]) -> list[tuple[int, int]]:
    """Return begin and end of each stretch of equal numbers.

    >>> stretches(np.array([4, 4, 7])), stretches(np.zeros(0, int))
    ([(0, 2), (2, 3)], [])
    """
    changes = (np.flatnonzero(number[1:] != number[:-1]) + 1).tolist()
    return list(zip([0, *changes], [*changes, len(number)], strict=True)) if len(number) else []


def scored(table: Table, buckets: int) -> list[dict[str, Any]]:
    """Return for each horizon and target the mean absolute errors of each method, on the rows on which all of them have a forecast.

    Args:
        buckets: parts of equal time for which they are given as well.
    """
    found = []
    ends_s = np.linspace(table.time_s.min(), table.time_s.max(), buckets + 1)[1:] if len(table.time_s) else np.zeros(buckets)
    bucket = np.minimum(np.searchsorted(ends_s, table.time_s), buckets - 1)
    for at, horizon in enumerate(table.horizons):
        for target, name in enumerate(TARGETS):
            wanted, forecasts = table.targets[:, at, target], table.forecasts[:, at, target]
            usable = [method for method in range(forecasts.shape[1]) if np.isfinite(forecasts[:, method]).any()]
            known = np.isfinite(wanted) & np.isfinite(forecasts[:, usable]).all(axis=1)
            if not known.any() or 0 not in usable:
                continue
            errors = np.abs(forecasts[known][:, usable] - wanted[known, None]).astype(np.float64)
            lower, upper = table.bounds[known, at, target].T
            count = np.bincount(bucket[known], minlength=buckets)
            over_time = {
                METHODS[method]: _means(np.bincount(bucket[known], errors[:, column], buckets).astype(np.float64), count)
                for column, method in enumerate(usable)
            }
            found.append(
                {
                    "rows_ahead": horizon,
                    "target": name,
                    "forecasts": int(known.sum()),
                    "mae": {METHODS[method]: float(errors[:, column].mean()) for column, method in enumerate(usable)},
                    "coverage": float(((wanted[known] >= lower) & (wanted[known] <= upper)).mean()),
                    "width": float((upper - lower).mean()),
                    "over_time": {"ends_s": [round(end, 3) for end in ends_s.tolist()], "count": count.tolist(), "mae": over_time},
                }
            )
    return found


def _means(sums: Doubles, count: NDArray[Any]) -> list[float | None]:
    return [total / number if number else None for total, number in zip(sums.tolist(), count.tolist(), strict=True)]
