"""What a link remembers of its day: by hand, online against offline, and where streams, clocks and calendars are odd."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from datetime import UTC as UTC_ZONE
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.local_time import UTC, LocalTime, Place, Zone
from features.memory import MEMORY
from features.offline import OfflineFeatures, RawTable, compute
from features.rings import RINGS
from features.store import FeatureStore
from features.telemetry import CATEGORIES, NUMERIC, TARGETS, TelemetryBatch
from features.vocabulary import Interner, Vocabulary

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
"""Its daylight saving is half an hour."""
VOCABULARY = Vocabulary.empty()
HORIZONS = (1, 5)
LEVEL, SPREAD, NOW, AHEAD = 0, 1, 2, 3
X, RTT = TARGETS.index("throughput_mbps"), TARGETS.index("rtt_ms")
Row = tuple[str, float, Sequence[float], str | None]
"""Node, time (UTC seconds), the four targets, region."""


def day_number(year: int, month: int, day: int) -> int:
    return (datetime(year, month, day, tzinfo=UTC_ZONE) - datetime(1970, 1, 1, tzinfo=UTC_ZONE)).days


def utc_s(zone: ZoneInfo, *local: int) -> float:
    return datetime(*local, tzinfo=zone).timestamp()


PLACES = LocalTime(
    Place(Zone.of(BERLIN), (day_number(2026, 3, 30), day_number(2026, 5, 1))),
    {"far": Place(Zone.of(LORD_HOWE), (day_number(2026, 4, 3),)), "utc": Place()},
)


def batch_of(rows: Sequence[Row], first_offset: int = 0) -> TelemetryBatch:
    numeric = np.full((len(rows), len(NUMERIC)), np.nan, np.float32)
    numeric[:, : len(TARGETS)] = np.array([row[2] for row in rows], np.float32).reshape(len(rows), len(TARGETS))
    regions: list[str | None] = [row[3] for row in rows]
    categories = tuple(regions if name == "region" else [None] * len(rows) for name in CATEGORIES)
    times = np.array([row[1] for row in rows], np.float64)
    return TelemetryBatch(
        np.arange(first_offset, first_offset + len(rows)), times, numeric, [row[0] for row in rows], ["p"] * len(rows), categories
    )


def online(
    rows: Sequence[Row], cuts: Iterable[int] = (), local_time: LocalTime = UTC, horizons: Sequence[int] = HORIZONS, restarts: bool = False
) -> tuple[list[int], np.ndarray, FeatureStore]:
    """Feed the rows in batches. Return which were accepted, their contexts, and the store. restarts: the state is saved and restored."""
    store = FeatureStore(("node_id",), local_time=local_time)
    accepted, contexts = [], []
    for begin, end in itertools.pairwise([0, *sorted(cuts), len(rows)]):
        batch = batch_of(rows[begin:end], begin)
        slots = store.resolve(batch)
        found = store.update(batch, slots, np.ones(len(store), np.bool_), None, horizons)
        accepted += [begin + int(row) for row in found.accepted]
        contexts.append(found.context)
        if restarts:
            again = FeatureStore(("node_id",), local_time=local_time)
            again.restore(store.link_keys(), [list(names) for names in store.interner.values], store.state(), store.evicted_through_s)
            store = again
    return accepted, np.concatenate(contexts), store


def offline(rows: Sequence[Row], accepted: Sequence[int], local_time: LocalTime = UTC) -> tuple[list[int], OfflineFeatures]:
    """Return the order of the accepted rows in a table, and its features."""
    order = sorted(accepted, key=lambda row: (rows[row][0], row))
    links = sorted({rows[row][0] for row in order})
    batch, interner = batch_of([rows[row] for row in order]), Interner()
    codes = interner.codes(batch.categories).astype(np.int32)
    table = RawTable(
        links=tuple(links),
        link=np.array([links.index(rows[row][0]) for row in order], np.int32),
        time_s=batch.time_s,
        numeric=batch.numeric,
        codes=codes,
        values=tuple(tuple(values) for values in interner.values),
    )
    return order, compute(table, VOCABULARY, horizons=HORIZONS, local_time=local_time)


def both(rows: Sequence[Row], local_time: LocalTime = UTC) -> np.ndarray:
    """Return the contexts of rows of one link that are all accepted, after a check that online and offline agree."""
    accepted, contexts, _ = online(rows, local_time=local_time)
    assert accepted == list(range(len(rows)))
    np.testing.assert_array_equal(offline(rows, accepted, local_time)[1].context, contexts)
    return contexts


def hourly(first_s: float, values: Sequence[float], region: str | None = None) -> list[Row]:
    """Rows of one link, half past each hour."""
    return [("n", first_s + 3600.0 * hour + 1800.0, (value, math.nan, 0.0, 1.0), region) for hour, value in enumerate(values)]


value = st.one_of(st.just(math.nan), st.floats(0, 1e6, width=32), st.sampled_from([0.0, 3.4e38]))
step = st.one_of(st.just(60.0), st.just(300.0), st.just(3600.0), st.just(0.0), st.just(-30.0), st.floats(0.001, 4e5), st.just(9e6))
region = st.sampled_from([None, "far", "utc", "of no zone"])
event = st.tuples(st.sampled_from(["n1", "n2", "n3"]), step, st.lists(value, min_size=4, max_size=4), region)
begin = st.sampled_from([
    utc_s(BERLIN, 2026, 3, 27, 22, 15), utc_s(BERLIN, 2026, 10, 24, 13, 0), utc_s(LORD_HOWE, 2026, 4, 3, 20, 0), 1e9, 12.5, 4.2e9,
])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(begin, st.lists(event, min_size=1, max_size=220), st.sets(st.integers(1, 219), max_size=6), st.booleans(), st.booleans())
def test_online_equals_offline_on_any_stream(begin_s, events, cuts, restarts, steady):
    """Bit for bit: links interleaved, holes, gaps, duplicates, late rows, daylight saving, holidays, batches and restarts anywhere."""
    clock, rows = dict.fromkeys(("n1", "n2", "n3"), begin_s), []
    for node, step_s, numbers, name in events:
        clock[node] += 3600.0 if steady else step_s  # nine days of hours: profiles do become warm
        rows.append((node, clock[node], numbers, name))
    accepted, contexts, _ = online(rows, {cut for cut in cuts if cut < len(rows)}, PLACES, restarts=restarts)
    order, expected = offline(rows, accepted, PLACES)
    place = {row: index for index, row in enumerate(order)}
    np.testing.assert_array_equal(contexts, expected.context[[place[row] for row in accepted]])
    assert not np.isinf(contexts).any()


@settings(max_examples=40, deadline=None)
@given(begin, st.lists(event, min_size=1, max_size=120), st.sets(st.integers(1, 119), max_size=8))
def test_the_memory_does_not_depend_on_batches_and_monitoring(begin_s, events, cuts):
    """The arrays are byte-identical after one batch of monitored links and after pieces of which no context is computed."""
    clock, rows = dict.fromkeys(("n1", "n2", "n3"), begin_s), []
    for node, step_s, numbers, name in events:
        clock[node] += step_s
        rows.append((node, clock[node], numbers, name))
    whole = online(rows, (), PLACES)[2].state()
    pieces = online(rows, {cut for cut in cuts if cut < len(rows)}, PLACES, horizons=())[2].state()
    assert whole.keys() == pieces.keys() >= MEMORY.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], pieces[name])


def test_three_days_with_daylight_saving_and_a_holiday():
    """By hand. Saturday to Monday, 2026-03-28 to 30, Berlin: Sunday has no 2 o'clock, and the Monday is a holiday here: one kind of day.

    Saturday's hour h has the value h, Sunday's 100 + h, Monday's 200 + h, one row each.
    """
    first_s = utc_s(BERLIN, 2026, 3, 28, 0)
    local = [datetime.fromtimestamp(first_s + 3600 * k, BERLIN) for k in range(24 + 23 + 24)]
    values = [100.0 * (at.day - 28) + at.hour for at in local]
    assert [at.hour for at in local[24:28]] == [0, 1, 3, 4]
    contexts = both(hourly(first_s, values), PLACES)
    assert np.isnan(contexts[:20, NOW:, X]).all(), "19 finished hours are not a day"
    assert not np.isnan(contexts[24:, NOW, X]).any()
    # Sunday 01:30: hours 0 of both days are folded, 1 of Saturday alone. It was 1 at half past one on Saturday.
    assert contexts[25, NOW, X] == 1.0
    # In one row it is 03:30, in five 07:30.
    assert contexts[25, AHEAD:, X].tolist() == [3.0, 7.0]
    # Sunday 23:30, one hour before Monday 00:30: hour 0 holds 0, then 100 with weight 1/2.
    assert contexts[46, AHEAD, X] == 50.0
    # Monday 02:30: hour 2 was on Saturday alone. Monday 03:30: Saturday 3, Sunday 103.
    assert contexts[49, NOW, X] == 2.0
    assert contexts[50, NOW, X] == 53.0
    # The day after, Tuesday, is a workday of which nothing is known: the other kind's cells are used. Hour 4 has three means, the third
    # with weight 1/3: 4, 54, 54 + 150 / 3 = 104.
    tuesday = both([*hourly(first_s, values), *hourly(utc_s(BERLIN, 2026, 3, 31, 4), [7.0])], PLACES)
    assert tuesday[-1, NOW, X] == np.float32(104.0)
    # A measured workday's hour is used from then on.
    wednesday = both([*hourly(first_s, values), *hourly(utc_s(BERLIN, 2026, 3, 31, 4), [7.0] * 25)], PLACES)
    assert wednesday[-1, NOW, X] == 7.0


def test_the_hour_that_comes_twice_goes_in_twice():
    """Where daylight saving ends, 2 o'clock comes twice: two means of one cell."""
    first_s = utc_s(BERLIN, 2026, 10, 25, 0)
    rows = hourly(first_s, [float(k) for k in range(25)])
    assert [datetime.fromtimestamp(row[1], BERLIN).hour for row in rows[:5]] == [0, 1, 2, 2, 3]
    _, _, store = online(rows, local_time=PLACES)
    assert store.state()["folded"][0, 1, :5, X].tolist() == [1, 1, 2, 1, 1]
    assert store.state()["profile"][0, 1, :5, X].tolist() == [0.0, 1.0, 2.5, 4.0, 5.0]


