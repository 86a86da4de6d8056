"""Training windows as indices over offline features, split by time. A window is 30 rows of one run and the row that it forecasts.

Windows are never stored, because consecutive ones share 29 of their 30 rows. `gather` makes a batch when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from features.definition import SHORT_ROWS, WINDOW_ROWS
from features.offline import OfflineFeatures, RawTable
from features.telemetry import NUMERIC, TARGETS, Doubles, Flags, Floats, Longs

JUDGED_WINDOWS_MAX: Final = 20_000
"""Most windows of the validation part and of the gate part, drawn at random from more: 10-30 s of one core, and errors known to 1 %."""
NONE: Final = -1
"""Stands for a row that does not exist."""
_TARGET_COLUMNS: Final = [NUMERIC.index(name) for name in TARGETS]


@dataclass(frozen=True, eq=False, slots=True)
class WindowIndex:
    """M windows.

    Args:
        end: int64 (M,), row of each window's last step.
        target_row: int64 (M,), row that it forecasts (end + horizon).
        ahead: int64 (M, H), row that it forecasts at each of H horizons, see `rows_ahead`; NONE where there is none. H may be 0.
        begin: int64 (M,), row of each window's first measured step: later than the first step if the run is short. Without it, all
            windows have WINDOW_ROWS rows.
    """

    end: Longs
    target_row: Longs
    ahead: Longs = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    begin: Longs = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if len(self.ahead) != len(self.end):
            object.__setattr__(self, "ahead", np.zeros((len(self.end), 0), np.int64))
        if len(self.begin) != len(self.end):
            object.__setattr__(self, "begin", self.end - (WINDOW_ROWS - 1))

    def __len__(self) -> int:
        return len(self.end)

    def select(self, which: Longs | Flags) -> WindowIndex:
        """Return the windows at these positions, or those whose flag is set."""
        return WindowIndex(self.end[which], self.target_row[which], self.ahead[which], self.begin[which])

    def joined(self, other: WindowIndex) -> WindowIndex:
        """Return these windows and then the others."""
        return WindowIndex(
            np.concatenate([self.end, other.end]), np.concatenate([self.target_row, other.target_row]),
            np.concatenate([self.ahead, other.ahead]), np.concatenate([self.begin, other.begin]),
        )  # fmt: skip

    def parts(self, size: int) -> Iterator[WindowIndex]:
        """Yield the windows in parts of at most `size`, in their order: only those of one part have to exist at a time."""
        for start in range(0, len(self), size):
            yield self.select(np.arange(start, min(start + size, len(self))))

    def limited(self, allowed: Flags) -> WindowIndex:
        """Return the windows without the rows ahead that lie outside of their part. allowed: bool (N,) or (M, H)."""
        inside = allowed if allowed.ndim == 2 else (self.ahead != NONE) & allowed[self.ahead]
        return WindowIndex(self.end, self.target_row, np.where(inside, self.ahead, NONE), self.begin)


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts that share no row. Their windows keep the order of the index: by link, then by time."""

    train: WindowIndex
    validation: WindowIndex
    test: WindowIndex


@dataclass(frozen=True, slots=True)
class FineTuneSplit:
    """Windows for a fine-tuning, each part in order of event time (and of links within one instant).

    Args:
        recent: New windows to train on.
        replay: A sample of the windows that the parent was trained on, against forgetting.
        validation: For early stopping.
        gate: The newest. Neither the parent nor the candidate is trained on their targets.
    """

    recent: WindowIndex
    replay: WindowIndex
    validation: WindowIndex
    gate: WindowIndex

    @property
    def train(self) -> WindowIndex:
        """The windows to train on: replay, then recent ones."""
        return self.replay.joined(self.recent)


def build_windows(
    features: OfflineFeatures, table: RawTable, horizon_rows: int = 1, window_rows: int = WINDOW_ROWS, horizons: Sequence[int] = ()
) -> WindowIndex:
    """Return every window whose target row lies horizon_rows later in the same run and has at least one of TARGETS measured.

    With horizons, a run that is too short for any whole window has windows from its third row on, whose first rows are empty.

    Args:
        horizons: Of the rows ahead, see `rows_ahead`.
    """
    run = features.run
    row = np.arange(len(run), dtype=np.int64)
    first, last = np.searchsorted(run, run), np.searchsorted(run, run, side="right") - 1
    is_short = last - first < window_rows - 1 + horizon_rows
    needed = np.where(is_short & (len(horizons) > 0), SHORT_ROWS, window_rows)
    end = row - horizon_rows
    target: Longs = row[end - first + 1 >= needed]
    measured = np.isfinite(targets_of(table)[target]).any(axis=1)
    target = target[measured]
    end = target - horizon_rows
    begin = np.maximum(first[end], end - (window_rows - 1))
    return WindowIndex(end, target, rows_ahead(features, table.time_s, end, horizons), begin)


