"""The 44 features: against pandas, online against offline, and at the edges of a stream."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.definition import FEATURES, WINDOW_ROWS
from features.offline import RawTable, compute
from features.store import FeatureStore, link_name
from features.telemetry import CATEGORIES, NUMERIC, TelemetryBatch
from features.vocabulary import MAX_VALUES, OVERFLOW, Interner, Vocabulary

VOCABULARY = Vocabulary((("eu", "us"), ("a",), ("metro", "long-haul"), (), ("gold",), ("udp",)))


def make_batch(rows: list[tuple[str, float, list[float], list[str | None]]], first_offset: int = 0) -> TelemetryBatch:
    """A batch of (node, time, 11 numbers, 6 categories)."""
    return TelemetryBatch(
        offsets=np.arange(first_offset, first_offset + len(rows)),
        time_s=np.array([row[1] for row in rows], np.float64),
        numeric=np.array([row[2] for row in rows], np.float32).reshape(len(rows), len(NUMERIC)),
        node_id=[row[0] for row in rows],
        peer_id=["p"] * len(rows),
        categories=tuple([row[3][c] for row in rows] for c in range(len(CATEGORIES))),
    )


def run_online(rows, splits, vocabulary=VOCABULARY, gap_multiple=5.0):
    """Feeds the rows in batches cut at `splits`; returns (link, time) -> last feature row and whole window, and the accepted rows."""
    store, windows, accepted = FeatureStore(("node_id",), gap_multiple), {}, []
    cuts = [0, *sorted(splits), len(rows)]
    for begin, end in itertools.pairwise(cuts):
        batch = make_batch(rows[begin:end], begin)
        slots = store.resolve(batch)
        result = store.update(batch, slots, np.ones(len(store), np.bool_), vocabulary)
        assert len(result.watched) == len(result.accepted)
        for at, row in enumerate(result.accepted):
            accepted.append(begin + int(row))
            if result.ready[at]:
                windows[begin + int(row)] = result.windows[at]
    return windows, accepted


def offline_of(rows, accepted, gap_multiple=5.0):
    """The offline features of the accepted rows, by their position in `rows`."""
    order = sorted(accepted, key=lambda row: (rows[row][0], row))
    links = sorted({rows[row][0] for row in order})
    interner = Interner()
    table = RawTable(
        links=tuple(links),
        link=np.array([links.index(rows[row][0]) for row in order], np.int32),
        time_s=np.array([rows[row][1] for row in order]),
        numeric=np.array([rows[row][2] for row in order], np.float32).reshape(len(order), len(NUMERIC)),
        codes=interner.codes([[rows[row][3][c] for row in order] for c in range(len(CATEGORIES))]).astype(np.int32),
        values=tuple(tuple(values) for values in interner.values),
    )
    return order, compute(table, VOCABULARY, gap_multiple)


special = st.sampled_from([float("nan"), 5.0, 0.0, 1e9, 3.4e38])
value = st.one_of(special, st.floats(0, 1000, width=32), st.floats(0, 2.0**100, width=32))
step = st.one_of(st.just(60.0), st.just(60.0), st.just(60.0), st.just(0.0), st.just(-30.0), st.just(600.0), st.floats(0.001, 1e5))
category = st.sampled_from([None, "eu", "us", "a", "metro", "never seen"])
event = st.tuples(
    st.sampled_from(["n1", "n2"]), step, st.lists(value, min_size=11, max_size=11), st.lists(category, min_size=6, max_size=6)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(event, min_size=1, max_size=140), st.sets(st.integers(1, 139), max_size=6), st.data())
def test_online_equals_offline_on_any_stream(events, splits, data):
    """Bit for bit, with holes, spikes, constants, duplicates, late rows, gaps, and batches split anywhere."""
    steady = data.draw(st.booleans())  # long undisturbed runs as well, so that windows do become ready
    clock, rows = {"n1": 1e9, "n2": 1e9}, []
    for node, step_s, numbers, categories in events:
        node = "n1" if steady else node
        clock[node] += 60.0 if steady else step_s
        rows.append((node, clock[node], numbers, categories))
    windows, accepted = run_online(rows, {cut for cut in splits if cut < len(rows)})
    order, offline = offline_of(rows, accepted)
    place = {row: at for at, row in enumerate(order)}
    for row, window in windows.items():
        at = place[row]
        assert len(set(offline.run[at - WINDOW_ROWS + 1 : at + 1])) == 1
        np.testing.assert_array_equal(window, offline.features[at - WINDOW_ROWS + 1 : at + 1])
    # A window is ready exactly where the offline run holds 30 rows.
    expected = {
        row for row, at in place.items() if at >= WINDOW_ROWS - 1 and offline.run[at] == offline.run[at - WINDOW_ROWS + 1]
    }  # fmt: skip
    assert set(windows) == expected
    assert not np.isinf(offline.features).any()


@settings(max_examples=40, deadline=None)
@given(st.lists(event, min_size=1, max_size=60), st.sets(st.integers(1, 59), max_size=8))
def test_the_state_does_not_depend_on_the_batches(events, splits):
    """The rings after a stream in pieces are byte-identical to the rings after the stream at once."""
    clock, rows = {"n1": 1e9, "n2": 1e9}, []
    for node, step_s, numbers, categories in events:
        clock[node] += step_s
        rows.append((node, clock[node], numbers, categories))

    def state(cuts):
        store = FeatureStore(("node_id",))
        for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            batch = make_batch(rows[begin:end], begin)
            store.update(batch, store.resolve(batch), np.zeros(len(store), np.bool_), None)
        return store.state(), store.link_keys(), store.interner.values

    (whole, keys, values), (pieces, other_keys, other_values) = state([]), state(sorted(cut for cut in splits if cut < len(rows)))
    assert keys == other_keys
    assert values == other_values
    assert {name: ring.tobytes() for name, ring in whole.items()} == {name: ring.tobytes() for name, ring in pieces.items()}


def test_features_equal_an_independent_computation_with_pandas():
    """Every feature, on 400 rows with holes, within float32 rounding of pandas."""
    rng = np.random.default_rng(7)
    numbers = rng.gamma(2.0, 20.0, (400, len(NUMERIC)))
    numbers[:, 9], numbers[:, 10] = rng.uniform(0, 24, 400), rng.integers(0, 7, 400)
    numbers[rng.random(numbers.shape) < 0.15] = np.nan
    rows = [("n", 1e9 + 60.0 * i, list(numbers[i]), ["us", None, "metro", "x", "gold", "udp"]) for i in range(400)]
    _, offline = offline_of(rows, list(range(400)))
    raw = pd.DataFrame(numbers.astype(np.float32).astype(np.float64), columns=list(NUMERIC))
    expected = pd.DataFrame(index=raw.index)
    short = {"throughput_mbps": "throughput", "rtt_ms": "rtt", "packet_loss": "packet_loss", "jitter_ms": "jitter"}
    for name in NUMERIC:
        if name in FEATURES:
            expected[name] = raw[name]
    expected["bytes_total"] = raw.bytes_tx + raw.bytes_rx
    expected["bytes_ratio"] = raw.bytes_tx / (raw.bytes_rx + 1)
    expected["network_load"] = expected.bytes_total / (raw.throughput_mbps * 1e6 + 1)
    expected["congestion_score"] = 0.4 * raw.packet_loss + 0.3 * raw.queue_depth / 100 + 0.3 * raw.retransmits / 100
    codes = {"region": 2, "az": np.nan, "link_type": 1, "dwcp_mode": 0, "network_tier": 1, "transport_type": 1}
    for name, code in codes.items():
        expected[f"{name}_encoded"] = code
    for name, prefix in short.items():
        for rows_back in (3, 5, 10):
            expected[f"{prefix}_mean_{rows_back}"] = raw[name].rolling(rows_back, min_periods=1).mean()
        expected[f"{prefix}_change"] = raw[name].diff().fillna(0)
        expected[f"{prefix}_std_10"] = raw[name].rolling(10, min_periods=1).std(ddof=0)
    expected["hour_sin"], expected["hour_cos"] = np.sin(2 * np.pi * raw.time_of_day / 24), np.cos(2 * np.pi * raw.time_of_day / 24)
    expected["weekday_sin"], expected["weekday_cos"] = np.sin(2 * np.pi * raw.day_of_week / 7), np.cos(2 * np.pi * raw.day_of_week / 7)
    expected["rtt_ratio"] = raw.rtt_ms / raw.rtt_ms.rolling(10, min_periods=1).min()
    assert sorted(expected.columns) == sorted(FEATURES)
    np.testing.assert_allclose(offline.features, expected[list(FEATURES)].to_numpy(), rtol=2e-6, atol=1e-5)


def test_one_feature_row_by_hand():
    """Three rows of one link, computed on paper."""
    numbers = [
        [100, 20, 0.00, 2, 10, 50, 4, 3e6, 1e6, 6, 0],
        [110, 10, float("nan"), 2, 10, 50, 4, 3e6, 1e6, 6, 0],
        [90, 30, 0.02, 5, 10, 50, 4, 3e6, 1e6, 6, 0],
    ]
    _, offline = offline_of([("n", 1e9 + i, row, ["eu"] + [None] * 5) for i, row in enumerate(numbers)], [0, 1, 2])
    row = dict(zip(FEATURES, offline.features[2], strict=True))
    expected = {
        "throughput_mean_3": 100.0, "rtt_mean_10": 20.0, "packet_loss_mean_5": 0.01, "throughput_change": -20.0, "rtt_change": 20.0,
        "packet_loss_change": 0.0, "jitter_change": 3.0, "throughput_std_10": np.sqrt(200 / 3), "packet_loss_std_10": 0.01,
        "bytes_total": 4e6, "bytes_ratio": 3.0, "network_load": 4e6 / 9e7, "congestion_score": 0.008 + 0.15 + 0.012,
        "hour_sin": 1.0, "hour_cos": 0.0, "weekday_sin": 0.0, "weekday_cos": 1.0, "rtt_ratio": 3.0, "region_encoded": 1.0,
    }  # fmt: skip
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_spike_leaves_no_trace_once_it_is_out_of_the_window():
    """Ten rows after a spike of 1e9, every rolling statistic is what it would have been without it."""

    def last(spike: float):
        rows = [("n", 1e9 + i, [spike if i == 20 else 7.0 + i % 3] * 11, [None] * 6) for i in range(40)]
        return offline_of(rows, list(range(40)))[1].features[-1]

    np.testing.assert_array_equal(last(1e9), last(8.0))


@pytest.mark.parametrize(
    ("times", "statuses"),
    [
        ([0, 60, 60, 120], (1, 0)),
        ([0, 60, 30, 120], (0, 1)),
        ([0, 60, 30, 60, 120], (1, 1)),
    ],
)
def test_duplicates_and_late_rows_are_counted_and_skipped(times, statuses):
    """An equal timestamp is a duplicate, an earlier one is late; neither reaches the rings."""
    store = FeatureStore(("node_id",))
    batch = make_batch([("n", 1e9 + t, [1.0] * 11, [None] * 6) for t in times])
    result = store.update(batch, store.resolve(batch), np.zeros(1, np.bool_), None)
    assert (result.duplicates, result.late) == statuses
    assert len(result.accepted) == len(times) - sum(statuses)


def test_a_gap_restarts_the_window_and_a_new_rate_is_learnt():
    """Longer than 5 intervals is a gap; a link that goes from 60 s to 600 s for good restarts twice, then goes on."""
    times = [60.0 * i for i in range(12)]
    times += [times[-1] + 600.0 * (i + 1) for i in range(12)]
    store = FeatureStore(("node_id",))
    batch = make_batch([("n", 1e9 + t, [1.0] * 11, [None] * 6) for t in times])
    restarted = store.update(batch, store.resolve(batch), np.zeros(1, np.bool_), None).restarted
    assert list(np.flatnonzero(restarted)) == [12, 13]


def restarts_of(times):
    """The indices of the rows of one link before which a gap lies; offline the runs begin at the same rows."""
    rows = [("n", 1e9 + t, [1.0] * 11, [None] * 6) for t in times]
    store, batch = FeatureStore(("node_id",)), make_batch(rows)
    restarted = store.update(batch, store.resolve(batch), np.zeros(1, np.bool_), None).restarted
    _, offline = offline_of(rows, range(len(rows)))
    assert list(np.flatnonzero(np.diff(offline.run)) + 1) == list(np.flatnonzero(restarted))
    return list(np.flatnonzero(restarted))


def bursts_of(rows, count, pause_s=60.0):
    """Times of `count` bursts of so many rows, a row a second, with a pause after each."""
    return [burst * (rows + pause_s) + at for burst in range(count) for at in range(rows)]


def test_the_rhythm_of_a_link_is_no_gap():
    """Bursts of ten rows are one run once two pauses have shown the rhythm, of nineteen too. Of forty rows each is a run of its own.

    The same holds for bursts with pauses of one and five minutes, alternating.
    """
    assert restarts_of(bursts_of(10, 6)) == [10, 20]
    assert restarts_of(bursts_of(19, 4)) == [19, 38]
    assert restarts_of(bursts_of(40, 4)) == [40, 80, 120]
    by_turns = [t + 240.0 * (at // 20) for at, t in enumerate(bursts_of(10, 6))]
    assert restarts_of(by_turns) == [10, 20, 30, 40, 50]


def test_an_outage_ends_a_run_in_any_rhythm():
    """A pause of half an hour between bursts, again and again; after it the rhythm has to show itself anew."""
    times = bursts_of(10, 5)
    times += [times[-1] + 1_800.0 + t for t in bursts_of(10, 4)]
    times += [times[-1] + 1_800.0 + t for t in bursts_of(10, 2)]
    assert restarts_of(times) == [10, 20, 50, 60, 70, 90, 100]
    assert restarts_of([60.0 * at + 3_600.0 * (at // 60) for at in range(240)]) == [60, 120, 180], "an outage each hour"


def test_a_rhythm_is_one_links_and_is_forgotten_with_it():
    """The bursts of one link say nothing of another; a link whose clock was wrong begins anew."""
    rows = [("n", 1e9 + t, [1.0] * 11, [None] * 6) for t in bursts_of(10, 4)]
    other = [("m", 1e9 + 60.0 * at + (3_000.0 if at >= 30 else 0.0), [1.0] * 11, [None] * 6) for at in range(40)]
    store, batch = FeatureStore(("node_id",)), make_batch(rows + other)
    restarted = store.update(batch, store.resolve(batch), np.zeros(2, np.bool_), None).restarted
    assert list(np.flatnonzero(restarted)) == [10, 20, len(rows) + 30]
    state = store.state()
    assert state["pauses"].any(axis=1).tolist() == [True, True]
    store.rewind(np.array([0], np.int32), 1e9)
    assert store.state()["pauses"].any(axis=1).tolist() == [False, True]


def test_a_restored_store_goes_on_as_if_nothing_had_happened():
    """State out, state in: the next windows are the same."""
    rng = np.random.default_rng(3)
    rows = [(f"n{i % 3}", 1e9 + 20.0 * i, list(rng.gamma(2, 10, 11)), ["eu", None, "x", "y", None, "z"]) for i in range(200)]
    whole, _ = run_online(rows, [120])
    store = FeatureStore(("node_id",))
    batch = make_batch(rows[:120])
    store.update(batch, store.resolve(batch), np.zeros(3, np.bool_), None)
    restored = FeatureStore(("node_id",))
    restored.restore(store.link_keys(), store.interner.values, store.state(), store.evicted_through_s)
    batch = make_batch(rows[120:], 120)
    result = restored.update(batch, restored.resolve(batch), np.ones(3, np.bool_), VOCABULARY)
    for at, row in enumerate(result.accepted):
        np.testing.assert_array_equal(result.windows[at], whole[120 + int(row)])


def test_state_that_does_not_fit_is_refused():
    """A ring of another shape names itself instead of being misread."""
    store = FeatureStore(("node_id",))
    batch = make_batch([("n", 1e9, [1.0] * 11, [None] * 6)])
    store.update(batch, store.resolve(batch), np.zeros(1, np.bool_), None)
    state = store.state() | {"numeric": np.zeros((1, 12, 11), np.float32)}
    with pytest.raises(ValueError, match="state numeric"):
        FeatureStore(("node_id",)).restore(store.link_keys(), store.interner.values, state, store.evicted_through_s)


def test_a_merged_series_is_one_link():
    """All records belong to one link if the key is empty, from any node."""
    store = FeatureStore(())
    batch = make_batch([(f"n{i}", 1e9 + i, [1.0] * 11, [None] * 6) for i in range(40)])
    result = store.update(batch, store.resolve(batch), np.ones(1, np.bool_), VOCABULARY)
    assert store.links == ["(all)"]
    assert result.ready.sum() == 11


def test_link_names_are_unambiguous():
    """Parts that hold the separator do not collide."""
    assert link_name(("a|b", "c")) != link_name(("a", "b|c"))


def test_vocabulary_codes_never_change_their_meaning():
    """New values are appended; an unseen one is 0 and a missing one NaN."""
    extended = VOCABULARY.extended([{"ap", "eu"}, (), (), ("b", "a"), (), ()])
    assert extended.values[0] == ("eu", "us", "ap")
    assert extended.values[3] == ("a", "b")
    assert Vocabulary.from_json(extended.to_json()) == extended
    assert VOCABULARY.encoding([["us", "mars"], [], [], [], [], []])[0].tolist() == [2.0, 0.0]
    with pytest.raises(ValueError, match="keys"):
        Vocabulary.from_json({"region": []})


def test_a_stream_of_ever_new_categories_does_not_grow_without_bound():
    """Past 32,766 values of a category, new ones share one code."""
    interner = Interner()
    interner.codes([[f"r{i}" for i in range(MAX_VALUES + 50)]] + [[None] * (MAX_VALUES + 50)] * 5)
    assert len(interner.values[0]) == MAX_VALUES
    assert interner.values[0][-1] == OVERFLOW


def test_a_vocabulary_at_the_address_of_one_that_is_gone() -> None:
    """Codes come from the vocabulary that is given, not from one that was freed and whose place in memory it has taken."""

    def vocabulary(*values: str) -> Vocabulary:
        return Vocabulary.from_json({category: list(values) for category in CATEGORIES})

    store = FeatureStore()
    store.interner = Interner([["x", "y"] for _ in CATEGORIES])
    for _ in range(20):  # a freed object's place is usually given to the next one of its kind
        for values in (("x", "y"), ("y", "x")):
            np.testing.assert_array_equal(
                store._encoding(vocabulary(*values)), vocabulary(*values).encoding([["x", "y"]] * len(CATEGORIES))
            )