def test_hours_are_interpolated_and_midnight_has_no_step():
    """By hand: a quarter past an hour is a quarter from its middle, and at midnight the hour before has the kind of its own day."""
    monday_s = utc_s(ZoneInfo("UTC"), 2026, 6, 1, 0)
    week = [10.0 * hour if day < 5 else 1000.0 + hour for day in range(7) for hour in range(24)]
    rows = hourly(monday_s, week)
    at_s = monday_s + 7 * 86_400.0  # Monday 00:00, half-way between Sunday's last hour (1023) and the workdays' first (0)
    found = both([*rows, ("n", at_s, (1.0,) * 4, None)])
    assert found[-1, NOW, X] == 511.5
    later = both([*rows, ("n", at_s + 10.75 * 3600.0, (1.0,) * 4, None)])  # a quarter of the way from 10:30 to 11:30
    assert later[-1, NOW, X] == 102.5


def test_level_and_spread_by_hand():
    """The recurrences of the docstring, with a hole, in float64."""
    values = [10.0, 20.0, math.nan, 5.0]
    contexts = both([("n", 1e9 + 60.0 * k, (x, math.nan, 0.0, 1.0), None) for k, x in enumerate(values)])
    fast, level, spread = 10.0, 10.0, 0.0
    expected = [(level, spread)]
    for x in values[1:]:
        if x == x:
            fast += 0.12 * (x - fast)
            level += 0.02 * (x - level)
            spread += 0.02 * (abs(x - fast) - spread)
        expected.append((level, spread))
    np.testing.assert_array_equal(contexts[:, :NOW, X], np.array(expected, np.float32))
    assert np.isnan(contexts[:, :, RTT]).all(), "never measured"


