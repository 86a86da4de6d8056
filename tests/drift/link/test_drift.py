"""Detectors on the residuals of links, faults of their data, who is watched, and that none of it depends on batches."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from drift.link.cusum import CALIBRATION_ROWS
from drift.link.monitored import MonitoredList, MonitoringPolicy
from drift.link.sensitivity import Sensitivity
from drift.link.stage import LinkDrift
from drift.messages import SIGNALS, LinkAlarm
from drift.region.stage import RegionDrift
from features.telemetry import NUMERIC
from testkit import drifting

LEAST, DAY = drifting.LEAST, drifting.DAY
rows_of, feed, noise = drifting.rows_of, drifting.feed, drifting.noise
fleet, run = drifting.fleet, drifting.run


def test_no_alarm_on_noise():
    """20 links x 4 metrics x 3,000 rows of noise: at most one alarm. Each link reports every quarter of an hour that it is there."""
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
        assert all(alarm.size == pytest.approx(step, rel=0.1) for alarm in alarms if alarm.confirmed)


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
        alarms = [alarm for alarm in feed(LinkDrift(1), residuals, links=20, actual=actual)[0] if alarm.confirmed]
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
    """A column that disappears, is stuck, or has another unit: reported when it begins and when it ends, and no drift meanwhile."""
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
    """Another unit of a column that is not a target, or a category that the model does not know, make all forecasts wrong while they
    last and until the windows are clean. A drift after that is reported."""
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
    """By the link's own time, every message of it would come too late to count."""
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
    """Whatever its size: reported once, recovered when it is over, of the right size and time, and nothing after it."""
    links, begin = 40, 3000 + 61 * seed
    residuals = noise(begin + rows + 300, links, seed=100 + seed)
    for metric in metrics:
        residuals[begin : begin + rows, : int(share * links), metric] += sigma
    drift, regions, changes = LinkDrift(1), RegionDrift(), []
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
    """In some of 200 links a sum has begun to grow: none confirms half of a step of 30, or a time long before it."""
    residuals = noise(1300, 200, seed=9)
    residuals[1200:, :, 1] += 30.0
    alarms, _ = feed(LinkDrift(1), residuals, links=200)
    certain = [one for one in alarms if one.confirmed and one.time_s >= 72_000.0]
    assert len({one.link for one in certain}) == 200
    assert min(one.size for one in certain if one.time_s < 72_000.0 + 600.0) > 15.0
    assert np.median([abs(one.since_s / 60 - 1200) for one in certain]) <= 1.0


@pytest.mark.parametrize("outlier", [200.0, 3e4, 1e30])
def test_an_outlier_does_not_make_a_shift_the_models_error(outlier):
    """The metric's share is measured against its own level, which one wild value half an hour before must not move."""
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
    """It is the new state of the data, and the next change is one against it; its incident is open until then."""
    columns = healthy(3 * DAY)
    columns[400 : 2 * DAY, 0, 4] *= 1000.0
    begin, back = column_faults(columns)
    assert (begin.direction, begin.time_s / 60, back.direction, back.time_s / 60) == (1, 404, 1, 2 * DAY + 4)
    assert (begin.size, back.size) == (pytest.approx(1000.0, rel=0.3), pytest.approx(0.001, rel=0.3))
    opened, closed = run([*fleet(1), begin], [60.0 * minute for minute in range(0, 3 * DAY, 10)])
    assert (opened.group, closed.outcome) == ("data", "settled")
    assert closed.time_s - opened.time_s > 86_400.0


def test_a_new_level_is_accepted_once_it_is_told():
    """A shift that stays alarms at both thresholds and then no more; going back is reported the same way, in the other direction."""
    residuals = noise(3000)
    residuals[1000:2000] += 3.0
    alarms, _ = feed(LinkDrift(1), residuals)
    for metric in range(4):
        reported = [alarm for alarm in alarms if alarm.detector == "cusum" and alarm.signal == metric]
        assert [(alarm.direction, alarm.confirmed) for alarm in reported[:4]] == [(1, False), (1, True), (-1, False), (-1, True)]
        assert [alarm.time_s // 60_000 for alarm in reported] == [1, 1] + [2] * (len(reported) - 2)
        assert len(reported) <= 5


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
    """After a swap the links calibrate anew: another level of residuals is not drift."""
    drift = LinkDrift(1)
    feed(drift, noise(300))
    drift.restart(2)
    alarms, seen = feed(drift, 5.0 + 4.0 * noise(300, seed=2), start_s=300 * 60)
    assert alarms == []
    assert {one.epoch for one in seen} == {2}


def test_an_hour_without_noise_does_not_undo_what_is_known_of_a_link():
    """Flat for an hour, as in an outage, and back: of the right size, recovered, and its noise is not news."""
    links, begin = 40, 3000
    residuals = noise(begin + 360, links, seed=7)
    residuals[begin : begin + 60] = -30.0 + 0.01 * residuals[begin : begin + 60]
    drift, regions, changes = LinkDrift(1), RegionDrift(), []
    for at in range(0, len(residuals), 20):
        regions.observe(*feed(drift, residuals[at : at + 20], start_s=60.0 * at, links=links, actual=50.0 + residuals[at : at + 20]))
        changes += regions.advance(60.0 * (at + 20))
    of_region = [(change.kind, change.outcome) for change in changes if change.scope == "region" and change.kind != "updated"]
    assert of_region == [("opened", ""), ("closed", "recovered")]
    assert [one.size for one in changes[0].signals if one.direction > 0] == []
    assert len([change for change in changes if change.scope == "link" and change.kind == "opened"]) <= 4  # of 160 signals


def test_the_size_of_a_spread_is_the_new_mean_absolute_residual():
    residuals = noise(3 * DAY + 200, 20)
    residuals[3 * DAY :] *= 2.0
    alarms = [one for one in feed(LinkDrift(1), residuals, links=20)[0] if one.aspect == "spread" and one.confirmed]
    assert np.median([one.size for one in alarms]) == pytest.approx(2.0 * np.sqrt(2 / np.pi), rel=0.1)


def test_watch_list_is_stable_bounded_and_fair_to_new_regions():
    """Each region has its share; a link never changes its state; the same links are chosen whatever the batches."""
    links = [f"link-{i}" for i in range(300)]
    regions = ["a"] * 200 + ["b"] * 100
    policy = MonitoringPolicy(links_per_region=40, links_max=60)
    whole, pieces = MonitoredList(policy), MonitoredList(policy)
    whole.follow(links, regions)
    for end in range(7, 301, 7):
        pieces.follow(links[:end], regions[len(pieces.index) : end])
    pieces.follow(links, regions[len(pieces.index) :])
    assert whole.index == pieces.index
    assert whole.regions.count("a") == 40
    assert whole.regions.count("b") == 20
    restored = MonitoredList(whole.policy, whole.index, whole.regions)
    assert (restored.mask == whole.mask).all()


def test_pinned_links_are_watched_whatever_the_bounds():
    """They are monitored from their first record or, if they are pinned later, from the next start; the others stay as they were."""
    links = [f"node-{i}|core" for i in range(6)]
    watch = MonitoredList(MonitoringPolicy(links_per_region=2, always=("node-5|*",)))
    watch.follow(links, ["a"] * 6)
    assert watch.index == [0, 1, -1, -1, -1, 2]
    later = MonitoredList(MonitoringPolicy(links_per_region=2, always=("node-5|*", "*-3|core")), watch.index, watch.regions)
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