def rows_ahead(features: OfflineFeatures, time_s: Doubles, end: Longs, horizons: Sequence[int]) -> Longs:
    """Return int64 (M, H), the row that lies h sampling intervals after each window's last row, for each horizon h; NONE if there is none.

    It is the row nearest to that time, within half an interval, later in the same run. The interval is the link's, as it is known at the
    window's last row: a probe that skips every third time has no row for some horizons, and is not forecast for a wrong time.

    Args:
        features: Of the N rows.
        time_s: float64 (N,), UTC seconds of the rows, ascending within a link.
        end: int64 (M,), row of each window's last step.
        horizons: H numbers of rows.
    """
    rows = np.full((len(end), len(horizons)), NONE, np.int64)
    if not len(end) or not len(horizons):
        return rows
    run = features.run
    last_of_run = np.searchsorted(run, run[end], side="right") - 1
    interval_s = features.interval_s[end]
    # Times of one table, each run moved behind the one before it: a single sorted array serves all runs.
    span_s = float(time_s.max() - time_s.min()) + 1.0
    moved_s = (time_s - time_s.min()) + run * span_s
    for column, horizon in enumerate(horizons):
        ahead_s = horizon * interval_s
        wanted_s = np.where(np.isfinite(ahead_s), time_s[end] + ahead_s, time_s[end])
        later = np.searchsorted(moved_s, (wanted_s - time_s.min()) + run[end] * span_s)
        before, after = np.clip(later - 1, end, last_of_run), np.clip(later, end, last_of_run)
        nearest = np.where(np.abs(time_s[before] - wanted_s) <= np.abs(time_s[after] - wanted_s), before, after)
        found = (nearest > end) & (np.abs(time_s[nearest] - wanted_s) <= 0.5 * interval_s)  # False for an interval of NaN
        rows[found, column] = nearest[found]
    return rows


def targets_at(targets: Floats, rows: Longs) -> Floats:
    """Return float32 (*rows.shape, K), targets (N, K) at the rows, NaN for NONE."""
    found: Floats = targets[np.maximum(rows, 0)]
    return np.where((rows == NONE)[..., None], np.float32(np.nan), found)


def targets_of(table: RawTable) -> Floats:
    """Return float32 (N, 4), TARGETS of every row in their own units, NaN if not measured."""
    return np.ascontiguousarray(table.numeric[:, _TARGET_COLUMNS])


def gather(
    features: Floats, end: Longs, window_rows: int = WINDOW_ROWS, begin: Longs | None = None, empty: Floats | None = None
) -> Floats:  # fmt: skip
    """Return float32 (B, window_rows, F), a copy of the windows that end at rows `end` (B,) of features (N, F).

    Args:
        begin: int64 (B,), first measured row of each window; the rows before it are `empty`. None: all windows are whole.
        empty: float32 (F,), see `features.offline.empty_row`.

    Raises:
        IndexError: A window would begin before the first row or end after the last.
    """
    first = end - (window_rows - 1)
    if begin is None or empty is None or not (begin > first).any():
        if len(end) and (end.min() < window_rows - 1 or end.max() >= len(features)):
            raise IndexError(f"the windows need rows {first.min()} to {end.max()}, and there are only rows 0 to {len(features) - 1}")
        rows = (end[:, None] + np.arange(1 - window_rows, 1)).ravel()
        return features.take(rows, axis=0).reshape(len(end), window_rows, features.shape[1])
    rows = end[:, None] + np.arange(1 - window_rows, 1)
    windows: Floats = features[np.maximum(rows, 0)]
    windows[rows < begin[:, None]] = empty
    return windows


