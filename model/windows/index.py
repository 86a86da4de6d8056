"""Training windows as indices over offline features, split by time: a window is 30 rows of one run and the row it forecasts.

Windows are never stored: consecutive ones share 29 of their 30 rows. `gather` makes a batch of them when it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from features.definition import WINDOW_ROWS
from features.offline import OfflineFeatures, RawTable
from features.telemetry import TARGETS, Doubles, Flags, Floats, Longs

JUDGED_WINDOWS_MAX: Final = 20_000
"""Windows of the validation and of the gate part, each drawn at random from more: 10-30 s of one core, and errors known to 1 %."""


@dataclass(frozen=True, eq=False, slots=True)
class WindowIndex:
    """M windows. end: int64 (M,), row of each window's last step. target_row: int64 (M,), row that it forecasts (end + horizon)."""

    end: Longs
    target_row: Longs

    def __len__(self) -> int:
        return len(self.end)

    def take(self, which: Longs | Flags) -> WindowIndex:
        return WindowIndex(self.end[which], self.target_row[which])

    def joined(self, other: WindowIndex) -> WindowIndex:
        return WindowIndex(np.concatenate([self.end, other.end]), np.concatenate([self.target_row, other.target_row]))


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts that share no row. Their windows keep the order of the index: by link, then by time."""

    train: WindowIndex
    validation: WindowIndex
    test: WindowIndex


@dataclass(frozen=True, slots=True)
class FineTuneSplit:
    """Windows for a fine-tuning, each part in order of event time (of links in link order within one instant).

    recent: new rows to train on. replay: a sample of what the parent has already seen, against forgetting.
    validation: for early stopping. gate: the newest; neither the parent nor the candidate has trained on their targets.
    """

    recent: WindowIndex
    replay: WindowIndex
    validation: WindowIndex
    gate: WindowIndex

    @property
    def train(self) -> WindowIndex:
        """Replay, then recent windows."""
        return self.replay.joined(self.recent)


def build_windows(features: OfflineFeatures, table: RawTable, horizon_rows: int = 1, window_rows: int = WINDOW_ROWS) -> WindowIndex:
    """Every window of window_rows rows whose target lies horizon_rows later in the same run and has at least one of TARGETS measured."""
    reach = window_rows - 1 + horizon_rows
    target = np.arange(reach, max(reach, len(table)), dtype=np.int64)
    whole = features.run[target] == features.run[target - reach]
    target = target[whole]
    measured = np.isfinite(table.numeric[target, : len(TARGETS)]).any(axis=1)
    target = target[measured]
    return WindowIndex(target - horizon_rows, target)


def targets_of(table: RawTable) -> Floats:
    """float32 (N, 4): TARGETS of every row in their own units, NaN where not measured."""
    return np.ascontiguousarray(table.numeric[:, : len(TARGETS)])


def gather(features: Floats, end: Longs, window_rows: int = WINDOW_ROWS) -> Floats:
    """The windows that end at rows `end` (B,) of features (N, F): float32 (B, window_rows, F), a copy.

    Raises IndexError where a window would begin before the first row or end after the last.
    """
    if len(end) and (end.min() < window_rows - 1 or end.max() >= len(features)):
        first, last = end.min() - window_rows + 1, end.max()
        raise IndexError(f"the windows take rows {first} to {last}, and there are only rows 0 to {len(features) - 1}")
    rows = (end[:, None] + np.arange(1 - window_rows, 1)).ravel()
    return features.take(rows, axis=0).reshape(len(end), window_rows, features.shape[1])


def part_starts(table: RawTable, shares: tuple[float, float, float]) -> tuple[Longs, Longs]:
    """int64 (L,) each: the row at which every link's validation and test part begins.

    Raises ValueError where the shares are not three positive numbers that add up to 1.
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
    """Per link, the first 70 % of its rows train, the next 15 % validate, the last 15 % test; windows that cross a cut are left out.

    Raises ValueError where the shares are not three positive numbers that add up to 1.
    """
    validation_from, test_from = part_starts(table, shares)
    link = table.link[index.target_row]
    begin, target = index.end - (window_rows - 1), index.target_row
    return Split(
        train=index.take(target < validation_from[link]),
        validation=index.take((begin >= validation_from[link]) & (target < test_from[link])),
        test=index.take(begin >= test_from[link]),
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
    inputs_reach_back: bool = False,
) -> FineTuneSplit:
    """Windows with a target after trained_until_s (all of them for a first version, None), cut by event time over all links.

    The newest gate_share of them form the gate part, those before it the validation part, the rest is recent (the newest
    recent_windows_max of it); replay_windows are drawn from the windows up to trained_until_s. A held-out target is therefore newer
    than everything that was trained on. By default the windows of validation and gate lie wholly inside their part; with
    inputs_reach_back only their targets do, while their inputs may be older rows, as they are when the model is live: then a part
    needs no 31 rows of a link to hold a window. Raises ValueError where the shares leave nothing to train on.
    """
    if min(validation_share, gate_share) <= 0 or validation_share + gate_share >= 1:
        raise ValueError(f"validation_share {validation_share} and gate_share {gate_share} must be over 0 and leave something to train on")
    rng = np.random.default_rng(seed)
    target_s = table.time_s[index.target_row]
    in_time = np.lexsort((index.target_row, target_s))
    index, target_s = index.take(in_time), target_s[in_time]
    new_from = 0 if trained_until_s is None else int(np.searchsorted(target_s, trained_until_s, side="right"))
    old, new, new_s = index.take(np.arange(new_from)), index.take(np.arange(new_from, len(index))), target_s[new_from:]
    if not len(new):
        return FineTuneSplit(new, old.take(_draw(rng, len(old), replay_windows)), new, new)
    validation_s = new_s[int(len(new) * (1.0 - gate_share - validation_share))]
    gate_s = new_s[int(len(new) * (1.0 - gate_share))]
    begin_s = new_s if inputs_reach_back else table.time_s[new.end - (WINDOW_ROWS - 1)]
    recent = np.flatnonzero(new_s < validation_s)
    return FineTuneSplit(
        recent=new.take(recent if recent_windows_max is None else recent[max(0, len(recent) - recent_windows_max) :]),
        replay=old.take(_draw(rng, len(old), replay_windows)),
        validation=_judged(new, begin_s, new_s, (validation_s, gate_s), rng),
        gate=_judged(new, begin_s, new_s, (gate_s, np.inf), rng),
    )


def _judged(index: WindowIndex, begin_s: Doubles, target_s: Doubles, span_s: tuple[float, float], rng: np.random.Generator) -> WindowIndex:
    inside = index.take((begin_s >= span_s[0]) & (target_s < span_s[1]))
    return inside.take(_draw(rng, len(inside), JUDGED_WINDOWS_MAX))


def _draw(rng: np.random.Generator, count: int, most: int) -> Longs:
    """At most `most` of `count` positions, without repetition, ascending."""
    if count <= most:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False))
