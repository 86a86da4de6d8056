"""Detectors on residuals, the region quorum, incidents, and that none of it depends on batches or on the order of partitions."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift.cusum import CALIBRATION_ROWS
from drift.link import LinkDrift, WatchedRows
from drift.messages import SIGNALS, LinkAlarm, LinkSeen
from drift.quorum import QuorumPolicy
from drift.region import RegionDrift
from drift.sensitivity import Sensitivity
from drift.watch import WatchList, WatchPolicy
from features.telemetry import CATEGORIES, NUMERIC

LEAST = np.full(4, 0.01, np.float32)
DAY = 1440


def rows_of(watch, residual, time_s, numeric=None, codes=None, lag_s=None, offset: int = 0, links: int = 1) -> WatchedRows:
    """Rows of links that report nothing but the four metrics, unless numeric says more."""
    count = len(watch)
    if numeric is None or numeric.shape[1] < len(NUMERIC):
        given = residual if numeric is None else numeric
        numeric = np.full((count, len(NUMERIC)), np.nan, np.float32)
        numeric[:, :4] = given
    return WatchedRows(
        watch=np.asarray(watch, np.int32),
        numeric=numeric.astype(np.float32),
        residual=residual.astype(np.float32),
        codes=np.ones((count, len(CATEGORIES)), np.float32) if codes is None else codes,
        time_s=np.asarray(time_s, np.float64),
        lag_s=np.zeros(count) if lag_s is None else lag_s,
        offsets=offset + np.arange(count),
        describe=lambda row: ("eu", f"link-{row % links}", "metro"),
    )


def feed(drift: LinkDrift, residuals: np.ndarray, start_s: float = 0.0, links: int = 1, actual: np.ndarray | None = None, rows: int = 100):
    """Feeds residuals (T, links, 4), one row a minute, in batches of so many minutes; gives (alarms, seen)."""
    alarms, seen = [], []
    residuals = residuals.reshape(len(residuals), links, 4)
    actual = residuals if actual is None else actual.reshape(residuals.shape)
    for begin in range(0, len(residuals), rows):
        part = residuals[begin : begin + rows]
        count = len(part) * links
        time_s = np.repeat(start_s + 60.0 * (begin + np.arange(len(part))), links)
        numeric = actual[begin : begin + rows].reshape(count, 4)
        made = rows_of(np.resize(np.arange(links), count), part.reshape(count, 4), time_s, numeric, offset=begin * links, links=links)
        more = drift.update(made, LEAST)
        alarms += more[0]
        seen += more[1]
    return alarms, seen


def noise(rows: int, links: int = 1, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.0, (rows, links, 4))


def test_no_alarm_on_noise():
    """20 links x 4 metrics x 3,000 rows of noise: at most one alarm. Each link tells every quarter of an hour that it is there."""
    alarms, seen = feed(LinkDrift(1), noise(3000, 20), links=20)
    assert len(alarms) <= 1
    assert len(seen) == 20 * ((3000 - CALIBRATION_ROWS) // 15)
    assert all(one.interval_s == pytest.approx(60.0) for one in seen)


@pytest.mark.parametrize(
    ("change", "detectors", "within_rows"),
    [
        (lambda x: x + 2.0, {"cusum", "cusum_spread"}, 30),
        (lambda x: x - 2.0, {"cusum", "cusum_spread"}, 30),
        (lambda x: 3.0 * x, {"cusum_spread", "cusum"}, 40),
    ],
)
@pytest.mark.parametrize("before", [None, float("nan"), float("inf"), 1e30, 0.0])
def test_a_change_is_found_whatever_came_before(change, detectors, within_rows, before):
    """Not finite, huge or constant residuals never poison a detector: a real shift afterwards still alarms, in the right direction."""
    residuals = noise(3200)
    if before is not None:
        residuals[CALIBRATION_ROWS + 20 : CALIBRATION_ROWS + 25] = before
    residuals[3000:] = change(residuals[3000:])
    alarms = [alarm for alarm in feed(LinkDrift(1), residuals)[0] if alarm.time_s >= 3000 * 60]
    first = [alarm for alarm in alarms if alarm.time_s < (3000 + within_rows) * 60]
    assert {alarm.signal for alarm in first} == {0, 1, 2, 3}
    assert {alarm.detector for alarm in first} <= detectors
    if shift := change(np.zeros(1))[0]:
        moved = [alarm for alarm in first if alarm.detector == "cusum"]
        assert {alarm.signal for alarm in moved} == {0, 1, 2, 3}
        assert {alarm.direction for alarm in moved} == {int(np.sign(shift))}
        assert all(abs(alarm.size - shift) < 1.0 for alarm in moved)
        assert all(abs(alarm.since_s / 60 - 3000) <= 15 for alarm in moved)


def test_a_small_change_is_adwins():
    """Half a standard deviation is within the slack of the sums; River's ADWIN sees it in the means of blocks, within two days."""
    residuals = noise(5 * DAY, 10)
    residuals[3 * DAY :] += 0.5
    alarms = [alarm for alarm in feed(LinkDrift(1), residuals, links=10)[0] if alarm.detector == "adwin"]
    assert len({(alarm.link, alarm.signal) for alarm in alarms}) >= 25
    assert {alarm.direction for alarm in alarms} == {1}
    assert min(alarm.time_s for alarm in alarms) > 3 * DAY * 60.0
    assert np.median([alarm.since_s for alarm in alarms]) / 60 == pytest.approx(3 * DAY, abs=120)
    assert np.median([alarm.size for alarm in alarms]) == pytest.approx(0.5, abs=0.15)


def test_a_constant_metric_does_not_alarm_on_rounding():
    """A residual that was exactly constant has the floor for a scale: noise far below it is nothing, a real shift still is."""
    residuals = np.zeros((600, 1, 4))
    residuals[200:] = 1e-5 * noise(400)
    residuals[500:] += 1.0
    alarms, _ = feed(LinkDrift(1), residuals)
    assert alarms
    assert min(alarm.time_s for alarm in alarms) >= 500 * 60


def test_a_daily_cycle_that_the_model_leaves_over_is_no_change():
    """A level that swings by .3 standard deviations and a spread that swings by a quarter, from the first day on: no alarm in ten days."""
    turn = 2 * np.pi * np.arange(10 * DAY)[:, None, None] / DAY
    residuals = noise(10 * DAY, 10) * (1 + 0.25 * np.cos(turn)) + 0.3 * np.sin(turn)
    assert len(feed(LinkDrift(1), residuals, links=10)[0]) <= 1


def test_neighbours_that_resemble_each_other_raise_the_threshold():
    """Residuals with an autocorrelation of .6 have four times the long-run variance: without that an alarm every few hours."""
    white = noise(5 * DAY, 10)
    for row in range(1, len(white)):
        white[row] = 0.6 * white[row - 1] + 0.8 * white[row]
    assert len([alarm for alarm in feed(LinkDrift(1), white, links=10)[0] if alarm.time_s > DAY * 60]) <= 2


@pytest.mark.parametrize("at", [5, 30, 59])
@pytest.mark.parametrize("wild", [1e30, -1e4])
def test_a_wild_value_while_a_link_calibrates_does_not_blind_it(at, wild):
    """A shift of five deviations is found as one, half an hour later."""
    residuals = noise(600)
    residuals[at] = wild
    residuals[300:] += 5.0
    moved = [alarm for alarm in feed(LinkDrift(1), residuals)[0] if alarm.detector == "cusum" and alarm.time_s >= 300 * 60]
    assert {alarm.signal for alarm in moved if alarm.time_s < 330 * 60} == {0, 1, 2, 3}
    assert all(alarm.direction == 1 for alarm in moved)


