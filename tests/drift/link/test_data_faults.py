"""Another unit is a factor that stays: neither what goes round nor what rises from near 0 has one."""

from __future__ import annotations

import numpy as np
import pytest

from drift.link.fault_kernels import FIELDS
from drift.link.faults import Fault, faults
from drift.messages import SIGNALS
from features.telemetry import CATEGORIES, NUMERIC

DAY_S = 86_400.0
FAULT, UNIT = 10, 3  # where an older release's state says which fault a column has, and the number of another unit
INTERVALS_S = (1.0, 2.0, 10.0, 60.0, 120.0, 300.0, 3600.0)


def found(column: str, values: np.ndarray, interval_s: float) -> tuple[list[Fault], int]:
    """The faults of one link with one column, and how many of its values cannot be judged."""
    rows = len(values)
    numeric = np.full((rows, len(NUMERIC)), np.nan, np.float32)
    numeric[:, NUMERIC.index(column)] = values
    state = np.zeros((1, len(SIGNALS), FIELDS))
    no_codes = np.full((rows, len(CATEGORIES)), np.nan, np.float32)
    reported, held, _ = faults(state, np.zeros(rows, np.int32), numeric, no_codes, np.arange(rows) * interval_s, np.zeros(rows))
    return [one for one in reported if one.aspect == "unit"], int(held[:, NUMERIC.index(column)].sum())


def times(interval_s: float, days: float = 2.5) -> np.ndarray:
    return np.arange(0.0, max(days * DAY_S, 400 * interval_s), interval_s)


@pytest.mark.parametrize("interval_s", INTERVALS_S)
@pytest.mark.parametrize("zone_h", [0.0, 9.5])
def test_midnight_is_no_other_unit(interval_s: float, zone_h: float) -> None:
    """The hour falls from 24 to 0 and the weekday from 6 to 0, in UTC or the producer's own time, and all rows are judged."""
    hours = times(interval_s) / 3600.0 + 20.0 + zone_h
    assert found("time_of_day", hours % 24.0, interval_s) == ([], 0)
    assert found("day_of_week", np.floor(hours / 24.0 + 5.0) % 7.0, interval_s) == ([], 0)


def test_a_fault_of_the_hours_unit_in_older_state_ends() -> None:
    """It ends with the first row: nothing else would end it within a day."""
    state = np.zeros((1, len(SIGNALS), FIELDS))
    numeric = np.full((1, len(NUMERIC)), np.nan, np.float32)
    signal = NUMERIC.index("time_of_day")
    numeric[0, signal] = 0.5
    state[0, signal, FAULT] = UNIT
    reported, _, _ = faults(
        state, np.zeros(1, np.int32), numeric, np.full((1, len(CATEGORIES)), np.nan, np.float32), np.zeros(1), np.zeros(1)
    )
    assert [(one.signal, one.aspect, one.begins) for one in reported] == [(signal, "unit", False)]


@pytest.mark.parametrize("interval_s", INTERVALS_S)
@pytest.mark.parametrize(
    "shape",
    [
        lambda time_s: 1e3 * (time_s % 43_200.0),  # a counter that begins anew twice a day
        lambda time_s: 1.0 + time_s % 43_200.0,  # an age, since the last change of route
        lambda time_s: 400.0 * np.sin(np.pi * time_s / DAY_S) ** 4,  # one that comes down to nothing and rises again
        lambda time_s: np.where(time_s % 7200.0 < 6000.0, 400.0, 0.0),  # outages
    ],
    ids=["counter", "age", "bell", "outages"],
)
def test_what_comes_near_zero_is_no_other_unit(interval_s: float, shape: object) -> None:
    """A value that rises from near 0 has every factor in turn."""
    time_s = times(interval_s)
    assert callable(shape)
    assert found("throughput_mbps", shape(time_s), interval_s)[0] == []


@pytest.mark.parametrize("factor", [60.0, 1000.0, 1 / 1024.0, 1 / 3600.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_another_unit_is_still_told(factor: float, mixed: bool) -> None:
    """It is found in a column near 0, too, and if the first row is an average over both units."""
    values = np.random.default_rng(3).lognormal(np.log(0.02), 0.05, 600)
    values[300:400] *= factor
    if mixed:
        values[300] = 0.01 * (1.0 + factor)
    reported, _ = found("jitter_ms", values, 60.0)
    assert [(one.row, one.begins) for one in reported] == [(304 + mixed, True), (400, False)]
    assert reported[0].size == pytest.approx(factor, rel=0.1)


def test_a_counter_of_small_numbers_has_no_unit() -> None:
    """A few retransmits a row, then some hundred for ten minutes: that is the network. Bytes have a unit."""
    generator = np.random.default_rng(3)
    few = generator.poisson(1.5, 600).astype(np.float64)
    few[400:410] = 80.0 + np.arange(10.0)
    assert found("retransmits", few, 60.0) == ([], 0)
    bytes_sent = generator.normal(5e6, 2e5, 600)
    bytes_sent[400:] /= 1000.0
    assert [one.begins for one in found("bytes_tx", bytes_sent, 60.0)[0]] == [True]


def categories_of(codes: np.ndarray) -> list[tuple[int, bool]]:
    """Row and beginning of each fault of one category."""
    rows, numeric = len(codes), np.full((len(codes), len(NUMERIC)), np.nan, np.float32)
    given = np.full((rows, len(CATEGORIES)), np.nan, np.float32)
    given[:, 1] = codes
    state = np.zeros((1, len(SIGNALS), FIELDS))
    reported, held, _ = faults(state, np.zeros(rows, np.int32), numeric, given, 60.0 * np.arange(rows), np.zeros(rows))
    assert held.any() == bool(reported)
    return [(one.row, one.begins) for one in reported]


def test_a_category_that_moves_is_no_fault() -> None:
    """A phone goes from cell to cell every hour, and some cells the model does not know. A server that is moved once is a fault."""
    cells = np.repeat([1, 2, 3, 1, 0, 2, 0, 3, 0, 1], 60)
    assert categories_of(cells.astype(np.float32)) == []
    moved = np.repeat([1.0, 0.0], 300).astype(np.float32)
    assert categories_of(moved) == [(302, True)]


def test_the_calendar_is_no_measurement() -> None:
    """A producer that fills in a constant for the hour is odd, and nothing has happened to the network."""
    hours = times(60.0) / 3600.0 % 24.0
    hours[600:] = 3.0
    rows = len(hours)
    numeric = np.full((rows, len(NUMERIC)), np.nan, np.float32)
    numeric[:, NUMERIC.index("time_of_day")] = hours
    state = np.zeros((1, len(SIGNALS), FIELDS))
    none = np.full((rows, len(CATEGORIES)), np.nan, np.float32)
    assert faults(state, np.zeros(rows, np.int32), numeric, none, 60.0 * np.arange(rows), np.zeros(rows))[0] == []
