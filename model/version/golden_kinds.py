"""Kinds of windows that golden samples cover: real ones, each with a change that a stream can bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.calendar import DAY_S
from features.definition import HISTORY_ROWS, SHORT_ROWS
from features.telemetry import CALENDAR, CATEGORIES, NUMERIC, TARGETS, Doubles, Floats
from model.version.raw_windows import RawWindows

_EXTREMES: Final = (1e6, 1e9, 1e12, 1e20, 1e30)


def varied(base: RawWindows) -> tuple[tuple[str, ...], RawWindows]:
    """Return named copies of the base windows, used in turn: unchanged, and with each change that a stream can bring."""
    rng = np.random.default_rng(2)
    changes = list(_changes(rng, base.time_s.shape[1]))
    if base.context is not None:  # a version of several horizons forecasts short runs
        changes += [(f"a run of {rows} rows", _short(rows)) for rows in (SHORT_ROWS, 12)]
    windows = base.take(np.arange(len(changes)) * 7 % len(base))
    for index, (_, change) in enumerate(changes):
        change(windows.time_s[index], windows.telemetry[index], windows.categories[index])
    return tuple(name for name, _ in changes), windows


Change = Callable[[Doubles, Floats, NDArray[Any]], None]


def _changes(rng: np.random.Generator, window_rows: int) -> Iterator[tuple[str, Change]]:
    """Yield named changes. Each writes into one window: time_s (30,), telemetry (39, 11), categories (30, 6)."""

    def put(part: str, where: Any, value: Any) -> Change:
        def change(time_s: Doubles, telemetry: Floats, categories: NDArray[Any]) -> None:
            parts: dict[str, NDArray[Any]] = {"time_s": time_s, "telemetry": telemetry, "categories": categories}
            parts[part][where] = value

        return change

    metrics, calendar = slice(0, len(TARGETS)), [NUMERIC.index(name) for name in CALENDAR]
    measured = [index for index in range(len(NUMERIC)) if index not in calendar]
    for number in range(8):
        yield f"ordinary {number}", put("telemetry", slice(0), np.nan)
    for missing in (1, 2, 4, 7, 8, 9):
        yield f"stream start: {missing} rows of history missing", put("telemetry", slice(missing), np.nan)
    for share in (0.1, 0.3, 0.6, 0.9):
        yield f"holes: {share:.0%} of all values", put("telemetry", rng.random((HISTORY_ROWS + window_rows, len(NUMERIC))) < share, np.nan)
    for column in range(len(TARGETS)):
        yield f"holes: no {NUMERIC[column]} at all", put("telemetry", (slice(None), column), np.nan)
    for column in range(0, len(CATEGORIES), 2):
        yield f"unseen {CATEGORIES[column]}", put("categories", (slice(None), column), f"never seen {column}")
        yield f"missing {CATEGORIES[column + 1]}", put("categories", (slice(None), column + 1), "")
    yield "unseen categories in single rows", put("categories", rng.random((window_rows, len(CATEGORIES))) < 0.3, "néver seen")
    yield "no categories", put("categories", ..., "")
    yield "no hour and weekday", put("telemetry", (slice(None), calendar), np.nan)
    yield "no hour and weekday over midnight", _over_midnight
    yield "no hour", put("telemetry", (slice(None), NUMERIC.index("time_of_day")), np.nan)
    yield "constant metrics", put("telemetry", (slice(None), metrics), 0.5)
    yield "zeros", put("telemetry", (slice(None), measured), 0.0)
    for size in _EXTREMES:
        yield f"extreme: one row of {size:g}", put("telemetry", (-10, measured), size)
        yield f"extreme: RTT of {size:g} in the history", put("telemetry", (HISTORY_ROWS - 2, NUMERIC.index("rtt_ms")), size)


def _short(rows: int) -> Change:
    """Return the change to a window whose run began only some rows ago."""

    def change(time_s: Doubles, telemetry: Floats, categories: NDArray[Any]) -> None:
        time_s[:-rows] = np.nan
        telemetry[:-rows] = np.nan
        categories[:-rows] = ""

    return change


def _over_midnight(time_s: Doubles, telemetry: Floats, categories: NDArray[Any]) -> None:  # noqa: ARG001
    midnight_s = np.floor(time_s[-1] / DAY_S) * DAY_S
    time_s[:] = midnight_s + 60.0 * (np.arange(len(time_s)) - len(time_s) // 2)
    time_s[len(time_s) // 2 - 1] = np.nextafter(midnight_s, 0.0)
    telemetry[:, [NUMERIC.index(name) for name in CALENDAR]] = np.nan