def test_a_metric_that_was_constant_for_long_is_judged_by_the_least_scale():
    """One outlier, or a step of a fifth of the least scale, is nothing; a large shift is a shift and not a spread."""
    for step, wanted in ((0.002, set()), (5.0, {"cusum"})):
        residuals = np.zeros((6000, 1, 4))
        residuals[3000] = 1.0
        residuals[5000:] = step
        alarms = [alarm for alarm in feed(LinkDrift(1), residuals)[0] if alarm.group == "network"]
        assert {alarm.detector for alarm in alarms} == wanted
        assert all(5000 * 60 <= alarm.time_s < 5020 * 60 for alarm in alarms)
        assert all(alarm.size == pytest.approx(step, rel=0.1) for alarm in alarms if alarm.certain)


def test_an_outlier_within_a_change_does_not_set_its_size():
    """Nor the level that is accepted: nothing goes back afterwards."""
    residuals = noise(2500)
    residuals[2000:] += 2.0
    residuals[2005] = 1000.0
    alarms = [alarm for alarm in feed(LinkDrift(1), residuals)[0] if alarm.time_s >= 2000 * 60]
    assert {alarm.direction for alarm in alarms} == {1}
    assert all(1.0 < alarm.size < 4.0 for alarm in alarms if alarm.detector == "cusum")


def test_an_outage_does_not_lengthen_the_interval():
    """A week without rows counts as a few intervals: what comes after it is judged as before."""
    drift, residuals = LinkDrift(1), noise(1500)
    feed(drift, residuals[:1000])
    shifted = residuals[1000:] + np.where(np.arange(500) >= 100, 4.0, 0.0)[:, None, None]
    alarms, _ = feed(drift, shifted, start_s=60.0 * 1000 + 7 * 86_400.0)
    assert alarms
    assert max(alarm.interval_s for alarm in alarms) < 90.0


def test_whether_the_metric_or_only_its_forecast_has_moved():
    """The same residuals: once the metric has left its own trend, once it has not, and the model is wrong."""
    residuals = noise(2000, 20)
    weather = 5 * np.sin(2 * np.pi * np.arange(2000) / DAY)[:, None, None]
    as_before = residuals + weather
    residuals[1700:] += 2.0
    for actual, shown in ((residuals + weather, 1.0), (as_before, 0.0)):
        alarms = [alarm for alarm in feed(LinkDrift(1), residuals, links=20, actual=actual)[0] if alarm.certain]
        assert np.median([alarm.shown for alarm in alarms]) == pytest.approx(shown, abs=0.2)