def test_horizons_have_no_time_before_an_interval_is_known():
    """A link's first row after a day knows the profile now; the horizons wait for its second interval of the same run."""
    rows = hourly(1e9 - 1e9 % 86_400.0, [float(k) for k in range(30)])
    accepted, contexts, store = online(rows)
    assert not np.isnan(contexts[-1, NOW:, X]).any()
    store.rewind(np.zeros(1, np.int32), rows[-1][1])
    batch = batch_of([("n", rows[-1][1] + 3600.0, (1.0,) * 4, None)], len(rows))
    context = store.update(batch, store.resolve(batch), np.ones(1, np.bool_), None, HORIZONS).context
    assert not np.isnan(context[0, NOW, X])
    assert np.isnan(context[0, AHEAD:]).all()
    _, features = offline(rows, accepted)
    assert np.isnan(features.interval_s[0])
    assert (features.interval_s[1:] == 3600.0).all()


def test_a_link_that_reports_once_a_day_has_no_profile():
    """It has seen one hour of the day, however many days it is watched. Its level and spread are known."""
    contexts = both([("n", 1e9 + 86_400.0 * day, (float(day),) * 4, None) for day in range(60)])
    assert np.isnan(contexts[:, NOW:]).all()
    assert not np.isnan(contexts[:, :NOW]).any()


