"""Detectors on residuals, the region quorum, incidents, and that none of it depends on batches or on the order of partitions."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift.link import CALIBRATION_ROWS, LinkDrift
from drift.messages import LinkAlarm, RegionSample
from drift.region import QuorumPolicy, RegionDrift
from drift.watch import WatchList, WatchPolicy

LEAST = np.full(4, 0.01, np.float32)


def feed(drift: LinkDrift, residuals: np.ndarray, start_s: float = 0.0, links: int = 1):
    """Feeds residuals (T, links, 4), one row a minute; gives (alarms, samples)."""
    alarms, samples = [], []
    for minute, values in enumerate(residuals.reshape(len(residuals), links, 4)):
        more = drift.update(
            list(range(links)),
            values.astype(np.float32),
            LEAST,
            np.full(links, start_s + 60.0 * minute),
            np.arange(links) + links * minute,
            [("eu", f"link-{i}", "metro") for i in range(links)],
        )
        alarms += more[0]
        samples += more[1]
    return alarms, samples


def noise(rows: int, links: int = 1, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.0, (rows, links, 4))


def test_no_alarm_on_noise():
    """20 links x 4 metrics x 1,500 rows of noise: at most one alarm (2.4 in 100,000 are expected)."""
    alarms, samples = feed(LinkDrift(1), noise(1500, 20), links=20)
    assert len(alarms) <= 1
    assert len(samples) == 20 * (1500 - CALIBRATION_ROWS)


@pytest.mark.parametrize(
    ("change", "detectors", "within_rows"),
    [
        (lambda x: x + 2.0, {"page_hinkley", "adwin"}, 40),
        (lambda x: x - 2.0, {"page_hinkley", "adwin"}, 40),
        (lambda x: 3.0 * x, {"adwin_abs", "adwin", "page_hinkley"}, 120),
    ],
)
@pytest.mark.parametrize("before", [None, float("nan"), float("inf"), 1e30, 0.0])
def test_a_change_is_found_whatever_came_before(change, detectors, within_rows, before):
    """Not finite, huge or constant residuals never poison a detector: a real shift afterwards still alarms, in the right direction."""
    residuals = noise(500)
    if before is not None:
        residuals[CALIBRATION_ROWS + 20 : CALIBRATION_ROWS + 25] = before
    residuals[350:] = change(residuals[350:])
    alarms = [alarm for alarm in feed(LinkDrift(1), residuals)[0] if alarm.time_s >= 350 * 60]
    first = [alarm for alarm in alarms if alarm.time_s < (350 + within_rows) * 60]
    assert {alarm.metric for alarm in first} == {0, 1, 2, 3}
    assert {alarm.detector for alarm in first} <= detectors
    if change(np.zeros(1))[0]:
        assert all(np.sign(alarm.size_sigma) == np.sign(change(np.zeros(1))[0]) for alarm in first)


def test_a_constant_metric_does_not_alarm_on_rounding():
    """A residual that was exactly constant has the floor for a scale: noise far below it is nothing."""
    residuals = np.zeros((400, 1, 4))
    residuals[200:] = 1e-5 * noise(200)
    assert feed(LinkDrift(1), residuals)[0] == []


def test_link_state_goes_through_msgpack_and_back():
    """The state is data, and a restored stage gives the very same alarms and samples."""
    residuals = noise(700, 3)
    residuals[500:] += 1.0
    whole = LinkDrift(1)
    expected = feed(whole, residuals, links=3)
    half = LinkDrift(1)
    first = feed(half, residuals[:450], links=3)
    restored = LinkDrift.restored(msgspec.msgpack.decode(msgspec.msgpack.encode(half.state())))
    second_alarms, second_samples = [], []
    for minute in range(450, 700):
        more = restored.update(
            [0, 1, 2], residuals[minute].astype(np.float32), LEAST, np.full(3, 60.0 * minute), np.arange(3) + 3 * minute,
            [("eu", f"link-{i}", "metro") for i in range(3)],
        )  # fmt: skip
        second_alarms += more[0]
        second_samples += more[1]
    assert (first[0] + second_alarms, first[1] + second_samples) == expected
    assert restored.state() == whole.state()


def test_a_new_model_starts_from_its_own_residuals():
    """After a swap the links calibrate anew: another level of residuals is no drift."""
    drift = LinkDrift(1)
    feed(drift, noise(300))
    drift.restart(2)
    alarms, samples = feed(drift, 5.0 + 4.0 * noise(300, seed=2), start_s=300 * 60)
    assert alarms == []
    assert {sample.epoch for sample in samples} == {2}


def alarm(minute: float, link: str, region: str = "eu", metric: int = 1, epoch: int = 1, offset: int = 0) -> LinkAlarm:
    return LinkAlarm(60.0 * minute, region, link, "metro", metric, "page_hinkley", 2.0, 18.0, offset, epoch)


def sample(minute: float, link: str, region: str = "eu", level: float = 0.8, epoch: int = 1) -> RegionSample:
    return RegionSample(60.0 * minute, region, link, (level, level, None, level), epoch)


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
    """A region drifts when max(3, 2 %) of its watched links alarm within 30 minutes."""
    messages = [sample(0, f"l{i}") for i in range(watched)] + [alarm(1 + i, f"l{i}") for i in range(alarming)]
    changes = run(messages, [60.0 * minute for minute in range(20)])
    assert [change.kind for change in changes] == (["opened"] if opens else [])
    if opens:
        assert changes[0].metrics[0].metric == "rtt_ms"
        assert changes[0].metrics[0].size == 18.0
        assert changes[0].affected_links == alarming


def test_alarms_spread_over_more_than_the_window_are_no_incident():
    """Three alarms in an hour are chance, not a quorum."""
    assert run([alarm(25.0 * i, f"l{i}") for i in range(3)], [60.0 * minute for minute in range(100)]) == []


def test_alarms_of_one_link_count_once():
    """A single link gone bad is not its region."""
    assert run([alarm(i, "l0") for i in range(10)], [60.0 * minute for minute in range(20)]) == []


def test_one_incident_is_opened_updated_and_closed():
    """The id stays; the sequence counts; growth is an update; quiet closes it at the time at which it ended."""
    messages = [alarm(1, f"l{i}") for i in range(3)] + [alarm(9, f"m{i}") for i in range(5)] + [alarm(12, "l0", metric=3)]
    changes = run(messages, [60.0 * minute for minute in range(200)])
    assert [(change.kind, change.sequence) for change in changes] == [("opened", 0), ("updated", 1), ("closed", 2)]
    assert len({change.id for change in changes}) == 1
    assert changes[1].affected_links == 8
    assert changes[2].time_s == 13 * 60.0 + QuorumPolicy().quiet_s


def test_the_regions_own_level_opens_an_incident_where_links_are_few():
    """Two links can never reach a quorum of three: ADWIN on the mean absolute residual does it, for a rise only."""
    rng = np.random.default_rng(5)

    def stream(factor):
        return [
            sample(minute, link, level=float(abs(rng.normal())) * (factor if minute >= 400 else 1.0))
            for minute in range(800)
            for link in ("a", "b")
        ]

    changes = run(stream(3.0), [60.0 * minute for minute in range(801)])
    assert changes[0].kind == "opened"
    assert changes[0].cause == "adwin"
    assert 400 <= changes[0].time_s / 60 <= 480
    assert run(stream(0.2), [60.0 * minute for minute in range(801)]) == []


def test_a_swap_forgets_alarms_of_the_old_model():
    """Alarms of the old epoch do not add up with those of the new one."""
    messages = [alarm(1, "a"), alarm(2, "b"), alarm(3, "c", epoch=2)]
    assert run(messages, [60.0 * minute for minute in range(20)]) == []


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
                [sample(minute + rng.random(), link, region=f"r{p % 2}", level=float(abs(rng.normal())) * (1 if minute < 90 else 8))]
                + ([alarm(minute + rng.random(), link, region=f"r{p % 2}", offset=minute)] if rng.random() < 0.02 else [])
            )
        ]
        for p in range(3)
    ]
    policy = QuorumPolicy(links_min=2, quiet_s=1200)

    def play(steps, restart_at):
        drift, changes, at, clocks = RegionDrift(policy), [], [0, 0, 0], [0.0, 0.0, 0.0]
        for count, (partition, size) in enumerate(itertools.chain(steps, [(p, 10_000) for p in range(3)])):
            batch = partitions[partition][at[partition] : at[partition] + size]
            at[partition] += size
            drift.observe([m for m in batch if isinstance(m, LinkAlarm)], [m for m in batch if isinstance(m, RegionSample)])
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
    assert any(change.kind == "opened" for change in expected)


def test_ten_thousand_regions_and_a_region_with_one_link():
    """Regions cost little, and one link alone never opens an incident by quorum."""
    changes = run([alarm(1, "only", region=f"r{i}") for i in range(10_000)], [0.0, 600.0])
    assert changes == []


def test_a_link_with_ever_new_regions_does_not_fill_the_memory(monkeypatch):
    """Those that were not seen for longest are forgotten, one with an open incident last; a restart at any minute changes nothing."""
    monkeypatch.setattr("drift.region.REGIONS_MAX", 16)
    drift = RegionDrift()
    drift.observe([alarm(0, f"link{at}") for at in range(3)], [])
    for minute in range(200):
        again = RegionDrift.restored(drift.state())
        for one in (drift, again):
            one.observe([], [sample(minute, "link", region=f"new{minute:03}")])
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
