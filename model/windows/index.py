"""Training windows as indices over offline features, split by time. A window is 30 rows of one run and the row that it forecasts.

Windows are never stored, because consecutive ones share 29 of their 30 rows. `gather` makes a batch when it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from features.definition import WINDOW_ROWS
from features.offline import OfflineFeatures, RawTable
from features.telemetry import NUMERIC, TARGETS, Flags, Floats, Longs

JUDGED_WINDOWS_MAX: Final = 20_000
"""Most windows of the validation part and of the gate part, drawn at random from more: 10-30 s of one core, and errors known to 1 %."""
_TARGET_COLUMNS: Final = [NUMERIC.index(name) for name in TARGETS]


@dataclass(frozen=True, eq=False, slots=True)
class WindowIndex:
    """M windows.

    Args:
        end: int64 (M,), row of each window's last step.
        target_row: int64 (M,), row that it forecasts (end + horizon).
    """

    end: Longs
    target_row: Longs

    def __len__(self) -> int:
        return len(self.end)

    def select(self, which: Longs | Flags) -> WindowIndex:
        """Return the windows at these positions, or those whose flag is set."""
        return WindowIndex(self.end[which], self.target_row[which])

    def joined(self, other: WindowIndex) -> WindowIndex:
        """Return these windows and then the others."""
        return WindowIndex(np.concatenate([self.end, other.end]), np.concatenate([self.target_row, other.target_row]))


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


def build_windows(features: OfflineFeatures, table: RawTable, horizon_rows: int = 1, window_rows: int = WINDOW_ROWS) -> WindowIndex:
    """Return every window whose target row lies horizon_rows later in the same run and has at least one of TARGETS measured."""
    span = window_rows - 1 + horizon_rows
    target = np.arange(span, max(span, len(table)), dtype=np.int64)
    whole = features.run[target] == features.run[target - span]
    target = target[whole]
    measured = np.isfinite(table.numeric[np.ix_(target, _TARGET_COLUMNS)]).any(axis=1)
    target = target[measured]
    return WindowIndex(target - horizon_rows, target)


def targets_of(table: RawTable) -> Floats:
    """Return float32 (N, 4), TARGETS of every row in their own units, NaN if not measured."""
    return np.ascontiguousarray(table.numeric[:, _TARGET_COLUMNS])


def gather(features: Floats, end: Longs, window_rows: int = WINDOW_ROWS) -> Floats:
    """Return float32 (B, window_rows, F), a copy of the windows that end at rows `end` (B,) of features (N, F).

    Raises:
        IndexError: A window would begin before the first row or end after the last.
    """
    if len(end) and (end.min() < window_rows - 1 or end.max() >= len(features)):
        first, last = end.min() - window_rows + 1, end.max()
        raise IndexError(f"the windows need rows {first} to {last}, and there are only rows 0 to {len(features) - 1}")
    rows = (end[:, None] + np.arange(1 - window_rows, 1)).ravel()
    return features.take(rows, axis=0).reshape(len(end), window_rows, features.shape[1])


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


def split_by_time(
    index: WindowIndex, table: RawTable, shares: tuple[float, float, float] = (0.70, 0.15, 0.15), window_rows: int = WINDOW_ROWS
) -> Split:
    """Split by link: the first 70 % of its rows train, the next 15 % validate, the last 15 % test. Windows across a cut are left out.

    Raises:
        ValueError: The shares are not three positive numbers that add up to 1.
    """
    validation_from, test_from = part_starts(table, shares)
    link = table.link[index.target_row]
    begin, target = index.end - (window_rows - 1), index.target_row
    return Split(
        train=index.select(target < validation_from[link]),
        validation=index.select((begin >= validation_from[link]) & (target < test_from[link])),
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
    return FineTuneSplit(
        recent=new.select(recent if recent_windows_max is None else recent[max(0, len(recent) - recent_windows_max) :]),
        replay=replay,
        validation=_drawn(new.select((new_s >= validation_s) & (new_s < gate_s)), JUDGED_WINDOWS_MAX, rng),
        gate=_drawn(new.select(new_s >= gate_s), JUDGED_WINDOWS_MAX, rng),
    )


def _drawn(index: WindowIndex, most: int, rng: np.random.Generator) -> WindowIndex:
    """Return at most `most` of the windows, drawn without repetition, in their order."""
    return index if len(index) <= most else index.select(np.sort(rng.choice(len(index), most, replace=False)))