def part_starts(table: RawTable, shares: tuple[float, float, float]) -> tuple[Longs, Longs]:
    """Return int64 (L,) each, the rows at which every link's validation and test part begin.

    Raises:
        ValueError: The shares are not three positive numbers that add up to 1.
    """
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1.0) > 1e-9:
        raise ValueError(f"shares must be three numbers over 0 that add up to 1, not {shares}")
    links = np.arange(len(table.links))
    first, after = np.searchsorted(table.link, links), np.searchsorted(table.link, links, side="right")
    rows = after - first
    # rounded, because .70 + .15 is a little less than .85 and would cut one row too early
    validation_from = first + np.floor(np.round(rows * shares[0], 6)).astype(np.int64)
    test_from = first + np.floor(np.round(rows * (shares[0] + shares[1]), 6)).astype(np.int64)
    return validation_from, test_from


def split_by_time(index: WindowIndex, table: RawTable, shares: tuple[float, float, float] = (0.70, 0.15, 0.15)) -> Split:
    """Split by link: the first 70 % of its rows train, the next 15 % validate, the last 15 % test. Windows across a cut are left out.

    Raises:
        ValueError: The shares are not three positive numbers that add up to 1.
    """
    validation_from, test_from = part_starts(table, shares)
    link = table.link[index.target_row]
    begin, target = index.begin, index.target_row
    row = np.arange(len(table))
    before_validation, before_test = row < validation_from[table.link], row < test_from[table.link]
    return Split(
        train=index.select(target < validation_from[link]).limited(before_validation),
        validation=index.select((begin >= validation_from[link]) & (target < test_from[link])).limited(before_test),
        test=index.select(begin >= test_from[link]),
    )


def split_for_finetune(
    index: WindowIndex,
    table: RawTable,
    *,
    trained_until_s: float | None,
    replay_windows: int,
    recent_windows_max: int | None,
    seed: int,
    validation_share: float = 0.10,
    gate_share: float = 0.15,
) -> FineTuneSplit:
    """Split the windows after trained_until_s by event time over all links: a held-out target is newer than all that is trained on.

    The newest gate_share form the gate part, those before it the validation part, and the rest is recent. Inputs of held-out windows may
    be older rows, as when the model is live: after a drift no link may have 31 rows in the gate's part yet.

    Args:
        trained_until_s: Newest row that the parent is trained on, UTC seconds; None: a first version, for which all windows are new.
        replay_windows: How many are drawn from the windows up to trained_until_s.
        recent_windows_max: Only the newest of the recent windows; None: all.

    Raises:
        ValueError: The shares leave nothing to train on.
    """
    if min(validation_share, gate_share) <= 0 or validation_share + gate_share >= 1:
        raise ValueError(f"validation_share {validation_share} and gate_share {gate_share} must be over 0 and leave something to train on")
    rng = np.random.default_rng(seed)
    target_s = table.time_s[index.target_row]
    in_time = np.lexsort((index.target_row, target_s))
    index, target_s = index.select(in_time), target_s[in_time]
    new_from = 0 if trained_until_s is None else int(np.searchsorted(target_s, trained_until_s, side="right"))
    old, new, new_s = index.select(np.arange(new_from)), index.select(np.arange(new_from, len(index))), target_s[new_from:]
    replay = _drawn(old, replay_windows, rng)
    if not len(new):
        return FineTuneSplit(new, replay, new, new)
    validation_s = new_s[int(len(new) * (1.0 - gate_share - validation_share))]
    gate_s = new_s[int(len(new) * (1.0 - gate_share))]
    recent = np.flatnonzero(new_s < validation_s)
    before_validation, before_gate = table.time_s < validation_s, table.time_s < gate_s
    return FineTuneSplit(
        recent=new.select(recent if recent_windows_max is None else recent[max(0, len(recent) - recent_windows_max) :]).limited(
            before_validation
        ),
        replay=replay.limited(before_validation),
        validation=_drawn(new.select((new_s >= validation_s) & (new_s < gate_s)), JUDGED_WINDOWS_MAX, rng).limited(before_gate),
        gate=_drawn(new.select(new_s >= gate_s), JUDGED_WINDOWS_MAX, rng),
    )


def _drawn(index: WindowIndex, most: int, rng: np.random.Generator) -> WindowIndex:
    """Return at most `most` of the windows, drawn without repetition, in their order."""
    return index if len(index) <= most else index.select(np.sort(rng.choice(len(index), most, replace=False)))
