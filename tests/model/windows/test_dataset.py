"""Windows as indices, their split by time, and the scaler."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.definition import FEATURES
from features.offline import OfflineFeatures, RawTable, compute
from features.telemetry import CATEGORIES, NUMERIC, Floats
from features.vocabulary import Vocabulary
from model.training.dataset import CALENDAR
from model.windows.index import (
    JUDGED_WINDOWS_MAX,
    WindowIndex,
    build_windows,
    gather,
    split_by_time,
    split_for_finetune,
    targets_of,
)
from model.windows.scaler import Scaler


def table_of(runs: list[list[int]], missing: float = 0.0, seed: int = 0) -> tuple[RawTable, OfflineFeatures]:
    """Links of runs of the given lengths, one row a second, an hour between two runs."""
    rng = np.random.default_rng(seed)
    link = np.repeat(np.arange(len(runs), dtype=np.int32), [sum(lengths) for lengths in runs])
    time_s = np.concatenate([np.arange(n) + 3_600.0 * part for lengths in runs for part, n in enumerate(lengths)] or [np.empty(0)])
    numeric = rng.gamma(2.0, 5.0, (len(link), len(NUMERIC))).astype(np.float32)
    numeric[rng.random(numeric.shape) < missing] = np.nan
    codes = np.zeros((len(link), len(CATEGORIES)), np.int32)
    names = tuple(f"link-{number}" for number in range(len(runs)))
    table = RawTable(names, link, time_s, numeric, codes, tuple(("x",) for _ in CATEGORIES))
    return table, compute(table, Vocabulary.empty())


lengths = st.lists(st.lists(st.integers(1, 80), min_size=1, max_size=3), min_size=1, max_size=4)
lengths_of_parts = st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=2), min_size=1, max_size=4)


@given(runs=lengths, missing=st.sampled_from([0.0, 0.5, 0.95]), horizon=st.integers(1, 3))
def test_windows_are_all_the_whole_ones(runs: list[list[int]], missing: float, horizon: int) -> None:
    """A window exists exactly where 30 rows and the target are of one link and run, and a metric was measured at the target."""
    table, features = table_of(runs, missing)
    index = build_windows(features, table, horizon)
    expected = [
        target
        for target in range(len(table))
        if target - 29 - horizon >= 0
        and len(set(features.run[target - 29 - horizon : target + 1].tolist())) == 1
        and np.isfinite(table.numeric[target, :4]).any()
    ]
    assert index.target_row.tolist() == expected
    assert index.end.tolist() == [target - horizon for target in expected]


def test_a_window_has_thirty_rows_and_its_target_is_the_next() -> None:
    """A run of 31 rows has one window: rows 0 to 29, target row 30; a run of 30 rows has none."""
    table, features = table_of([[31], [30]])
    index = build_windows(features, table)
    assert (index.end.tolist(), index.target_row.tolist()) == ([29], [30])
    np.testing.assert_array_equal(gather(features.features, index.end)[0], features.features[:30])
    np.testing.assert_array_equal(targets_of(table)[30], table.numeric[30, :4])


@pytest.mark.parametrize("end", [28, 61, -1])
def test_gather_refuses_rows_that_do_not_exist(end: int) -> None:
    """A window before the first row or after the last is an error, not rows from the other end."""
    _, features = table_of([[61]])
    with pytest.raises(IndexError, match="only rows 0 to 60"):
        gather(features.features, np.array([40, end]))


def test_gather_of_nothing_is_empty() -> None:
    """No windows give an array of no windows, with the shape of windows."""
    assert gather(np.zeros((5, 44), np.float32), np.empty(0, np.int64)).shape == (0, 30, 44)


def _rows(index: WindowIndex) -> set[int]:
    return {row for end, target in zip(index.end, index.target_row, strict=True) for row in [*range(end - 29, end + 1), target]}


@given(runs=lengths_of_parts)
def test_parts_share_no_row_and_follow_in_time(runs: list[list[int]]) -> None:
    """Per link every row of a training window is older than any of validation, and that older than any of the test; none is shared."""
    table, features = table_of(runs)
    split = split_by_time(build_windows(features, table), table)
    parts = [_rows(split.train), _rows(split.validation), _rows(split.test)]
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        assert not parts[earlier] & parts[later]
        for link in range(len(runs)):
            before = [table.time_s[row] for row in parts[earlier] if table.link[row] == link]
            after = [table.time_s[row] for row in parts[later] if table.link[row] == link]
            assert not before or not after or max(before) < min(after)


def test_a_split_leaves_out_only_windows_across_a_cut() -> None:
    """With 1,000 rows of one link, 700, 150 and 150 rows hold 670, 120 and 120 windows."""
    table, features = table_of([[1_000]])
    split = split_by_time(build_windows(features, table), table)
    assert (len(split.train), len(split.validation), len(split.test)) == (670, 120, 120)


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.2), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1)])
def test_impossible_shares_are_refused(shares: tuple[float, float, float]) -> None:
    """Shares that are not three parts of a whole are an error."""
    table, features = table_of([[40]])
    with pytest.raises(ValueError, match="add up to 1"):
        split_by_time(build_windows(features, table), table, shares)


@given(
    runs=st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=2), min_size=1, max_size=4), until_s=st.none() | st.integers(0, 3_700)
)
def test_what_judges_is_newer_than_what_trains(runs: list[list[int]], until_s: int | None) -> None:
    """Over all links: targets of replay up to trained_until_s, then those of recent, of validation, and of the gate."""
    table, features = table_of(runs)
    index = build_windows(features, table)
    split = split_for_finetune(index, table, trained_until_s=until_s, replay_windows=10, recent_windows_max=50, seed=1)
    times = table.time_s
    edge = -1.0 if until_s is None else until_s
    assert len(split.replay) <= 10
    assert len(split.recent) <= 50
    assert np.all(times[split.replay.target_row] <= edge)
    assert np.all(times[split.recent.target_row] > edge)
    newest_trained = max(times[split.train.target_row].tolist(), default=-1.0)
    newest_validated = max(times[split.validation.target_row].tolist(), default=newest_trained)
    assert np.all(times[split.validation.target_row] > newest_trained)
    assert np.all(times[split.gate.target_row] > newest_validated)
    for part in (split.recent, split.replay, split.validation, split.gate):
        assert np.all(np.diff(times[part.target_row]) >= 0)
    again = split_for_finetune(index, table, trained_until_s=until_s, replay_windows=10, recent_windows_max=50, seed=1)
    np.testing.assert_array_equal(split.train.end, again.train.end)


def test_short_histories_can_be_judged() -> None:
    """With 100 new rows, a gate part of 15 holds no whole window, but 15 targets; none of them was trained or validated on."""
    table, features = table_of([[1_000]])
    index = build_windows(features, table)
    split = split_for_finetune(index, table, trained_until_s=899.0, replay_windows=0, recent_windows_max=None, seed=0)
    assert split.recent.target_row.tolist() == list(range(900, 975))
    assert split.validation.target_row.tolist() == list(range(975, 985))
    assert split.gate.target_row.tolist() == list(range(985, 1_000))


def test_the_judged_windows_are_bounded() -> None:
    """A large fleet's gate part is a sample, so that judging takes seconds."""
    table, features = table_of([[4_000]] * 50)
    split = split_for_finetune(
        build_windows(features, table), table, trained_until_s=None, replay_windows=0, recent_windows_max=None, seed=0, gate_share=0.3
    )
    assert len(split.gate) == JUDGED_WINDOWS_MAX
    assert len(split.train) > 100_000


