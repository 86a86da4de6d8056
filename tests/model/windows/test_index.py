"""Rows several intervals ahead and windows of short runs: against a slow reference, at the edges of parts, and for odd links."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.definition import FEATURES, SHORT_ROWS, WINDOW_ROWS
from features.offline import OfflineFeatures, RawTable, compute, empty_row
from features.telemetry import CATEGORIES, NUMERIC, Doubles, Flags
from features.vocabulary import Vocabulary
from model.windows.index import NONE, WindowIndex, build_windows, gather, rows_ahead, split_by_time, split_for_finetune, targets_at

HORIZONS = (1, 3, 10)
MINUTE_S, DAY_S = 60.0, 86_400.0


def table_of(times: Sequence[Sequence[float]], measured: float = 1.0) -> RawTable:
    """One link for each list of times, with a share of its targets measured."""
    random = np.random.default_rng(1)
    link = np.repeat(np.arange(len(times), dtype=np.int32), [len(each) for each in times])
    numeric = random.gamma(2.0, 5.0, (len(link), len(NUMERIC))).astype(np.float32)
    numeric[random.random(numeric.shape) >= measured] = np.nan
    codes = np.zeros((len(link), len(CATEGORIES)), np.int32)
    names = tuple(f"link-{number}" for number in range(len(times)))
    time_s = np.concatenate([np.array(each, np.float64) for each in times])
    return RawTable(names, link, time_s, numeric, codes, (("x",),) * len(CATEGORIES))


def features_of(table: RawTable) -> OfflineFeatures:
    return compute(table, Vocabulary.empty(), horizons=HORIZONS)


def steady(rows: int, every_s: float = MINUTE_S, from_s: float = 0.0) -> list[float]:
    return [from_s + every_s * row for row in range(rows)]


def ahead_of(times: Sequence[float], horizons: Sequence[int] = HORIZONS) -> list[list[int]]:
    """For every row of one link, the rows ahead."""
    table = table_of([times])
    return rows_ahead(features_of(table), table.time_s, np.arange(len(table)), horizons).tolist()


def slow_ahead(features: OfflineFeatures, time_s: Doubles, end: int, horizon: int) -> int:
    """Return the nearest later row of the same run within half an interval by looking at all of them; of two the earlier."""
    interval_s = float(features.interval_s[end])
    if not math.isfinite(interval_s):
        return NONE
    wanted_s = time_s[end] + horizon * interval_s
    later = [row for row in range(end + 1, len(time_s)) if features.run[row] == features.run[end]]
    near = [row for row in later if abs(time_s[row] - wanted_s) <= 0.5 * interval_s]
    return min(near, key=lambda row: (abs(time_s[row] - wanted_s), row), default=NONE)


# Steps of quarters of a second are exact in float64, so that two rows may be equally near.
STEPS = st.lists(st.sampled_from([0.25, 1.0, 1.0, 1.0, 1.25, 1.5, 2.0, 3.0, 40.0, 3_600.0]), min_size=0, max_size=60)


@given(
    links=st.lists(STEPS, min_size=1, max_size=3),
    horizons=st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True),
    from_s=st.sampled_from([0.0, 1.79e9]),
)
def test_the_row_ahead_is_the_nearest_one(links: list[list[float]], horizons: list[int], from_s: float) -> None:
    """As a search over all rows finds it, for links of any rhythm, with pauses, bursts and gaps."""
    table = table_of([[from_s + at for at in np.cumsum([0.0, *steps]).tolist()] for steps in links])
    features = features_of(table)
    found = rows_ahead(features, table.time_s, np.arange(len(table)), horizons)
    for end in range(len(table)):
        assert found[end].tolist() == [slow_ahead(features, table.time_s, end, horizon) for horizon in horizons], end


def test_a_steady_link_knows_all_rows_but_its_last() -> None:
    """Each row's horizons are that many rows later; behind the end of the run there are none. The first row knows no interval yet."""
    found = ahead_of(steady(14))
    assert found[0] == [NONE] * 3
    assert found[1:4] == [[2, 4, 11], [3, 5, 12], [4, 6, 13]]
    assert found[-4:] == [[11, 13, NONE], [12, NONE, NONE], [13, NONE, NONE], [NONE] * 3]


