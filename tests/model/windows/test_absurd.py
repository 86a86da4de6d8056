"""Numbers that are valid and yet no telemetry are held to a wide range before anything is fitted; clean rows stay as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.offline import RawTable
from features.telemetry import Doubles
from model.windows.absurd import held, reach
from model.windows.scaler import Scaler

ROWS = 600


def table(throughput: Doubles) -> RawTable:
    count, random = len(throughput), np.random.default_rng(1)
    numeric = np.full((count, 11), np.nan, np.float32)
    numeric[:, 0], numeric[:, 2] = throughput, random.exponential(0.001, count)
    time_s = 1_767_571_200.0 + 60.0 * np.arange(count)
    return RawTable(("a>b",), np.zeros(count, np.int32), time_s, numeric, np.full((count, 6), -1, np.int32), ((),) * 6)


def usual(count: int = ROWS) -> Doubles:
    return np.asarray(400.0 + 20.0 * np.random.default_rng(2).normal(size=count))


CLEAN: dict[str, Doubles] = {
    "a steady link": usual(),
    "a constant": np.full(ROWS, 400.0),
    "nothing": np.full(ROWS, np.nan),
    "zeros": np.zeros(ROWS),
    "a heavy tail": np.random.default_rng(3).lognormal(3.0, 2.0, 20_000),
    "links of 1 Mbps and of 100 Gbps": np.where(np.arange(2_000) % 20 == 0, 1e5, 1.0) * usual(2_000) / 400.0,
    "an upgrade by 100 times near the end": np.where(np.arange(ROWS) < 595, 1.0, 100.0) * usual(),
    "mostly idle": np.where(np.arange(ROWS) % 3 == 0, usual(), 0.0),
    "outages": np.where(np.arange(ROWS) % 100 < 5, 0.0, usual()),
}


@pytest.mark.parametrize("clean", CLEAN)
def test_clean_rows_are_not_touched(clean: str) -> None:
    """Not even copied: what is fitted on them is the same to the last digit."""
    rows = table(CLEAN[clean])
    assert held(rows, np.ones(len(rows), np.bool_)) is rows


@pytest.mark.parametrize("absurd", [1e9, 1e12, 3e38])
@pytest.mark.parametrize(("level", "every"), [(400.0, ROWS), (400.0, 300), (400.0, 3), (0.0, ROWS)])
def test_absurd_rows_leave_the_scale_its_digits(absurd: float, level: float, every: int) -> None:
    """One row, two, and a third of all of them: float32 still tells apart what the link usually shows."""
    values = usual() - 400.0 + level if level else np.zeros(ROWS)
    values[every // 2 :: every] = absurd
    found = held(table(values), np.ones(ROWS, np.bool_)).numeric
    assert np.nanmax(found[:, 0]) < 3e8
    assert Scaler.fit(found).scale[0] * np.finfo(np.float32).eps < 20.0
    np.testing.assert_array_equal(
        np.delete(found[:, 0], np.s_[every // 2 :: every]), np.delete(values, np.s_[every // 2 :: every]).astype(np.float32)
    )


def test_what_is_judged_stays_as_it_was_measured() -> None:
    """Only the rows that are named are held, and the table that was given stays whole."""
    rows = table(np.append(usual(), [1e12, 1e12]))
    rows.numeric[5, 0] = 1e12
    before = rows.numeric.copy()
    found = held(rows, np.arange(ROWS + 2) < ROWS)
    np.testing.assert_array_equal(rows.numeric, before)
    assert found.numeric[5, 0] < 1e6
    assert found.numeric[ROWS:, 0].tolist() == [np.float32(1e12)] * 2
    assert replace(found, numeric=before).time_s is rows.time_s


def test_the_reach_of_nothing_and_of_the_largest_numbers() -> None:
    """No warning, and no edge that float32 cannot hold."""
    assert reach(np.full(3, np.nan, np.float32)) == (-np.inf, np.inf)
    low, high = reach(np.full(3, 3e38, np.float32))
    assert np.isfinite(np.array([low, high], np.float32)).all()