def test_nothing_new_leaves_nothing_to_train_on() -> None:
    """When no window is newer than the live version, only the replay has windows."""
    table, features = table_of([[100]])
    split = split_for_finetune(
        build_windows(features, table), table, trained_until_s=1e9, replay_windows=5, recent_windows_max=None, seed=0
    )
    assert (len(split.recent), len(split.validation), len(split.gate), len(split.replay)) == (0, 0, 0, 5)


def column_values(*values: float) -> Floats:
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize(
    ("values", "mean", "scale", "fitted"),
    [
        ((1, 3, np.nan, 5, 7), 4.0, np.sqrt(5.0), True),
        ((1e10, 1e10 + 4096, 1e10 - 4096), 1e10, 4096 * np.sqrt(2 / 3), False),  # under a millionth of the mean: rounding
        ((1e-6, 3e-6), 2e-6, 1e-6, True),
        ((5, 5, np.nan, 5), 5.0, 1.0, False),
        ((0, 0), 0.0, 1.0, False),
        ((np.nan, np.nan), 0.0, 1.0, False),
        ((np.inf, 1, 3), 2.0, 1.0, True),
    ],
)
def test_the_scaler_knows_what_was_measured(values: tuple[float, ...], mean: float, scale: float, fitted: bool) -> None:
    """Mean and population deviation of the finite values; an empty or constant column has scale 1 and is marked."""
    scaler = Scaler.fit(column_values(*values))
    assert scaler.mean[0] == pytest.approx(mean, rel=1e-6)
    assert scaler.scale[0] == pytest.approx(scale if fitted else 1.0, rel=1e-6)
    assert bool(scaler.fitted[0]) is fitted