def test_a_skipped_row_is_not_replaced_by_its_neighbour() -> None:
    """The row that would lie 3 intervals ahead was never sent: nothing stands for it, and later horizons still find theirs."""
    times = [time_s for time_s in steady(40) if time_s != 23 * MINUTE_S]
    found = ahead_of(times)
    assert found[20] == [21, NONE, 29]
    assert found[22] == [NONE, 24, 31]  # row 22 is minute 22, row 24 is minute 25


@pytest.mark.parametrize(("late_s", "found"), [(0.0, 21), (29.0, 21), (30.0, 21), (31.0, NONE)])
def test_a_late_row_counts_within_half_an_interval(late_s: float, found: int) -> None:
    """Half a minute late, or less, is the row of that minute; more is the row of none. The one after it then is too far away as well."""
    times = steady(40)
    times[21] += late_s
    del times[22:24]
    assert ahead_of(times, (1,))[20] == [found]


def test_no_row_ahead_lies_behind_a_gap() -> None:
    """Rows of the next run are never the rows ahead, even if the time would fit after a hole of days."""
    times = [*steady(40), *steady(40, from_s=3 * DAY_S)]
    table = table_of([times])
    features = features_of(table)
    found = rows_ahead(features, table.time_s, np.arange(80), (1, 10, 3 * 1440))
    assert features.run[39] != features.run[40]
    assert found[39].tolist() == [NONE] * 3
    assert found[40].tolist()[0] == 41
    assert (found[:40, 1] <= 39).all()
    assert (found[:, 2] == NONE).all()


def test_a_link_that_reports_once_a_day_is_forecast_by_the_day() -> None:
    """Its interval is a day, so that its horizons are days."""
    assert ahead_of(steady(30, every_s=DAY_S))[5] == [6, 8, 15]


def test_a_link_that_changes_its_rhythm_is_forecast_by_the_new_one() -> None:
    """Once the median interval is the new one, the rows ahead are those of the new rhythm."""
    times = [*steady(40), *steady(60, every_s=20.0, from_s=40 * MINUTE_S)]
    found = ahead_of(times)
    assert found[20] == [21, 23, 30]
    assert found[80] == [81, 83, 90]


def test_runs_do_not_mix_across_links_of_other_times() -> None:
    """A clock that begins in 1970 and one of this century stand in one table: the rows ahead stay those of their own link."""
    table = table_of([steady(20), steady(20, from_s=1.79e9), steady(20, every_s=0.25, from_s=1.79e9)])
    found = rows_ahead(features_of(table), table.time_s, np.arange(60), (1,))[:, 0]
    assert found.tolist() == [NONE, *range(2, 20), NONE, NONE, *range(22, 40), NONE, NONE, *range(42, 60), NONE]


def test_nothing_to_look_ahead_of() -> None:
    """No windows and no horizons give arrays of these shapes."""
    table = table_of([steady(5)])
    features = features_of(table)
    assert rows_ahead(features, table.time_s, np.empty(0, np.int64), (1, 2)).shape == (0, 2)
    assert rows_ahead(features, table.time_s, np.arange(5), ()).shape == (5, 0)


def test_targets_of_rows_that_do_not_exist_are_missing() -> None:
    """NONE is NaN and not the last row's value."""
    targets = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = targets_at(targets, np.array([[0, NONE], [3, 1]]))
    np.testing.assert_array_equal(found, [[[0, 1], [np.nan, np.nan]], [[6, 7], [2, 3]]])
    assert found.dtype == np.float32


# Short runs


