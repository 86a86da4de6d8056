"""The result of adding a batch of records to a FeatureStore."""

from __future__ import annotations

from dataclasses import dataclass

from features.telemetry import Codes, Doubles, Flags, Floats, Ints, Longs


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """The result of one batch: A rows were accepted, W of them are of monitored links.

    Args:
        accepted: int64 (A,), indices of the batch's rows that were new, in order. The others were duplicate or late.
        slots: int32 (A,), slot of each row's link.
        codes: int16 (A, C), codes of the categories, -1 if missing.
        restarted: bool (A,), whether a gap lies before the row.
        duplicates: How many rows had the time of their link's newest row.
        late: How many rows were older than their link's newest row.
        watched: int64 (W,), which of the A rows are of monitored links.
        previous: int64 (W,), index in `watched` of the same link's row before, -1 if that came in an earlier batch.
        ready: bool (W,), whether the run of the link has the rows that a forecast needs: 3, or 30 if no horizons were given.
        windows: float32 (W, 30, F), features unscaled, NaN in rows that are not ready. Rows before the run began are empty, see
            `features.offline.empty_row`. None if no vocabulary was given.
        last_known: float32 (W, 4), last measured value of each target in the run: the forecast by persistence.
        context: float32 (W, 3 + H, 4), level, spread and profiles of each target, NaN if unknown; (W, 0, 4) without horizons. See
            `memory.fill_context`.
        interval_s: float64 (W,), sampling interval of the link as known after the row, seconds, NaN if unknown or without horizons.

    >>> import numpy as np
    >>> none = np.zeros(0, np.int64)
    >>> last_known, context = np.zeros((0, 4), np.float32), np.zeros((0, 0, 4), np.float32)
    >>> rows = FeatureRows(none, none, none, none, 1, 0, none, none, none, None, last_known, context, np.zeros(0))
    >>> len(rows.accepted), rows.duplicates
    (0, 1)
    """

    accepted: Longs
    slots: Ints
    codes: Codes
    restarted: Flags
    duplicates: int
    late: int
    watched: Longs
    previous: Longs
    ready: Flags
    windows: Floats | None
    last_known: Floats
    context: Floats
    interval_s: Doubles