def test_a_known_scale_takes_the_place_of_a_fitted_one() -> None:
    """For a column whose values say little: but for a constant one, which stays marked as such; by a child that fits it, too."""
    spreads = {0: (12.0, 7.0), 1: (3.0, 2.0)}
    scaler = Scaler.fit(np.array([[8.0, 5.0, 1.0], [8.5, 5.0, 3.0]], np.float32), spreads)
    assert (scaler.mean.tolist(), scaler.scale.tolist()) == ([12.0, 5.0, 2.0], [7.0, 1.0, 1.0])
    assert scaler.fitted.tolist() == [True, False, True]
    child = scaler.extended(np.array([[1.0, 5.0, 9.0], [2.0, 6.0, 9.0]], np.float32), spreads)
    assert (child.mean.tolist(), child.scale.tolist()) == ([12.0, 3.0, 2.0], [7.0, 2.0, 1.0])


def test_the_scales_of_a_first_hour_hold_for_a_week() -> None:
    """The calendar's columns of a version that has seen one hour are within two deviations all week: its successors keep its scales."""
    hour = np.full((60, len(FEATURES)), 1.0, np.float32)
    hour[:, FEATURES.index("time_of_day")] = np.linspace(9, 10, 60)
    hour[:, FEATURES.index("hour_sin")] = np.sin(2 * np.pi * np.linspace(9, 10, 60) / 24)
    scaler = Scaler.fit(hour, CALENDAR)
    week = np.full((24, len(FEATURES)), 1.0, np.float32)
    week[:, FEATURES.index("time_of_day")] = np.arange(24)
    week[:, FEATURES.index("hour_sin")] = np.sin(2 * np.pi * np.arange(24) / 24)
    assert np.abs(scaler.transform(week)).max() <= 2


def test_missing_inputs_are_zero_and_missing_targets_stay() -> None:
    """transform makes gaps 0, the mean; standardise keeps them for the loss to mask; inverse undoes the scaling."""
    values = np.array([[1.0, 10.0], [3.0, np.nan], [np.inf, 30.0]], np.float32)
    scaler = Scaler.fit(values)
    np.testing.assert_allclose(scaler.transform(values), [[-1, -1], [1, 0], [0, 1]], rtol=1e-6)
    assert np.isnan(scaler.standardise(values)[1, 1])
    np.testing.assert_allclose(scaler.inverse(scaler.standardise(values))[:2], values[:2], rtol=1e-6)
    assert scaler.transform(values).dtype == np.float32


def test_an_extended_scaler_keeps_its_parents_units() -> None:
    """Columns the parent could scale stay bit for bit; those that were empty or constant are fitted when they come alive."""
    parent = Scaler.fit(np.array([[1, np.nan, 5, np.nan], [3, np.nan, 5, np.nan]], np.float32))
    extended = parent.extended(np.array([[100, 2, 4, np.nan], [900, 6, 8, np.nan]], np.float32))
    assert extended.mean.tolist() == [2.0, 4.0, 6.0, 0.0]
    assert extended.scale.tolist() == [1.0, 2.0, 2.0, 1.0]
    assert extended.fitted.tolist() == [True, True, True, False]