@pytest.mark.parametrize(
    ("rows", "ends"),
    [(2, []), (3, []), (4, [2]), (12, list(range(2, 11))), (30, list(range(2, 29))), (31, [29]), (33, [29, 30, 31])],
)
def test_short_runs_are_forecast_from_their_third_row(rows: int, ends: list[int]) -> None:
    """A run with no whole window has windows from its third row on, if several horizons are forecast; a longer one has whole windows."""
    table = table_of([steady(rows)])
    features = features_of(table)
    index = build_windows(features, table, horizons=HORIZONS)
    assert index.end.tolist() == ends
    assert index.begin.tolist() == [max(0, end - WINDOW_ROWS + 1) for end in ends]
    assert build_windows(features, table).end.tolist() == [end for end in ends if end >= WINDOW_ROWS - 1]


def test_a_short_run_has_no_row_of_the_run_before_it() -> None:
    """Its windows begin with it, and the rows before it are empty rows, though the table has others there."""
    table = table_of([[*steady(40), *steady(8, from_s=DAY_S)]])
    features = features_of(table)
    index = build_windows(features, table, horizons=HORIZONS)
    short = index.select(index.end >= 40)
    assert short.end.tolist() == [42, 43, 44, 45, 46]
    assert short.begin.tolist() == [40] * 5
    windows = gather(features.features, short.end, begin=short.begin, empty=empty_row())
    for end, window in zip(short.end, windows, strict=True):
        rows = end - 40 + 1
        np.testing.assert_array_equal(window[-rows:], features.features[40 : end + 1])
        np.testing.assert_array_equal(window[:-rows], np.tile(empty_row(), (WINDOW_ROWS - rows, 1)))


def test_the_first_run_of_a_table_may_be_short() -> None:
    """Rows before the first one are empty rows, not rows of the table's other end."""
    table = table_of([steady(6), steady(40)])
    features = features_of(table)
    index = build_windows(features, table, horizons=HORIZONS)
    windows = gather(features.features, index.end, begin=index.begin, empty=empty_row())
    assert index.end[0] == SHORT_ROWS - 1
    np.testing.assert_array_equal(windows[0, :-SHORT_ROWS], np.tile(empty_row(), (WINDOW_ROWS - SHORT_ROWS, 1)))
    np.testing.assert_array_equal(windows[0, -SHORT_ROWS:], features.features[:SHORT_ROWS])
    np.testing.assert_array_equal(windows[-1], features.features[index.end[-1] - 29 : index.end[-1] + 1])


def test_whole_windows_are_the_same_with_and_without_begin() -> None:
    """For windows that are not cut short neither argument changes anything."""
    table = table_of([steady(50)])
    features = features_of(table)
    index = build_windows(features, table, horizons=HORIZONS)
    with_begin = gather(features.features, index.end, begin=index.begin, empty=empty_row())
    np.testing.assert_array_equal(with_begin, gather(features.features, index.end))
    assert with_begin.shape[1:] == (WINDOW_ROWS, len(FEATURES))


def test_indices_keep_their_parts_together() -> None:
    """Selected and joined windows keep their rows ahead and where they begin; an index without them gets whole windows and no horizons."""
    index = WindowIndex(np.array([40, 50]), np.array([41, 51]), np.array([[41, 43], [51, NONE]]), np.array([38, 21]))
    swapped = index.select(np.array([1])).joined(index.select(np.array([True, False])))
    assert (swapped.end.tolist(), swapped.ahead.tolist(), swapped.begin.tolist()) == ([50, 40], [[51, NONE], [41, 43]], [21, 38])
    plain = WindowIndex(np.array([40]), np.array([41]))
    assert (plain.ahead.shape, plain.begin.tolist()) == ((1, 0), [11])


# Splits


def all_ahead(index: WindowIndex) -> list[int]:
    return index.ahead[index.ahead != NONE].tolist()


