"""Windows of runs that have just begun: online as offline, ready from their third row on if several horizons are forecast."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.changes import FeatureRows
from features.definition import SHORT_ROWS, WINDOW_ROWS
from features.offline import RawTable, compute, empty_row
from features.store import FeatureStore
from features.telemetry import CATEGORIES, NUMERIC, TelemetryBatch
from features.vocabulary import Interner, Vocabulary
from model.windows.index import gather

HORIZONS = (1, 3)
VOCABULARY = Vocabulary.empty().extended([["eu"], *([] for _ in CATEGORIES[1:])])


def batch_of(times: Sequence[float], first_offset: int = 0) -> TelemetryBatch:
    """Rows of one link, a fifth of whose values is missing. The same times have the same values."""
    numeric = np.stack([_values(time_s) for time_s in times]) if len(times) else np.empty((0, len(NUMERIC)), np.float32)
    regions: list[str | None] = ["eu"] * len(times)
    categories = tuple(regions if name == "region" else [None] * len(times) for name in CATEGORIES)
    offsets = np.arange(first_offset, first_offset + len(times))
    return TelemetryBatch(offsets, np.array(times, np.float64), numeric, ["a"] * len(times), ["p"] * len(times), categories)


def _values(time_s: float) -> np.ndarray:
    random = np.random.default_rng(int(time_s))
    values = random.gamma(2.0, 5.0, len(NUMERIC)).astype(np.float32)
    values[random.random(len(NUMERIC)) < 0.2] = np.nan
    return values


def online(times: Sequence[float], horizons: Sequence[int], cuts: Sequence[int] = ()) -> list[FeatureRows]:
    """The rows of each batch."""
    store = FeatureStore(("node_id",))
    found = []
    for begin, end in itertools.pairwise([0, *sorted(set(cuts)), len(times)]):
        batch = batch_of(times[begin:end], begin)
        slots = store.resolve(batch)
        found.append(store.update(batch, slots, np.ones(len(store), np.bool_), VOCABULARY, horizons))
    return found


def offline(times: Sequence[float]) -> RawTable:
    batch, interner = batch_of(times), Interner()
    codes = interner.codes(batch.categories).astype(np.int32)
    values = tuple(tuple(each) for each in interner.values)
    return RawTable(("a",), np.zeros(len(times), np.int32), batch.time_s, batch.numeric, codes, values)


@settings(max_examples=60)
@given(runs=st.lists(st.integers(1, 45), min_size=1, max_size=5), cuts=st.lists(st.integers(1, 60), max_size=4))
def test_short_runs_have_the_same_windows_online_and_offline(runs: list[int], cuts: list[int]) -> None:
    """Bit for bit, however the rows come in batches, after a gap and at a link's start."""
    times = [1e6 + 86_400.0 * run + 60.0 * row for run, rows in enumerate(runs) for row in range(rows)]
    table = offline(times)
    features = compute(table, VOCABULARY, horizons=HORIZONS)
    found = online(times, HORIZONS, [cut for cut in cuts if cut < len(times)])
    ready = np.concatenate([rows.ready for rows in found])
    first = np.searchsorted(features.run, features.run)
    end = np.arange(len(times))
    np.testing.assert_array_equal(ready, end - first + 1 >= SHORT_ROWS)
    windows = np.concatenate([rows.windows for rows in found if rows.windows is not None])
    begin = np.maximum(first, end - WINDOW_ROWS + 1)
    expected = gather(features.features, end[ready], begin=begin[ready], empty=empty_row())
    np.testing.assert_array_equal(windows[ready], expected)
    np.testing.assert_array_equal(np.concatenate([rows.context for rows in found]), features.context)


@pytest.mark.parametrize(("horizons", "first_ready"), [(HORIZONS, SHORT_ROWS), ((1,), SHORT_ROWS), ((), WINDOW_ROWS)])
def test_a_run_is_ready_when_its_version_can_forecast_it(horizons: tuple[int, ...], first_ready: int) -> None:
    """A version of several horizons needs three rows, one of the next row alone a whole window; again after a gap."""
    times = [1e6 + 86_400.0 * run + 60.0 * row for run in range(2) for row in range(40)]
    (rows,) = online(times, horizons)
    assert rows.ready.tolist() == [row + 1 >= first_ready for _ in range(2) for row in range(40)]
    assert rows.context.shape == (80, 5 if len(horizons) == 2 else len(horizons) and 4, 4)


def test_a_version_of_the_next_row_gets_the_windows_it_always_got() -> None:
    """Horizons change when a window is ready, and not what is in a whole one."""
    times = [1e6 + 60.0 * row for row in range(50)]
    (without,), (having,) = online(times, ()), online(times, HORIZONS)
    assert without.windows is not None
    assert having.windows is not None
    np.testing.assert_array_equal(without.windows[without.ready], having.windows[without.ready])