def test_a_profile_survives_a_change_of_rate_and_holes_of_days():
    """By the hour and not by the row: a link that turns from a row an hour to one in ten seconds learns no faster, and forgets nothing."""
    day_s = utc_s(ZoneInfo("UTC"), 2026, 6, 1, 0)
    rows = hourly(day_s, [100.0] * 48)
    fast = [("n", day_s + 2 * 86_400.0 + 10.0 * k, (0.0,) * 4, None) for k in range(361)]  # hour 0 of Wednesday, and one row more
    assert both([*rows, *fast])[-2, NOW, X] == 100.0
    _, _, store = online([*rows, *fast])
    assert store.state()["profile"][0, 0, 0, X] == np.float32(100.0 - 100.0 / 3.0)
    later = [("n", day_s + 40 * 86_400.0 + 1800.0, (0.0,) * 4, None)]
    assert both([*rows, *later])[-1, NOW, X] == 100.0, "a hole of weeks"


def test_a_clock_that_was_wrong_costs_the_running_hour_alone():
    """After a rewind the profile is as it was, no value of the wrong clock enters it, and hours go on from the right time."""
    day_s = utc_s(ZoneInfo("UTC"), 2026, 6, 1, 0)
    _, _, store = online([*hourly(day_s, [1.0] * 26), ("n", day_s + 900 * 86_400.0, (9e6,) * 4, None)])
    before = store.state()
    store.rewind(np.zeros(1, np.int32), day_s + 26 * 3600.0)
    assert store.state()["profile"].tobytes() == before["profile"].tobytes()
    batch = batch_of(hourly(day_s + 27 * 3600.0, [1.0, 1.0, 1.0]), 100)
    found = store.update(batch, store.resolve(batch), np.ones(1, np.bool_), None, HORIZONS)
    assert len(found.accepted) == 3
    assert set(store.state()["profile"][:, :, :, X].ravel().tolist()) == {0.0, 1.0}
    assert found.context[-1, NOW, X] == 1.0