def test_limited_windows_forecast_nothing_outside_of_their_part() -> None:
    """Rows ahead that are not allowed are NONE; NONE stays, though the last row is allowed."""
    index = WindowIndex(np.array([3, 4]), np.array([4, 5]), np.array([[4, 6], [5, NONE]]), np.array([0, 0]))
    allowed: Flags = np.array([0, 0, 0, 0, 1, 0, 0, 1], np.bool_)
    assert index.limited(allowed).ahead.tolist() == [[4, NONE], [NONE, NONE]]


RUNS = st.lists(st.lists(st.integers(1, 120), min_size=1, max_size=4), min_size=1, max_size=3)


def table_of_runs(runs: list[list[int]]) -> RawTable:
    times = [[time_s for part, rows in enumerate(lengths) for time_s in steady(rows, from_s=part * DAY_S)] for lengths in runs]
    return table_of(times, measured=0.8)


@given(runs=RUNS)
def test_parts_of_a_recording_share_no_row_ahead(runs: list[list[int]]) -> None:
    """Per link, every row that a training window reads or forecasts, at any horizon, is before those of validation, and these before
    those of the test."""
    table = table_of_runs(runs)
    split = split_by_time(build_windows(features_of(table), table, horizons=HORIZONS), table)
    parts = [split.train, split.validation, split.test]
    for link in range(len(runs)):
        newest = -1
        for part in parts:
            own = part.select(table.link[part.end] == link)
            if not len(own):
                continue
            assert int(own.begin.min()) > newest
            newest = max([*own.target_row.tolist(), *all_ahead(own)])


def test_the_edges_of_a_recordings_parts_cost_only_the_far_horizons() -> None:
    """A training window just before the cut keeps its next row and loses the others."""
    table = table_of([steady(400)])
    split = split_by_time(build_windows(features_of(table), table, horizons=HORIZONS), table)
    assert split.train.ahead[-1].tolist() == [279, NONE, NONE]
    assert split.train.ahead[-3].tolist() == [277, 279, NONE]
    assert split.validation.ahead[-1].tolist() == [339, NONE, NONE]
    assert split.test.ahead[0].tolist() == [370, 372, 379]


@given(runs=RUNS, until_s=st.none() | st.floats(0, 3 * DAY_S))
def test_what_judges_a_fine_tuning_is_newer_than_all_that_is_forecast_in_training(runs: list[list[int]], until_s: float | None) -> None:
    """At every horizon, and for the windows that are replayed too."""
    table = table_of_runs(runs)
    index = build_windows(features_of(table), table, horizons=HORIZONS)
    split = split_for_finetune(index, table, trained_until_s=until_s, replay_windows=20, recent_windows_max=50, seed=1)
    if not len(split.gate):
        return
    trained_s = table.time_s[[*split.train.target_row.tolist(), *all_ahead(split.train)]]
    validated_s = table.time_s[[*split.validation.target_row.tolist(), *all_ahead(split.validation)]]
    gate_s = table.time_s[split.gate.target_row].min()
    assert (validated_s < gate_s).all()
    assert (trained_s < min([gate_s, *table.time_s[split.validation.target_row].tolist()])).all()


def test_the_edges_of_a_fine_tunings_parts_cost_only_the_far_horizons() -> None:
    """Windows that are replayed just before the new ones keep the rows ahead that are trained on anyway."""
    table = table_of([steady(400)])
    index = build_windows(features_of(table), table, horizons=HORIZONS)
    split = split_for_finetune(index, table, trained_until_s=199 * MINUTE_S, replay_windows=1_000, recent_windows_max=None, seed=1)
    assert split.replay.ahead[-1].tolist() == [199, 201, 208]
    assert split.recent.target_row[-1] == 349
    assert split.recent.ahead[-1].tolist() == [349, NONE, NONE]
    assert split.recent.ahead[-10].tolist() == [340, 342, 349]
    assert split.validation.ahead[-1].tolist() == [369, NONE, NONE]