def column_faults(columns: np.ndarray, codes: np.ndarray | None = None, lag_s: np.ndarray | None = None, links: int = 1):
    """Alarms over (T, links, 11) columns, one row a minute, with the residuals of noise."""
    count, drift, found = len(columns) * links, LinkDrift(1), []
    residual = noise(len(columns), links, seed=7).reshape(count, 4)
    residual[np.isnan(columns.reshape(count, -1)[:, :4])] = np.nan
    for begin in range(0, count, 37):
        part = slice(begin, min(begin + 37, count))
        at = np.arange(count)[part]
        rows = rows_of(
            at % links, residual[part], 60.0 * (at // links), columns.reshape(count, -1)[part], offset=begin,
            codes=None if codes is None else codes[part], lag_s=None if lag_s is None else lag_s[part],
        )  # fmt: skip
        found += drift.update(rows, LEAST)[0]
    return found


def healthy(rows: int) -> np.ndarray:
    """(T, 1, 11): columns as they should be, of different scales."""
    return np.random.default_rng(3).lognormal(np.arange(11) / 2, 0.2, (rows, 1, 11))


@pytest.mark.parametrize(
    ("spoil", "aspect", "size", "within"),
    [
        (lambda column: np.full(len(column), np.nan), "missing", 0.0, 10),
        (lambda column: np.full(len(column), column[0]), "constant", 0.0, 31),
        (lambda column: 1000.0 * column, "unit", 1000.0, 5),
        (lambda column: column / 1024.0, "unit", 1 / 1024, 5),
    ],
)
@pytest.mark.parametrize("signal", [1, 4, 7])
def test_faults_of_a_column_are_told_apart(spoil, aspect, size, within, signal):
    """A column that disappears, is stuck, or has another unit: told when it begins and when it ends, and no drift meanwhile."""
    columns = healthy(900)
    columns[400:600, 0, signal] = spoil(columns[400:600, 0, signal])
    begin, end = column_faults(columns)
    assert [(one.signal, one.aspect, one.direction, one.group) for one in (begin, end)] == [
        (signal, aspect, 1, "data"), (signal, aspect, -1, "data"),
    ]  # fmt: skip
    assert 400 <= begin.time_s / 60 < 400 + within
    assert 400 <= begin.since_s / 60 <= 401
    assert end.time_s / 60 == 600
    assert begin.size == pytest.approx(size, rel=0.3, abs=1e-6)


def test_a_stuck_value_is_no_drift_and_an_outage_is():
    """A value that is 3 standard deviations off and stays there is a fault of the data, before its residuals are a shift; one that falls to
    exactly 0 is the network's, and so is a link that loses all."""
    for stuck, residual, expected in ((3.0, 3.0, {("constant", 1)}), (-30.0, -30.0, {("level", -1)})):
        drift, found = LinkDrift(1), []
        values = np.random.default_rng(5).normal(0, 1, 700).astype(np.float32)
        values[500:], left = stuck, values.copy()
        left[500:] = residual
        for row in range(700):
            columns = np.full((1, len(NUMERIC)), np.nan, np.float32)
            columns[0, 0] = 30.0 + values[row]  # 0 in the outage
            residuals = np.array([[left[row], np.nan, np.nan, np.nan]])
            found += drift.update(rows_of(np.zeros(1, int), residuals, np.array([60.0 * row]), columns), LEAST)[0]
        assert {(one.aspect, one.direction) for one in found} == expected
        assert found[0].time_s / 60 < 532


@pytest.mark.parametrize("fault", ["unit", "category"])
def test_a_fault_that_forecasts_are_made_of_is_no_drift_of_any_metric(fault):
    """Another unit of a column that is no target, or a category that the model does not know, make all forecasts wrong while they last and
    until the windows are clean. What drifts after that is told."""
    columns, codes = healthy(900), np.ones((900, 6), np.float32)
    residual = noise(900).reshape(900, 4)
    residual[300:530] += 8.0  # the model's, from the first wrong row to the last window with one
    residual[800:] += 8.0
    if fault == "unit":
        columns[300:500, 0, 7] *= 1000.0
    else:
        codes[300:500, 2] = 0.0
    alarms = LinkDrift(1).update(rows_of(np.zeros(900, int), residual, 60.0 * np.arange(900), columns[:, 0], codes=codes), LEAST)[0]
    assert {(one.group, one.aspect, one.time_s / 60 < 800) for one in alarms} == {("data", fault, True), ("network", "level", False)}


def test_a_clock_that_is_behind_is_told_in_the_time_of_the_others():
    """By its own time every word of the link would come too late to count."""
    lag_s = np.zeros(600)
    lag_s[450:500] = 900.0
    own_s = 60.0 * np.arange(600) - lag_s
    rows = rows_of(np.zeros(600, int), noise(600).reshape(600, 4), own_s, healthy(600)[:, 0], lag_s=lag_s)
    alarms, seen_here = LinkDrift(1).update(rows, LEAST)
    assert [(one.aspect, one.direction, one.time_s / 60, one.since_s / 60) for one in alarms] == [
        ("clock", 1, 454.0, 450.0), ("clock", -1, 500.0, 500.0),
    ]  # fmt: skip
    assert [one.time_s / 60 for one in seen_here if 454 <= one.time_s / 60 < 500], "it still counts as watched"


@pytest.mark.parametrize(
    ("sigma", "rows", "metrics", "share"), [(3.0, 30, (1,), 0.2), (10.0, 30, (1,), 0.2), (50.0, 30, (1,), 0.8), (5.0, 45, (1, 2), 0.8)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_burst_is_one_incident(sigma, rows, metrics, share, seed):
    """Whatever its size: told once, recovered when it is over, of the right size and time, and nothing after it."""
    links, begin = 40, 3000 + 61 * seed
    residuals = noise(begin + rows + 300, links, seed=100 + seed)
    for metric in metrics:
        residuals[begin : begin + rows, : int(share * links), metric] += sigma
    drift, regions, changes = LinkDrift(1), RegionDrift(QuorumPolicy()), []
    for at in range(0, len(residuals), 20):
        regions.observe(*feed(drift, residuals[at : at + 20], start_s=60.0 * at, links=links, actual=50.0 + residuals[at : at + 20]))
        changes += regions.advance(60.0 * (at + 20))
    assert [change.kind for change in changes if change.kind != "updated"] == ["opened", "closed"]
    assert (changes[0].scope, changes[-1].outcome) == ("region", "recovered")
    assert changes[-1].affected_links == int(share * links)
    assert abs(changes[-1].since_s / 60 - begin) <= 1.0
    assert {one.direction for one in changes[-1].signals} == {1}
    assert [one.size for one in changes[-1].signals] == [pytest.approx(sigma, rel=0.15)] * len(metrics)


def test_a_chance_run_before_a_change_is_not_part_of_it():
    """Of 200 links some have a sum that has begun to grow: none tells a step of 30 as half of it for certain, or long before it."""
    residuals = noise(1300, 200, seed=9)
    residuals[1200:, :, 1] += 30.0
    alarms, _ = feed(LinkDrift(1), residuals, links=200)
    certain = [one for one in alarms if one.certain and one.time_s >= 72_000.0]
    assert len({one.link for one in certain}) == 200
    assert min(one.size for one in certain if one.time_s < 72_000.0 + 600.0) > 15.0
    assert np.median([abs(one.since_s / 60 - 1200) for one in certain]) <= 1.0


@pytest.mark.parametrize("outlier", [200.0, 3e4, 1e30])
def test_an_outlier_does_not_make_a_shift_the_models_error(outlier):
    """What the metric itself shows is judged against its own level, which one wild value half an hour before must not move."""
    residuals = noise(2000)
    residuals[1500:] += 3.0
    residuals[1470, 0, 1] = outlier
    alarms = [one for one in feed(LinkDrift(1), residuals, actual=30.0 + residuals)[0] if one.time_s >= 1500 * 60 and one.signal == 1]
    assert alarms
    assert min(one.shown for one in alarms) > 0.5


def test_a_category_that_the_model_does_not_know_and_a_clock_that_is_off():
    """A link that always had known values, and times like its partition's. New links with new values are no fault."""
    columns = healthy(600)
    codes = np.ones((600, 6), np.float32)
    codes[300:400, 3] = 0.0
    codes[350:370] = np.nan  # not told, after a gap: nothing is known of it
    lag_s = np.full(600, 2.0)
    lag_s[450:500] = 900.0
    found = [(SIGNALS[one.signal], one.aspect, one.direction, one.time_s / 60) for one in column_faults(columns, codes, lag_s)]
    assert found == [
        ("dwcp_mode", "category", 1, 302), ("dwcp_mode", "category", -1, 400),
        ("timestamp", "clock", 1, 454 + 15), ("timestamp", "clock", -1, 500),
    ]  # fmt: skip
    assert column_faults(columns, np.zeros((600, 6), np.float32)) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda column: np.where(np.arange(len(column)) % 7 == 0, np.nan, column),  # holes
        lambda column: np.round(column),  # few values
        lambda column: np.where(np.random.default_rng(1).random(len(column)) < 0.9, 0.0, column),  # mostly nothing lost
        lambda column: np.where(np.arange(len(column)) < 500, np.nan, column),  # comes later
        lambda column: column * np.where(np.arange(len(column)) < 500, 1.0, 8.0),  # an outage or a larger link
        lambda column: np.zeros(len(column)),
        lambda column: np.abs(np.random.default_rng(2).normal(0.0, 1.0, len(column))) + 1e-9,  # near zero, over decades
        lambda column: np.where(np.arange(len(column)) // 3 % 20 == 19, 1e-3 * column, column),  # dips of three rows
    ],
)
def test_what_is_no_fault_of_the_data(spoil):
    """Holes, coarse and sparse values, a column that is measured from now on, a large change of the network: nothing of the data."""
    columns = healthy(900)
    columns[:, 0, 5] = spoil(columns[:, 0, 5])
    assert column_faults(columns) == []


@pytest.mark.parametrize("factor", [200.0, 0.01])
def test_a_burst_or_an_outage_is_no_other_unit(factor):
    """Loss two hundred times as high, or throughput at a hundredth: the network's doing."""
    columns = healthy(900)
    signal = 2 if factor > 1 else 0
    columns[400:460, 0, signal] *= factor
    assert [one for one in column_faults(columns) if one.group == "data"] == []


@pytest.mark.parametrize(
    "lag_s",
    [
        np.where(np.arange(900) % 60 == 0, 3600.0, 3600.0 - 60.0 * (np.arange(900) % 60)),  # uploads every hour
        np.where(np.arange(900) // 40 == 15, 60.0 * (640.0 - np.arange(900)), 2.0),  # a backlog that is caught up with
    ],
)
def test_late_delivery_is_no_clock(lag_s):
    """Its lags differ from row to row."""
    assert column_faults(healthy(900), lag_s=lag_s) == []


def test_a_fault_that_lasts_a_day_is_accepted():
    """As the new state of the data, and the next change is one against it; its incident is open until then."""
    columns = healthy(3 * DAY)
    columns[400 : 2 * DAY, 0, 4] *= 1000.0
    begin, back = column_faults(columns)
    assert (begin.direction, begin.time_s / 60, back.direction, back.time_s / 60) == (1, 404, 1, 2 * DAY + 4)
    assert (begin.size, back.size) == (pytest.approx(1000.0, rel=0.3), pytest.approx(0.001, rel=0.3))
    opened, closed = run([*fleet(1), begin], [60.0 * minute for minute in range(0, 3 * DAY, 10)])
    assert (opened.group, closed.outcome) == ("data", "settled")
    assert closed.time_s - opened.time_s > 86_400.0


def test_a_new_level_is_accepted_once_it_is_told():
    """A shift that stays alarms at both thresholds and then no more; going back is told the same way, in the other direction."""
    residuals = noise(3000)
    residuals[1000:2000] += 3.0
    alarms, _ = feed(LinkDrift(1), residuals)
    for metric in range(4):
        told = [alarm for alarm in alarms if alarm.detector == "cusum" and alarm.signal == metric]
        assert [(alarm.direction, alarm.certain) for alarm in told[:4]] == [(1, False), (1, True), (-1, False), (-1, True)]
        assert [alarm.time_s // 60_000 for alarm in told] == [1, 1] + [2] * (len(told) - 2)
        assert len(told) <= 5


def test_link_state_goes_through_msgpack_and_back():
    """The state is data, and a restored stage gives the very same alarms, in whatever batches."""
    residuals = noise(2 * DAY + 700, 3)
    residuals[2 * DAY + 500 :] += 1.0
    whole = LinkDrift(1)
    expected = feed(whole, residuals, links=3)
    half, cut = LinkDrift(1), 2 * DAY + 450
    first = feed(half, residuals[:cut], links=3, rows=7)
    document = msgspec.msgpack.decode(msgspec.msgpack.encode(half.document()))
    restored = LinkDrift.restored(document, half.arrays())
    alarms, seen = feed(restored, residuals[cut:], links=3, start_s=60.0 * cut, rows=11)
    assert [without_offset(one) for one in first[0] + alarms] == [without_offset(one) for one in expected[0]]
    assert first[1] + seen == expected[1]
    assert restored.document() == whole.document()
    np.testing.assert_array_equal(restored.arrays()["drift_kept"], whole.arrays()["drift_kept"])


def without_offset(alarm: LinkAlarm) -> tuple[object, ...]:
    return tuple(getattr(alarm, name) for name in LinkAlarm.__slots__ if name != "offset")


def test_a_new_model_starts_from_its_own_residuals():
    """After a swap the links calibrate anew: another level of residuals is no drift."""
    drift = LinkDrift(1)
    feed(drift, noise(300))
    drift.restart(2)
    alarms, seen = feed(drift, 5.0 + 4.0 * noise(300, seed=2), start_s=300 * 60)
    assert alarms == []
    assert {one.epoch for one in seen} == {2}


def alarm(
    minute: float, link: str, region: str = "eu", signal: int = 1, epoch: int = 1, offset: int = 0, direction: int = 1,
    certain: bool = False, aspect: str = "level", shown: float = 1.0, interval_s: float = 60.0, since: float | None = None,
    size: float = 18.0, sigma: float = 2.0, over: bool = False,
) -> LinkAlarm:  # fmt: skip
    since_s = 60.0 * (minute - 5 if since is None else since)
    return LinkAlarm(
        60.0 * minute, region, link, "metro", signal, aspect, "cusum", direction, certain, since_s, sigma * direction, size * direction,
        shown, 0.0, interval_s, offset, epoch, over,
    )  # fmt: skip


def seen(minute: float, link: str, region: str = "eu", epoch: int = 1, interval_s: float = 60.0) -> LinkSeen:
    return LinkSeen(60.0 * minute, region, link, interval_s, epoch)


def fleet(links: int, minutes: int = 20) -> list[LinkSeen]:
    return [seen(minute, f"l{at}") for minute in range(0, minutes, 15) for at in range(links)]


def run(messages, watermarks, policy=None):
    """Observes all messages as their time comes; gives the changes."""
    drift, changes = RegionDrift(policy), []
    pending = sorted(messages, key=lambda message: message.time_s)
    for watermark in watermarks:
        while pending and pending[0].time_s <= watermark:
            message = pending.pop(0)
            drift.observe(*([message], []) if isinstance(message, LinkAlarm) else ([], [message]))
        changes += drift.advance(watermark)
    return changes


@pytest.mark.parametrize(
    ("alarming", "watched", "opens"),
    [(2, 10, False), (3, 10, True), (5, 300, False), (6, 300, True), (3, 3, True)],
)
def test_quorum(alarming, watched, opens):
    """A region drifts when max(3, 2 %) of its watched links alarm within 30 minutes, in one direction of one metric."""
    messages = fleet(watched) + [alarm(1 + i, f"l{i}") for i in range(alarming)]
    changes = run(messages, [60.0 * minute for minute in range(20)])
    assert [change.kind for change in changes] == (["opened"] if opens else [])
    if opens:
        (signal,) = changes[0].signals
        assert (signal.signal, signal.size, signal.change, signal.links) == ("rtt_ms", 18.0, "shift", alarming)
        assert (changes[0].scope, changes[0].affected_links, changes[0].watched_links) == ("region", alarming, watched)
        assert changes[0].since_s == 60.0 * np.median([1 + i - 5 for i in range(alarming)])


@pytest.mark.parametrize(
    "others",
    [{"direction": -1}, {"signal": 2}, {"aspect": "spread"}, {"region": "us"}],
)
def test_what_is_not_the_same_change_does_not_add_up(others):
    """Two links up and one down, or of another metric or region, are no quorum of three."""
    messages = [*fleet(10), alarm(1, "l0"), alarm(2, "l1"), alarm(3, "l2", **others)]
    assert run(messages, [60.0 * minute for minute in range(20)]) == []


def test_alarms_spread_over_more_than_the_window_are_no_incident():
    """Three alarms in an hour are chance, not a quorum; of links that report every half hour they are one after the other."""
    minutes = [60.0 * minute for minute in range(100)]
    assert run(fleet(10, 90) + [alarm(25.0 * i, f"l{i}") for i in range(3)], minutes) == []
    slow = [alarm(25.0 * i, f"l{i}", interval_s=1800.0) for i in range(3)]
    assert [change.kind for change in run(fleet(10, 90) + slow, minutes)] == ["opened"]


def test_alarms_of_one_link_count_once():
    """A single link gone bad is not its region."""
    assert run(fleet(10) + [alarm(i, "l0") for i in range(10)], [60.0 * minute for minute in range(20)]) == []


def test_a_single_link_gone_bad_is_an_incident_of_its_own():
    """Told when it is certain; when its region follows, that one takes it over."""
    certain = [alarm(3, "l0"), alarm(9, "l0", certain=True)]
    changes = run(fleet(10) + certain, [60.0 * minute for minute in range(100)])
    assert [(change.kind, change.scope, change.links, change.outcome) for change in changes] == [
        ("opened", "link", ("l0",), ""), ("closed", "link", ("l0",), "settled"),
    ]  # fmt: skip
    changes = run(fleet(10) + certain + [alarm(15, "l1"), alarm(16, "l2")], [60.0 * minute for minute in range(30)])
    assert [(change.kind, change.scope, change.outcome) for change in changes] == [
        ("opened", "link", ""), ("closed", "link", "region"), ("opened", "region", ""),
    ]  # fmt: skip
    assert changes[2].links == ("l0", "l1", "l2")


@pytest.mark.parametrize(("watched", "certain", "scope"), [(1, 1, "region"), (2, 2, "region"), (2, 1, "link")])
def test_a_region_with_few_links_needs_all_of_them_to_be_certain(watched, certain, scope):
    """One merged series is a region of one link, and still drifts."""
    messages = fleet(watched) + [alarm(2, f"l{at}", certain=True) for at in range(certain)]
    (change,) = run(messages, [60.0 * minute for minute in range(20)])
    assert (change.kind, change.scope, change.affected_links) == ("opened", scope, certain)


def test_one_incident_is_opened_updated_and_closed():
    """The id stays; the sequence counts; growth is an update; quiet closes it at the time at which it ended."""
    messages = fleet(10, 180) + [alarm(1, f"l{i}") for i in range(3)] + [alarm(9, f"m{i}") for i in range(5)]
    changes = run(messages, [60.0 * minute for minute in range(200)])
    assert [(change.kind, change.sequence) for change in changes] == [("opened", 0), ("updated", 1), ("closed", 2)]
    assert len({change.id for change in changes}) == 1
    assert changes[1].affected_links == 8
    assert changes[2].time_s == 10 * 60.0 + QuorumPolicy().quiet_s
    assert changes[2].outcome == "settled"


@pytest.mark.parametrize("per_minute", [1, 3, 9])
def test_links_that_go_back_close_their_incident(per_minute):
    """As recovered, once most have; that they go back, early or late, is no incident of its own, and no evidence of the old one."""
    messages = fleet(20, 90) + [alarm(1, f"l{i}", certain=True) for i in range(9)]
    messages += [alarm(50 + i // per_minute, f"l{i}", direction=-1, certain=True) for i in range(9)]
    changes = run(messages, [60.0 * minute for minute in range(150)])
    assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", "recovered")]
    assert changes[1].time_s == (51 + 4 // per_minute) * 60.0
    assert [(one.direction, one.links) for one in changes[1].signals] == [(1, 9)]


def test_a_model_that_follows_a_change_is_no_recovery():
    """Its residuals go back, the metric does not: the incident is over, and its network is not as it was. A model that was wrong is right
    again, whatever the metric does."""
    for shown, outcome in ((1.0, "settled"), (0.0, "recovered")):
        messages = fleet(20, 90) + [alarm(1, f"l{i}", certain=True, shown=shown) for i in range(9)]
        messages += [alarm(50, f"l{i}", direction=-1, certain=True, shown=0.1) for i in range(9)]
        changes = run(messages, [60.0 * minute for minute in range(150)])
        assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", outcome)]


def test_a_short_burst_recovers():
    """Back before it was certain and half an hour was over, one link a minute before the others."""
    messages = fleet(20) + [alarm(2, f"l{i}") for i in range(5)] + [alarm(15 + (i > 0), f"l{i}", direction=-1, over=True) for i in range(5)]
    changes = run(messages, [60.0 * minute for minute in range(150)])
    assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", "recovered")]


def test_only_what_has_gone_back_has_recovered():
    """A little of the way, or one of two metrics, is no recovery; nor is a link that has risen again."""
    minutes = [60.0 * minute for minute in range(150)]
    base = fleet(20, 90) + [alarm(1, f"l{i}", certain=True, size=50.0, sigma=50.0) for i in range(9)]
    little = [alarm(50, f"l{i}", direction=-1, certain=True, size=5.0, sigma=5.0) for i in range(9)]
    assert [change.outcome for change in run(base + little, minutes) if change.kind == "closed"] == ["settled"]
    two = base + [alarm(1, f"l{i}", signal=2, certain=True, size=1.0, sigma=9.0) for i in range(9)]
    loss_back = [alarm(50, f"l{i}", signal=2, direction=-1, certain=True, size=1.0, sigma=9.0) for i in range(9)]
    assert [change.outcome for change in run(two + loss_back, minutes) if change.kind == "closed"] == ["settled"]
    back = {"direction": -1, "certain": True, "size": 50.0, "sigma": 50.0}
    flapping = [alarm(40, f"l{i}", **back) for i in range(4)] + [alarm(50, f"l{i}", certain=True, size=50.0) for i in range(4)]
    flapping += [alarm(60, f"l{i}", **back) for i in range(4, 6)]
    assert [change.outcome for change in run(base + flapping, minutes) if change.kind == "closed"] == ["settled"]


def test_a_change_beyond_the_old_level_is_no_recovery():
    """+50, then 400 the other way; and half of the way back. Both are told, as changes of their own."""
    base = fleet(20, 90) + [alarm(1, f"l{i}", certain=True, size=50.0, sigma=10.0) for i in range(9)]
    for size in (450.0, 28.0):
        beyond = [alarm(45, f"l{i}", direction=-1, certain=True, size=size, sigma=size / 5, since=44) for i in range(9)]
        changes = run(base + beyond, [60.0 * minute for minute in range(60)])
        assert [change.kind for change in changes] == ["opened", "updated"]
        assert [(one.direction, one.size) for one in changes[-1].signals] == [(-1, -size), (1, 50.0)]


def test_a_link_that_has_gone_back_and_changes_again_is_judged_anew():
    """Its sizes are not added up over ways back."""
    messages = fleet(20, 200)
    for turn in range(3):
        begin = 1 + 40 * turn
        messages += [alarm(begin, f"l{i}", certain=True, size=5.0, sigma=5.0, since=begin - 1) for i in range(9)]
        messages += [alarm(begin + 20, f"l{i}", direction=-1, certain=True, size=5.0, sigma=5.0, since=begin + 19) for i in range(4)]
    sizes = {one.size for change in run(messages, [60.0 * minute for minute in range(200)]) for one in change.signals if one.direction > 0}
    assert max(sizes) <= 15.0, "those that stayed up and rose again are higher"
    assert [one.size for one in run(messages[:-4], [60.0 * minute for minute in range(100)])[0].signals] == [5.0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_change_soon_after_a_recovery_is_told(sign):
    """Twelve minutes after a burst of 20 deviations one of 8, either way: no aftermath of it, which is small."""
    base = fleet(20, 180) + [alarm(1, f"l{i}", certain=True, size=20.0, sigma=20.0) for i in range(9)]
    base += [alarm(40, f"l{i}", direction=-1, certain=True, size=20.0, sigma=20.0, since=39) for i in range(9)]
    second = [alarm(55, f"l{i}", direction=sign, certain=True, size=8.0, sigma=8.0, since=53) for i in range(9)]
    small = [alarm(80, f"l{i}", direction=sign, certain=True, size=1.3, sigma=1.3, since=45) for i in range(9)]
    minutes = [60.0 * minute for minute in range(100)]
    assert [change.kind for change in run(base + second, minutes)] == ["opened", "closed", "opened"]
    assert [change.kind for change in run(base + small, minutes)] == ["opened", "closed"]


def test_a_fleet_that_recovers_leaves_no_alarms_behind():
    """In none of its regions: one more alarm of another link is no quorum."""
    regions = [f"r{at}" for at in range(6)]
    messages = [seen(minute, f"{r}-{at}", r) for minute in range(0, 90, 15) for r in regions for at in range(10)]
    messages += [alarm(30, f"{r}-{at}", r, certain=True) for r in regions for at in range(8)]
    messages += [alarm(45, f"{r}-{at}", r, direction=-1, certain=True, since=44) for r in regions for at in range(8)]
    changes = run([*messages, alarm(50, "r1-9", "r1", since=47)], [60.0 * minute for minute in range(80)])
    assert [(change.kind, change.scope, change.outcome) for change in changes] == [
        ("opened", "fleet", ""),
        ("closed", "fleet", "recovered"),
    ]


def test_a_state_is_of_the_moment_it_was_taken():
    """A checkpoint writes it while the stream goes on."""
    drift = RegionDrift()
    drift.observe([], [seen(1, "a")])
    drift.advance(120.0)
    state = drift.state()
    before = msgspec.msgpack.encode(state)
    drift.observe([alarm(16, f"l{i}", certain=True) for i in range(9)], [seen(16, "b")])
    drift.advance(1100.0)
    assert msgspec.msgpack.encode(state) == before


def test_an_hour_without_noise_does_not_undo_what_is_known_of_a_link():
    """Flat for an hour, as in an outage, and back: of the right size, recovered, and its noise is no news."""
    links, begin = 40, 3000
    residuals = noise(begin + 360, links, seed=7)
    residuals[begin : begin + 60] = -30.0 + 0.01 * residuals[begin : begin + 60]
    drift, regions, changes = LinkDrift(1), RegionDrift(QuorumPolicy()), []
    for at in range(0, len(residuals), 20):
        regions.observe(*feed(drift, residuals[at : at + 20], start_s=60.0 * at, links=links, actual=50.0 + residuals[at : at + 20]))
        changes += regions.advance(60.0 * (at + 20))
    of_region = [(change.kind, change.outcome) for change in changes if change.scope == "region" and change.kind != "updated"]
    assert of_region == [("opened", ""), ("closed", "recovered")]
    assert [one.size for one in changes[0].signals if one.direction > 0] == []
    assert len([change for change in changes if change.scope == "link" and change.kind == "opened"]) <= 4  # of 160 signals


def test_a_change_that_grows_is_told_again():
    """What comes after a certain alarm is added to it: +2, and later +98 more, are +100, since the first."""
    messages = fleet(20, 90) + [alarm(1, f"l{i}", certain=True, size=2.0, sigma=2.0) for i in range(9)]
    messages += [alarm(41, f"l{i}", certain=True, size=98.0, sigma=98.0, since=40) for i in range(9)]
    changes = run(messages, [60.0 * minute for minute in range(60)])
    assert [(change.kind, change.signals[0].size) for change in changes] == [("opened", 2.0), ("updated", 100.0)]


def test_links_that_change_for_their_own_reasons_do_not_keep_an_incident_open():
    """One every 50 minutes is no part of what ten had at once, and the time of that stays what it is."""
    messages = fleet(40, 600) + [alarm(1, f"l{i}", certain=True) for i in range(10)]
    messages += [alarm(50 * n, f"l{10 + n}", certain=True) for n in range(1, 9)]
    changes = run(messages, [60.0 * minute for minute in range(600)])
    (closed,) = [change for change in changes if change.kind == "closed" and change.scope == "region"]
    assert closed.time_s <= 2 * 3600.0
    assert closed.affected_links == 10
    assert abs(closed.since_s - closed.opened_s) <= 400.0


def stages(residuals, minutes=None):
    """What both stages tell of residuals (T, links, 4), a row each minute or at these."""
    links, region = residuals.shape[1], RegionDrift()
    time_s = 60.0 * np.repeat(np.arange(len(residuals)) if minutes is None else minutes, links)
    watch, flat = np.resize(np.arange(links), len(time_s)), residuals.reshape(-1, 4)
    region.observe(*LinkDrift(1).update(rows_of(watch, flat, time_s, links=links), LEAST))
    return [change for watermark_s in np.unique(time_s) for change in region.advance(watermark_s)]


@pytest.mark.parametrize("regions", [1, 6])
def test_a_way_back_in_two_halves_is_one(regions):
    """Half of the change goes back, and later the rest, each before and after it is certain: one incident, of the region or the fleet."""
    names = [(f"r{at}", f"r{at}-{link}") for at in range(regions) for link in range(10)]
    messages = [seen(minute, link, region) for minute in range(0, 200, 15) for region, link in names]
    for region, link in names[: None if regions > 1 else 9]:
        messages.append(alarm(20, link, region, certain=True, size=6.0, sigma=6.0, since=18))
        for minute, certain in ((50, False), (52, True), (90, False), (92 + int(link[-1]), True)):
            messages.append(alarm(minute, link, region, direction=-1, certain=certain, size=3.0, sigma=3.0, since=minute - 3))
    changes = [change for change in run(messages, [60.0 * minute for minute in range(250)]) if change.kind != "updated"]
    assert [(change.kind, change.scope, change.outcome) for change in changes] == [
        ("opened", "region" if regions == 1 else "fleet", ""), ("closed", "region" if regions == 1 else "fleet", "recovered"),
    ]  # fmt: skip


def test_a_change_that_spreads_is_one_incident():
    """An upgrade of producers in waves: what later ones tell joins, also what single links have told before the others."""
    messages = [seen(minute, f"l{at}") for minute in range(0, 420, 15) for at in range(100)]
    for wave in range(5):
        links = range(20 * wave, 20 * wave + 20)
        messages += [alarm(20 + 60 * wave + i % 3, f"l{i}", certain=True, aspect="missing", size=0.0, sigma=0.0) for i in links]
    changes = run(messages, [60.0 * minute for minute in range(400)])
    assert [change.scope for change in changes if change.kind == "opened" and change.scope != "link"] == ["region"]
    assert {change.outcome for change in changes if change.scope == "link" and change.kind == "closed"} <= {"region"}
    assert changes[-1].affected_links > 66, "the next is told when it is half as many again"


def test_what_a_fleet_goes_on_to_tell_is_the_fleets():
    """A second step of the same links, and the way back from both."""
    names = [(f"r{at}", f"r{at}-{link}") for at in range(6) for link in range(10)]
    messages = [seen(minute, link, region) for minute in range(0, 300, 15) for region, link in names]
    for minute in (20, 60):
        messages += [alarm(minute, link, region, certain=True, sigma=3.0, since=minute - 2) for region, link in names]
    messages += [alarm(90, link, region, direction=-1, certain=True, size=36.0, sigma=6.0, since=88) for region, link in names]
    changes = run(messages, [60.0 * minute for minute in range(300)])
    assert [(change.kind, change.scope, change.signals[0].size) for change in changes] == [
        ("opened", "fleet", 18.0), ("updated", "fleet", 36.0), ("closed", "fleet", 36.0),
    ]  # fmt: skip
    assert changes[-1].outcome == "recovered"


def test_a_fault_of_all_producers_does_not_hide_a_change_of_all_networks():
    names = [(f"r{at}", f"r{at}-{link}") for at in range(6) for link in range(10)]
    messages = [seen(minute, link, region) for minute in range(0, 400, 15) for region, link in names]
    messages += [alarm(20, link, region, certain=True, aspect="missing", size=0.0, sigma=0.0, since=19) for region, link in names]
    messages += [alarm(300, link, region, certain=True, since=299) for region, link in names]
    opened = [change for change in run(messages, [60.0 * minute for minute in range(400)]) if change.kind == "opened"]
    assert [(change.scope, change.group) for change in opened] == [("fleet", "data"), ("fleet", "network")]


def test_a_change_that_ends_before_it_is_certain_has_recovered():
    """Thirteen rows of two deviations on 40 of 100 links."""
    residuals = noise(3 * DAY + 300, 100, seed=9)
    residuals[3 * DAY : 3 * DAY + 13, :40, 1] += 2.0
    changes = [change for change in stages(residuals) if change.scope == "region"]
    assert [change.kind for change in changes if change.kind != "updated"] == ["opened", "closed"]
    assert changes[-1].outcome == "recovered"


def test_a_change_after_a_short_one_the_other_way_is_told_of_all_its_links():
    """Up for nine rows, which is told and never certain, then down for good: that is no way back."""
    residuals = noise(3 * DAY + 300, 40, seed=5)
    residuals[3 * DAY : 3 * DAY + 9, :, 1] += 2.5
    residuals[3 * DAY + 9 :, :, 1] -= 2.5
    changes = [change for change in stages(residuals) if change.scope == "region"]
    assert [(change.kind, change.outcome) for change in changes if change.kind != "updated"] == [
        ("opened", ""), ("closed", "recovered"), ("opened", ""), ("closed", "settled"),
    ]  # fmt: skip
    assert changes[-1].affected_links >= 38
    assert [(one.signal, one.direction) for one in changes[-1].signals] == [("rtt_ms", -1)]
    assert changes[-1].signals[0].size == pytest.approx(-2.5, abs=0.2)


def test_links_that_were_away_do_not_know_the_day():
    """Three hours, then two and a half days without them, then the other half of the day, of whose leftover cycle they know nothing."""
    minute = np.where(np.arange(1080) < 180, np.arange(1080), np.arange(1080) + 2 * DAY + 720)
    residuals = noise(1080, 100, seed=4) + 0.3 * np.cos(2 * np.pi * (minute - 90) / DAY)[:, None, None]
    assert stages(residuals, minute) == []


def test_one_slow_link_does_not_keep_an_incident_open():
    """It reports every six hours; the others have been quiet for one."""
    messages = fleet(100, 240) + [alarm(20, f"l{i}", certain=True) for i in range(20)]
    messages.append(alarm(25, "slow", certain=True, interval_s=6 * 3600.0, since=20))
    changes = run(messages, [60.0 * minute for minute in range(200)])
    assert [change.kind for change in changes] == ["opened", "closed"]
    assert changes[-1].affected_links == 21


def test_what_has_grown_since_it_was_told_is_told():
    """Not since the last alarm: a change that grows by little steps is one that grows."""
    messages = fleet(20, 440)
    for step in range(12):
        minute = 20 + 30 * step
        messages += [alarm(minute, f"l{i}", certain=True, size=3.0, sigma=3.0, since=minute - 1) for i in range(10)]
    changes = run(messages, [60.0 * minute for minute in range(360)])
    assert [change.signals[0].size for change in changes] == [3.0, 6.0, 12.0, 24.0]


def test_the_size_of_a_spread_is_the_new_mean_absolute_residual():
    residuals = noise(3 * DAY + 200, 20)
    residuals[3 * DAY :] *= 2.0
    alarms = [one for one in feed(LinkDrift(1), residuals, links=20)[0] if one.aspect == "spread" and one.certain]
    assert np.median([one.size for one in alarms]) == pytest.approx(2.0 * np.sqrt(2 / np.pi), rel=0.1)


def test_a_renamed_region_is_one_incident_of_its_data():
    """Nobody is known to be watched under the new name yet, and all of its links have a category that the model does not know."""
    region = SIGNALS.index("region")
    messages = [seen(minute, f"l{i}", "r0") for minute in (0, 15) for i in range(8)]
    messages += [alarm(20, f"l{i}", "emea", signal=region, aspect="category", certain=True) for i in range(8)]
    changes = run(messages, [60.0 * minute for minute in range(60)])
    assert [(change.kind, change.scope, change.group, change.affected_links) for change in changes] == [("opened", "region", "data", 8)]
    assert changes[0].watched_links == 8


def test_what_comes_after_a_recovery_is_new():
    """A drop below the normal level 40 minutes later is an incident, though the way back was in that direction."""
    messages = fleet(20, 180) + [alarm(1, f"l{i}", certain=True) for i in range(4)]
    messages += [alarm(50, f"l{i}", direction=-1, certain=True) for i in range(4)]
    messages += [alarm(90, f"l{i}", direction=-1) for i in range(4)]
    changes = run(messages, [60.0 * minute for minute in range(120)])
    assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", "recovered"), ("opened", "")]


def test_a_fleet_that_recovers_leaves_nothing_behind():
    """Region after region, in one bucket or in many."""
    for step in (0, 1):
        messages = [seen(minute, f"{r}-{at}", r) for minute in range(0, 60, 15) for r in "abcdef" for at in range(5)]
        messages += [alarm(1, f"{r}-{at}", r, certain=True) for r in "abcdef" for at in range(4)]
        messages += [alarm(30 + step * i, f"{r}-{at}", r, direction=-1, certain=True) for i, r in enumerate("abcdef") for at in range(4)]
        changes = run(messages, [60.0 * minute for minute in range(150)])
        assert [(change.kind, change.scope, change.outcome) for change in changes] == [
            ("opened", "fleet", ""), ("closed", "fleet", "recovered"),
        ]  # fmt: skip


def test_a_new_region_or_a_swap_does_not_make_the_fleet_flap():
    """The first word of a region is no new model; a new model closes everything once, wherever it is heard of first."""
    messages = [seen(minute, f"{r}-{at}", r) for minute in range(0, 60, 15) for r in "abcdef" for at in range(5)]
    messages += [alarm(1, f"{r}-{at}", r) for r in "abcdef" for at in range(4)]
    changes = run([*messages, seen(25, "new", "zz")], [60.0 * minute for minute in range(40)])
    assert [change.scope for change in changes if change.kind == "opened"] == ["fleet"]
    late = [alarm(27, f"{r}-4", r) for r in "bcdef"]  # of the model before
    changes = run([*messages, seen(26, "a-0", "a", epoch=2), *late], [60.0 * minute for minute in range(40)])
    assert [(change.scope, change.outcome) for change in changes[-1:]] == [("fleet", "model_replaced")]


def test_a_fault_in_the_minute_of_a_swap_is_told():
    """What is wrong with the data has nothing to do with the model; but a category that the new one knows is over."""
    faulty = [alarm(5, f"l{at}", signal=4, aspect="missing", certain=True) for at in range(4)]
    changes = run([*fleet(10), *faulty, seen(5, "l0", epoch=2)], [60.0 * minute for minute in range(10)])
    assert [(change.kind, change.group) for change in changes] == [("opened", "data")]
    unknown = [alarm(3, f"l{at}", signal=14, aspect="category", certain=True) for at in range(4)]
    changes = run([*fleet(10), *unknown, seen(5, "l0", epoch=2)], [60.0 * minute for minute in range(10)])
    assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", "model_replaced")]


def test_most_regions_at_once_are_one_incident_of_the_fleet():
    """Four regions of six change within the window: their incidents become one, and the fifth joins it. The fourth, with which it is one,
    is not told by itself."""
    messages = [seen(minute, f"{r}-{at}", r) for minute in (0, 15) for r in "abcdef" for at in range(5)]
    messages += [alarm(1 + i, f"{r}-{at}", r) for i, r in enumerate("abcde") for at in range(3)]
    changes = run(messages, [60.0 * minute for minute in range(80)])
    assert [(change.kind, change.scope, change.region, change.outcome) for change in changes] == [
        *[("opened", "region", r, "") for r in "abc"], *[("closed", "region", r, "fleet") for r in "abc"], ("opened", "fleet", "", ""),
        ("closed", "fleet", "", "settled"),
    ]  # fmt: skip
    assert changes[6].regions == ("a", "b", "c", "d")
    assert (changes[6].affected_links, changes[6].watched_links) == (12, 30)
    assert (changes[7].regions, changes[7].affected_links) == (("a", "b", "c", "d", "e"), 15)


def test_a_fleet_takes_over_what_single_links_have_told():
    """A link of a region that has no incident itself; and all of it is one alert of the week."""
    drift = RegionDrift(QuorumPolicy())
    messages = [seen(minute, f"{r}-{at}", r) for minute in (0, 15) for r in "abcdef" for at in range(5)]
    messages += [alarm(1, "f-0", "f", certain=True), *(alarm(3, f"{r}-{at}", r) for r in "abcd" for at in range(3))]
    drift.observe([one for one in messages if isinstance(one, LinkAlarm)], [one for one in messages if isinstance(one, LinkSeen)])
    told = [(change.kind, change.scope, change.outcome) for change in drift.advance(600.0)]
    assert told[0] == ("opened", "link", "")
    assert told[-2:] == [("closed", "link", "fleet"), ("opened", "fleet", "")]
    assert (drift.open_incidents, drift.opened_in_a_week) == (1, 1)


def test_faults_of_the_data_are_incidents_of_their_own():
    """Beside a drift of the same region; a new model does not close them."""
    faulty = [alarm(2, f"l{at}", signal=4, aspect="missing", certain=True) for at in range(4)]
    messages = [*fleet(10), *faulty, *(alarm(3, f"l{at}") for at in range(3)), seen(9, "l0", epoch=2)]
    changes = run(messages, [60.0 * minute for minute in range(20)])
    assert [(change.kind, change.group, change.outcome) for change in changes] == [
        ("opened", "data", ""), ("opened", "network", ""), ("closed", "network", "model_replaced"),
    ]  # fmt: skip
    assert [(one.signal, one.change, one.links) for one in changes[0].signals] == [("congestion_window", "missing", 4)]


def test_a_swap_closes_incidents_and_forgets_alarms_of_the_old_model():
    """Alarms of the old epoch do not add up with those of the new one."""
    messages = [*fleet(10), alarm(1, "a"), alarm(2, "b"), alarm(3, "c", epoch=2)]
    assert run(messages, [60.0 * minute for minute in range(20)]) == []
    messages = [*fleet(10), *(alarm(1, link) for link in "abc"), seen(7, "l0", epoch=2)]
    changes = run(messages, [60.0 * minute for minute in range(20)])
    assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", "model_replaced")]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_changes_do_not_depend_on_batches_order_of_partitions_or_restarts(data):
    """Any interleaving of the partitions, any watermarks, a restart anywhere: the same changes with the same ids."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    partitions = [
        [
            message
            for minute in range(150)
            for link in (f"p{p}-a", f"p{p}-b")
            for message in (
                ([seen(minute + rng.random(), link, region=f"r{p % 2}")] if minute % 15 == 0 else [])
                + (
                    [
                        alarm(
                            minute + rng.random(), link, region=f"r{p % 2}", offset=minute, direction=1 if rng.random() < 0.8 else -1,
                            certain=rng.random() < 0.3,
                        )
                    ]
                    if rng.random() < 0.04 else []
                )
            )
        ]
        for p in range(3)
    ]  # fmt: skip
    policy = QuorumPolicy(links_min=2, quiet_s=1200)

    def play(steps, restart_at):
        drift, changes, at, clocks = RegionDrift(policy), [], [0, 0, 0], [0.0, 0.0, 0.0]
        for count, (partition, size) in enumerate(itertools.chain(steps, [(p, 10_000) for p in range(3)])):
            batch = partitions[partition][at[partition] : at[partition] + size]
            at[partition] += size
            drift.observe([m for m in batch if isinstance(m, LinkAlarm)], [m for m in batch if isinstance(m, LinkSeen)])
            if batch:
                clocks[partition] = max(clocks[partition], min(message.time_s for message in batch[-2:]) - 120.0)
            changes += drift.advance(min(clocks))
            if count == restart_at:
                drift = RegionDrift.restored(msgspec.msgpack.decode(msgspec.msgpack.encode(drift.state())), policy)
        changes += drift.advance(60.0 * 1000)
        return changes, drift.late

    steps = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), max_size=40))
    changes, late = play(steps, data.draw(st.integers(-1, 20)))
    expected, _ = play([], -1)
    assert late == 0
    assert changes == expected


def digest_of_a_state() -> str:
    """Of the region stage after a fleet's incident, one of a region that goes back, and alarms of many links."""
    names = [(f"r{at}", f"r{at}-{link}") for at in range(6) for link in range(10)]
    messages = [seen(minute, link, region) for minute in range(0, 90, 15) for region, link in names]
    for region, link in names:
        again = () if link[-1] == "9" else ((60, 1), (70, -1)) if region == "r1" else ()
        for minute, direction in ((20, 1), (40, -1), *again):
            messages.append(alarm(minute, link, region, direction=direction, certain=True, since=minute - 2))
    drift = RegionDrift()
    drift.observe([one for one in messages if isinstance(one, LinkAlarm)], [one for one in messages if isinstance(one, LinkSeen)])
    drift.advance(80 * 60.0)
    return hashlib.sha256(msgspec.msgpack.encode(drift.state())).hexdigest()


def test_a_state_is_the_same_in_every_process():
    """Byte for byte, though the order of a set of strings is another in each."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r} + [{str(Path(__file__).parent)!r}]; import test_drift as t; print(t.digest_of_a_state())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "123"
    }
    assert digests == {digest_of_a_state() + "\n"}


def test_ten_thousand_regions_and_a_region_with_one_link():
    """Regions cost little, and one alarm of one link that is not certain opens nothing."""
    changes = run([message for i in range(10_000) for message in (seen(0, "l", f"r{i}"), alarm(1, "l", f"r{i}"))], [0.0, 600.0])
    assert changes == []


def test_a_link_with_ever_new_regions_does_not_fill_the_memory(monkeypatch):
    """Those that were not seen for longest are forgotten, one with an open incident last; a restart at any minute changes nothing."""
    monkeypatch.setattr("drift.region.REGIONS_MAX", 16)
    drift = RegionDrift()
    drift.observe([alarm(0, f"link{at}") for at in range(3)], [seen(0, f"link{at}") for at in range(3)])
    for minute in range(200):
        again = RegionDrift.restored(drift.state())
        for one in (drift, again):
            one.observe([], [seen(minute, "link", region=f"new{minute:03}")])
            one.advance((minute + 1) * 60.0)
        regions = drift.state()["regions"]
        assert drift.state() == again.state()
        assert len(regions) <= 16
        assert f"new{minute:03}" in regions
        assert "eu" in regions or minute >= 60
    assert drift.forgotten > 150


def test_watch_list_is_stable_bounded_and_fair_to_new_regions():
    """Each region has its share; a link never changes its state; the same links are chosen whatever the batches."""
    links = [f"link-{i}" for i in range(300)]
    regions = ["a"] * 200 + ["b"] * 100
    whole, pieces = WatchList(WatchPolicy(0.5, 40, 60)), WatchList(WatchPolicy(0.5, 40, 60))
    whole.follow(links, regions)
    for end in range(7, 301, 7):
        pieces.follow(links[:end], regions[len(pieces.index) : end])
    pieces.follow(links, regions[len(pieces.index) :])
    assert whole.index == pieces.index
    assert whole.regions.count("a") == 40
    assert whole.regions.count("b") == 20
    restored = WatchList(whole.policy, whole.index, whole.regions)
    assert (restored.mask == whole.mask).all()


def test_pinned_links_are_watched_whatever_the_bounds():
    """From their first record, or, where they are pinned later, from the next start; the others stay as they were."""
    links = [f"node-{i}|core" for i in range(6)]
    watch = WatchList(WatchPolicy(links_per_region=2, always=("node-5|*",)))
    watch.follow(links, ["a"] * 6)
    assert watch.index == [0, 1, -1, -1, -1, 2]
    later = WatchList(WatchPolicy(links_per_region=2, always=("node-5|*", "*-3|core")), watch.index, watch.regions)
    assert later.pin(links) == 1
    assert later.index == [0, 1, -1, 3, -1, 2]
    kept = later.keep(np.array([1, 3, 5], np.int32))
    assert kept.tolist() == [1, 2, 3]
    assert later.index == [0, 2, 1]


@pytest.mark.parametrize(("budget", "wider"), [(1.0, 0.0), (0.1, np.log(10.0)), (10.0, -np.log(10.0))])
def test_thresholds_follow_from_the_budget(budget, wider):
    """A tenth of the false alerts costs ln(10) in the threshold, and more where the slack is smaller."""
    base, made = Sensitivity(), Sensitivity.for_budget(budget)
    assert made.alone - base.alone == pytest.approx(wider)
    assert made.quorum - base.quorum == pytest.approx(wider)
    assert made.alone_spread - base.alone_spread == pytest.approx(wider / 0.7)
    assert Sensitivity.for_budget(1000.0).quorum == 8.0
