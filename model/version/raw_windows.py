"""Inputs of a raw graph: windows of telemetry as it was measured, cut from a table, and their features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.calendar import LAST_HOUR, hour_and_weekday
from features.definition import FEATURES, HISTORY_ROWS, WINDOW_ROWS
from features.offline import RawTable, compute
from features.telemetry import CATEGORIES, NUMERIC, Doubles, Floats, Ints, Longs
from features.vocabulary import MISSING, Vocabulary
from model.version.contract import CONTEXT

Texts: TypeAlias = NDArray[Any]
_HOUR, _WEEKDAY = NUMERIC.index("time_of_day"), NUMERIC.index("day_of_week")


@dataclass(frozen=True, eq=False, slots=True)
class RawWindows:
    """B windows, rows oldest first, all of a window's rows of one run of one link.

    A version of several horizons forecasts runs from their third row on: the rows of a window before that have no time and no values.

    time_s: float64 (B, 30), UTC seconds of the window's rows; NaN for a row before the run began.
    telemetry: float32 (B, 39, 11), columns NUMERIC, NaN if not measured. The 9 rows before the window are all NaN if the run began
    later.
        Hour and weekday are derived from the time where they are NaN.
    categories: str objects (B, 30, 6), columns CATEGORIES, "" if missing.
    context: float32 (B, C), what the links remember, NaN if not known; None: nothing is known, or no graph asks.
    """

    time_s: Doubles
    telemetry: Floats
    categories: Texts
    context: Floats | None = None

    def __post_init__(self) -> None:
        require_shapes(self.time_s, self.telemetry, self.categories)
        if self.context is not None and (self.context.ndim != 2 or len(self.context) != len(self)):
            raise ValueError(f"context must be ({len(self)}, C), not {self.context.shape}")

    def __len__(self) -> int:
        return len(self.time_s)

    def take(self, which: Longs | slice) -> RawWindows:
        """Return the windows at these positions, as copies."""
        context = None if self.context is None else self.context[which].copy()
        return RawWindows(self.time_s[which].copy(), self.telemetry[which].copy(), self.categories[which].copy(), context)

    def joined(self, other: RawWindows) -> RawWindows:
        """Return these windows and then the others; without a context if one of them has none."""
        pairs = ((self.time_s, other.time_s), (self.telemetry, other.telemetry), (self.categories, other.categories))
        context = None if self.context is None or other.context is None else np.concatenate([self.context, other.context])
        time_s, telemetry, categories = (np.concatenate(pair) for pair in pairs)
        return RawWindows(time_s, telemetry, categories, context)

    def feed(self) -> dict[str, NDArray[Any]]:
        """Return the inputs of a raw graph by name."""
        context = {} if self.context is None else {CONTEXT: self.context}
        return {"time_s": self.time_s, "telemetry": self.telemetry, "categories": self.categories, **context}


def require_shapes(time_s: Doubles, telemetry: Floats, categories: Texts, window_rows: int | None = None) -> None:
    """Raise ValueError with the name of the array whose shape is not that of RawWindows. window_rows: None for any."""
    count = len(time_s) if time_s.ndim else 0
    rows = window_rows or (time_s.shape[1] if time_s.ndim == 2 else WINDOW_ROWS)
    needed = {"time_s": (rows,), "telemetry": (HISTORY_ROWS + rows, len(NUMERIC)), "categories": (rows, len(CATEGORIES))}
    arrays: tuple[NDArray[Any], ...] = (time_s, telemetry, categories)
    for (name, shape), array in zip(needed.items(), arrays, strict=True):
        if array.shape != (count, *shape):
            batch = "B" if name == "time_s" else count
            raise ValueError(f"{name} must be ({', '.join(map(str, (batch, *shape)))}), not {array.shape}")


def cut(
    table: RawTable, run: Longs, end: Longs, window_rows: int = WINDOW_ROWS, context: Floats | None = None, short: bool = False
) -> RawWindows:  # fmt: skip
    """Return the windows that end at some rows of a table.

    Args:
        table: N rows.
        run: int64 (N,), the run of each row, as OfflineFeatures has it.
        end: int64 (B,), last row of each window.
        window_rows: rows of a window.
        context: float32 (N, C), of the rows.

        short: let windows begin before their run: those rows have no time and no values.

    Raises:
        IndexError: if a window would begin before the first row or end after the last.
        ValueError: if a window crosses a gap.
    """
    if not short and len(end) and (end.min() < window_rows - 1 or end.max() >= len(table)):
        raise IndexError(f"windows cannot end at rows {end.min()} to {end.max()}, only at {window_rows - 1} to {len(table) - 1}")
    rows = end[:, None] + np.arange(1 - HISTORY_ROWS - window_rows, 1)  # (B, 39)
    same_run = (rows >= 0) & (run[np.maximum(rows, 0)] == run[end][:, None])
    if not short and not same_run[:, HISTORY_ROWS:].all():
        raise ValueError(f"the window that ends at row {end[~same_run[:, HISTORY_ROWS:].all(axis=1)][0]} is not of one run")
    telemetry = np.where(same_run[:, :, None], table.numeric[np.maximum(rows, 0)], np.float32(np.nan))
    window, there = np.maximum(rows[:, HISTORY_ROWS:], 0), same_run[:, HISTORY_ROWS:]
    categories = np.empty((len(end), window_rows, len(CATEGORIES)), object)
    for index, values in enumerate(table.values):
        codes = np.where(there, table.codes[window, index], MISSING)
        categories[:, :, index] = np.array([*values, ""], object)[codes]  # -1, missing, takes the last one
    return RawWindows(np.where(there, table.time_s[window], np.nan), telemetry, categories, None if context is None else context[end])


def features_of(windows: RawWindows, vocabulary: Vocabulary) -> Floats:
    """Return the features of each window, float32 (B, 30, 44), unscaled, by the kernels of the stream; each window is a link of its own."""
    count, held = windows.telemetry.shape[:2]
    numeric = windows.telemetry.copy()
    hour, weekday = hour_and_weekday(windows.time_s)
    window = numeric[:, HISTORY_ROWS:]
    for column, derived in ((_HOUR, hour), (_WEEKDAY, weekday)):
        window[:, :, column] = np.where(np.isnan(window[:, :, column]), derived.astype(np.float32), window[:, :, column])
    np.minimum(window[:, :, _HOUR], LAST_HOUR, out=window[:, :, _HOUR])
    codes: Ints = np.full((count, held, len(CATEGORIES)), MISSING, np.int32)
    values = []
    for index in range(len(CATEGORIES)):
        texts, code = np.unique(windows.categories[:, :, index].astype(object).ravel(), return_inverse=True)
        values.append(tuple(texts))
        code = np.where(texts[code] == "", MISSING, code)
        codes[:, HISTORY_ROWS:, index] = code.reshape(count, held - HISTORY_ROWS)
    table = RawTable(
        links=tuple(map(str, range(count))),
        link=np.repeat(np.arange(count, dtype=np.int32), held),
        time_s=np.tile(np.arange(held, dtype=np.float64), count),  # steady: a window is of one run
        numeric=numeric.reshape(-1, len(NUMERIC)),
        codes=codes.reshape(-1, len(CATEGORIES)),
        values=tuple(values),
    )
    return compute(table, vocabulary).features.reshape(count, held, len(FEATURES))[:, HISTORY_ROWS:]