def test_an_evicted_link_is_forgotten_and_the_others_keep_their_memory():
    """A link that comes again after its eviction starts cold, in whatever slot."""
    store = FeatureStore(("node_id",), links_max=8)
    day_s = utc_s(ZoneInfo("UTC"), 2026, 6, 1, 0)
    for node in "abcdefgh":
        batch = batch_of(
            [(node, at_s, numbers, name) for _, at_s, numbers, name in hourly(day_s, [float(ord(node))] * 26)], ord(node) * 100
        )
        store.update(batch, store.resolve(batch), np.zeros(len(store), np.bool_), None)
    stay = store.evict()
    assert stay.tolist() == [1, 2, 3, 4, 5, 6, 7]
    batch = batch_of([(node, day_s + 27 * 3600.0, (1.0,) * 4, None) for node in "ba"], 100_000)
    context = store.update(batch, store.resolve(batch), np.ones(8, np.bool_), None, HORIZONS).context
    assert context[0, NOW, X] == float(ord("b"))
    assert np.isnan(context[1, NOW:]).all()


def test_a_link_goes_by_the_time_of_its_region():
    """The same rows in another region are at another hour: 21:30 UTC is 23:30 in Berlin, and the next day's morning on Lord Howe."""
    day_s = utc_s(ZoneInfo("UTC"), 2026, 6, 1, 0)
    hours = {name: online(hourly(day_s + 21 * 3600.0, [1.0, 1.0], name), local_time=PLACES)[2].state() for name in (None, "far", "utc")}
    found = {name: np.flatnonzero(state["folded"][0, 0, :, X]).tolist() for name, state in hours.items()}
    assert found == {None: [23], "utc": [21], "far": [8]}


def test_regions_that_alternate_do_not_end_an_hour():
    """One merged series of two regions: an hour ends at its own end, whatever the region of the rows in it."""
    rows: list[Row] = [("n", 1e9 - 1e9 % 3600.0 + 60.0 * k, (float(k),) * 4, ("far", "utc")[k % 2]) for k in range(91)]
    state = online(rows, local_time=PLACES)[2].state()
    assert state["folded"].sum() == len(TARGETS) * 2, "to half past, and to half past of the next hour"


def test_changes_of_offset_are_exact():
    """To the second, over a century, also where there are none."""
    zone = Zone.of(BERLIN)
    for at_s in (utc_s(BERLIN, 2026, 3, 29, 3), utc_s(BERLIN, 2026, 10, 25, 3) - 3600.0):
        assert at_s in zone.since_s
    for at_s in np.random.default_rng(3).uniform(7e8, 4.1e9, 4_000):
        expected = datetime.fromtimestamp(float(at_s), BERLIN).utcoffset()
        index = np.searchsorted(zone.since_s, at_s, side="right") - 1
        assert timedelta(seconds=zone.offset_s[index]) == expected
    assert Zone.of(UTC_ZONE) == Zone()
    with pytest.raises(ValueError, match="an offset for each"):
        Zone((0.0,), (0.0,))


def test_names_that_are_forgotten_keep_the_place_of_the_others():
    """After `forget` the codes of regions stand for others; their places follow."""
    store = FeatureStore(("node_id",), names_max=8, local_time=PLACES)
    day_s = utc_s(ZoneInfo("UTC"), 2026, 6, 1, 21)
    names = ["a", "b", "c", "d", "e", "f", "far"]
    batch = batch_of([(f"n{name}", day_s, (1.0,) * 4, name) for name in names])
    store.update(batch, store.resolve(batch), np.zeros(7, np.bool_), None)
    new = batch_of([("x", day_s + 60.0, (1.0,) * 4, "new")], 10)
    assert not len(store.resolve(new))
    store.forget(CATEGORIES.index("region"))
    batch = batch_of([(f"n{name}", day_s + 3600.0, (1.0,) * 4, name) for name in names[1:]], 20)
    store.update(batch, store.resolve(batch), np.zeros(len(store), np.bool_), None)
    assert store.state()["hour_cell"][: len(names)].tolist()[-1] == 8
    assert store.state()["hour_cell"][1] == 24 % 24


def test_bytes_of_a_link():
    """As the docstrings say; the rings and the memory together leave room for detectors under 6,000 bytes a link."""
    size = {name: int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize for name, (shape, dtype) in RINGS.items()}
    assert sum(size[name] for name in MEMORY) == 1_161
    assert sum(size.values()) == 3_411
