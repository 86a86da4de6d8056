"""The region quorum and incidents: alerts to an operator, each sent once, independent of batches, partitions, restarts and processes."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift.messages import SIGNALS, LinkAlarm, LinkSeen
from drift.region.policy import QuorumPolicy
from drift.region.stage import RegionDrift
from testkit import drifting

DAY, noise, stages = drifting.DAY, drifting.noise, drifting.stages
alarm, seen, fleet, run = drifting.alarm, drifting.seen, drifting.fleet, drifting.run


@pytest.mark.parametrize(
    ("alarming", "watched", "opens"),
    [(2, 10, False), (3, 10, True), (5, 300, False), (6, 300, True), (3, 3, True)],
)
def test_quorum(alarming, watched, opens):
    """A region drifts when max(3, 2 %) of its monitored links alarm within 30 minutes, in one direction of one metric."""
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


@pytest.mark.parametrize(
    ("noticing", "watched", "apart", "opens"),
    [(4, 25, 0, True), (3, 25, 0, False), (6, 25, 4, False), (7, 25, 4, True), (7, 100, 0, False), (8, 100, 0, True)],
)
def test_many_links_that_only_notice_something_are_no_chance(noticing, watched, apart, opens):
    """The fewer, the closer together their changes must be. apart: minutes between two of them."""
    messages = fleet(watched) + [
        replace(alarm(20 + 0.5 * i, f"l{i}", since=2 + apart * i), noticed=True) for i in range(noticing)
    ]  # fmt: skip
    assert bool(run(messages, [60.0 * minute for minute in range(30)])) is opens


def test_a_notice_that_is_withdrawn_counts_no_more():
    messages = fleet(25) + [replace(alarm(5 + 0.1 * i, f"l{i}", since=2), noticed=True) for i in range(3)]
    messages += [alarm(7 + 0.1 * i, f"l{i}", direction=-1, over=True) for i in range(3)]
    messages += [replace(alarm(9, "l3", since=2), noticed=True)]
    assert run(messages, [60.0 * minute for minute in range(20)]) == []


def test_links_that_find_one_change_late_are_together():
    """An alarm that is not withdrawn counts three times as long with others of the same time."""
    at_once = [alarm(5 + 35 * i, f"l{i}", since=2) for i in range(3)]
    assert next(one.kind for one in run(fleet(10, 90) + at_once, [60.0 * minute for minute in range(90)])) == "opened"


def test_two_detectors_that_agree_are_an_incident_of_their_link():
    """Neither is sure by itself. A later change is another one."""
    own = alarm(5, "l0", since=2)
    for since, opens in ((3, True), (90, False)):
        other = replace(alarm(100, "l0", since=since), detector="level")
        changes = run([*fleet(10, 120), own, other], [60.0 * minute for minute in range(110)])
        assert bool(changes) is (opens and other.time_s - own.time_s < 3 * 1800)
    near = replace(alarm(40, "l0", since=3), detector="level")
    (opened,) = run([*fleet(10, 60), own, near], [60.0 * minute for minute in range(60)])
    assert (opened.scope, opened.links) == ("link", ("l0",))


def test_all_links_are_sent_when_they_are_known():
    """Half an hour after the opening: four links more are not half as many again."""
    messages = fleet(40, 90) + [alarm(3, f"l{i}") for i in range(10)] + [alarm(12 + i, f"l{10 + i}") for i in range(4)]
    changes = run(messages, [60.0 * minute for minute in range(60)])
    assert [(change.kind, change.affected_links) for change in changes] == [("opened", 10), ("updated", 14)]
    assert changes[1].time_s - changes[0].time_s == 1800.0


def test_a_person_would_name_the_level_first():
    """A re-route moves RTT and widens the jitter: that is what is said first, whatever has more standard deviations."""
    messages = (
        fleet(20) + [alarm(3, f"l{i}", signal=3, aspect="spread", sigma=5.0) for i in range(9)] + [alarm(3, f"l{i}") for i in range(9)]
    )
    (change,) = run(messages, [60.0 * minute for minute in range(10)])
    assert [(one.signal, one.change) for one in change.signals] == [("rtt_ms", "shift"), ("jitter_ms", "spread")]


def test_far_more_incidents_than_the_budget_has_need_more_evidence():
    """After eleven in a week a link needs two detectors, and a region half as many links again; after a quiet week all is as before."""
    drift, kinds = RegionDrift(), []
    for hour in [*range(0, 33, 3), 33, 33 + 24 * 8]:
        begin = 60.0 * hour
        messages = [seen(begin + minute, f"l{at}") for minute in (0, 15) for at in range(10)]
        drift.observe([alarm(begin + 5, "l0", certain=True, offset=hour)], messages)
        kinds.append([one.kind for one in drift.advance(60.0 * (begin + 20))])
    assert kinds[:11] == [["opened"], *[["closed", "opened"]] * 10]
    assert kinds[11] == ["closed"]
    assert kinds[12] == ["opened"]
    assert drift.strictness == 0
    assert [QuorumPolicy().strictness(opened, 25) for opened in (10, 11, 31, 102)] == [0, 1, 2, 3]
    assert [QuorumPolicy().quorum(10, strictness) for strictness in range(4)] == [3, 5, 6, 8]


def test_a_small_region_can_be_an_incident_whatever_came_before():
    """However strictly: no quorum is larger than a region, and what its data lack is not a matter of chance."""
    policy = QuorumPolicy()
    assert [policy.quorum(3, strictness) for strictness in range(4)] == [3, 3, 3, 3]
    assert [policy.quorum(100, strictness) for strictness in range(4)] == [3, 5, 6, 8]


def test_large_changes_are_not_hidden_by_small_ones_before():
    """Three links of a hundred, each with a small alarm first."""
    messages = fleet(100, 120)
    for i in range(3):
        messages += [replace(alarm(5 + 25 * i, f"l{i}", since=0), small=True), alarm(6 + 25 * i, f"l{i}", since=1)]
    assert run(messages, [60.0 * minute for minute in range(70)])[0].kind == "opened"


def test_a_new_value_of_a_category_is_its_links_alone():
    """A phone that comes to another cell is not its region, even if it is the only link there."""
    fault = replace(alarm(3, "l0", signal=SIGNALS.index("az"), aspect="category", certain=True), detector="data")
    (change,) = run([*fleet(1), fault], [60.0 * minute for minute in range(10)])
    assert (change.scope, change.links) == ("link", ("l0",))


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
    """It closes as recovered once most links have. Their return, early or late, is neither a new incident nor evidence of the old one."""
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
    """A little of the way, or one of two metrics, is not a recovery; nor is a link that has risen again."""
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
    """+50, then 400 the other way; and half of the way back. Both are reported, as changes of their own."""
    base = fleet(20, 90) + [alarm(1, f"l{i}", certain=True, size=50.0, sigma=10.0) for i in range(9)]
    for size in (450.0, 28.0):
        beyond = [alarm(45, f"l{i}", direction=-1, certain=True, size=size, sigma=size / 5, since=44) for i in range(9)]
        changes = run(base + beyond, [60.0 * minute for minute in range(60)])
        assert [change.kind for change in changes] == ["opened", "updated"]
        assert sorted((one.direction, one.size) for one in changes[-1].signals) == [(-1, -size), (1, 50.0)]


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
    """None of its regions keeps any: one more alarm of another link is not a quorum."""
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


def test_a_change_that_grows_is_told_again():
    """A change after a confirmed alarm is added to it: +2, and later +98 more, are +100, since the first."""
    messages = fleet(20, 90) + [alarm(1, f"l{i}", certain=True, size=2.0, sigma=2.0) for i in range(9)]
    messages += [alarm(41, f"l{i}", certain=True, size=98.0, sigma=98.0, since=40) for i in range(9)]
    changes = run(messages, [60.0 * minute for minute in range(60)])
    assert [(change.kind, change.signals[0].size) for change in changes] == [("opened", 2.0), ("updated", 100.0)]


def test_links_that_change_for_their_own_reasons_do_not_keep_an_incident_open():
    """One every 50 minutes is not part of what ten had at once, and the time of that stays what it is."""
    messages = fleet(40, 600) + [alarm(1, f"l{i}", certain=True) for i in range(10)]
    messages += [alarm(50 * n, f"l{10 + n}", certain=True) for n in range(1, 9)]
    changes = run(messages, [60.0 * minute for minute in range(600)])
    (closed,) = [change for change in changes if change.kind == "closed" and change.scope == "region"]
    assert closed.time_s <= 2 * 3600.0
    assert closed.affected_links == 10
    assert abs(closed.since_s - closed.opened_s) <= 400.0


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
    """An upgrade of producers in waves: alarms of later ones join, also those that single links have sent before the others."""
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
    """Up for nine rows, which is reported and never confirmed, then down for good: that is not a recovery."""
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


@pytest.mark.parametrize(("stays", "outcome"), [(True, "settled"), (False, "recovered")])
def test_a_change_that_only_the_model_has_followed_has_settled(stays, outcome):
    """Its residual fades before it is certain; the metric is where the change has brought it, or back as well."""
    residuals = noise(3 * DAY + 200, 50)
    actual = residuals.copy()
    fading = 2.5 * 0.9 ** np.arange(200)[:, None]
    residuals[3 * DAY :, :40, 1] += fading
    actual[3 * DAY :, :40, 1] += 2.5 if stays else fading
    changes = [change for change in stages(residuals, actual=actual) if change.scope == "region"]
    assert [change.outcome for change in changes if change.kind == "closed"] == [outcome]


def test_levels_that_a_spread_makes_do_not_end_it():
    """A few links whose spread has grown have a level that comes and goes."""
    messages = fleet(20, 90) + [alarm(20, f"l{i}", aspect="spread", certain=True, since=15) for i in range(15)]
    for link in ("l3", "l4", "l5"):
        messages += [alarm(24, link, since=20), alarm(32, link, direction=-1, over=True)]
    changes = run(messages, [60.0 * minute for minute in range(150)])
    assert [change.outcome for change in changes if change.kind == "closed"] == ["settled"]


def test_a_minority_that_went_the_other_way_for_good_is_a_change():
    """Twelve links rise and come back, six others fall and stay: the incident is not over."""
    messages = fleet(20, 120) + [alarm(20, f"l{i}", certain=True, since=18) for i in range(12)]
    messages += [alarm(20, f"l{i}", direction=-1, certain=True, since=18) for i in range(12, 18)]
    messages += [alarm(50, f"l{i}", direction=-1, certain=True, since=48) for i in range(12)]
    changes = run(messages, [60.0 * minute for minute in range(150)])
    assert [change.outcome for change in changes if change.kind == "closed"] == ["settled"]


def test_another_fault_of_the_same_column_is_one_of_its_own():
    """It was missing on ten links and is back, on five of them in another unit."""
    messages = fleet(20, 120) + [alarm(20, f"l{i}", aspect="missing", certain=True, size=0.0, sigma=0.0) for i in range(10)]
    messages += [alarm(40 + 10 * (i > 4), f"l{i}", aspect="missing", direction=-1, certain=True, size=0.0, sigma=0.0) for i in range(10)]
    messages += [alarm(45, f"l{i}", aspect="unit", certain=True, size=1000.0, sigma=0.0) for i in range(5)]
    changes = run(messages, [60.0 * minute for minute in range(100)])
    assert [(change.kind, len(change.signals)) for change in changes] == [("opened", 1), ("updated", 2)]


def test_a_much_larger_change_of_fewer_links_is_told():
    """Nine of ten links that had risen by two deviations fall by ten; and four stay there when the others are back."""
    base = fleet(20, 120) + [alarm(20, f"l{i}", certain=True, since=18, size=2.0, sigma=2.0) for i in range(10)]
    for links in (9, 4):
        messages = base + [alarm(40, f"l{i}", direction=-1, certain=True, since=38, size=10.0, sigma=10.0) for i in range(links)]
        messages += [alarm(50, f"l{i}", direction=-1, certain=True, since=48, size=2.0, sigma=2.0) for i in range(links, 10)]
        changes = run(messages, [60.0 * minute for minute in range(200)])
        assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("updated", ""), ("closed", "settled")]


def test_a_part_of_the_way_back_does_not_move_the_time_of_the_change():
    messages = fleet(20, 120) + [alarm(20, f"l{i}", certain=True, since=18, size=6.0, sigma=6.0) for i in range(10)]
    messages += [alarm(60, f"l{i}", direction=-1, certain=True, since=58, size=3.0, sigma=3.0) for i in range(10)]
    changes = run(messages, [60.0 * minute for minute in range(100)])
    assert [(change.kind, len(change.signals), change.since_s) for change in changes] == [
        ("opened", 1, 18 * 60.0),
        ("updated", 2, 18 * 60.0),
    ]


def test_dips_are_no_end():
    """Links that dip below a new level one after the other have not gone back, and so it is where many do at once."""
    base = fleet(20, 120) + [alarm(20, f"l{i}", certain=True, since=18, size=3.0, sigma=3.0) for i in range(10)]
    for apart in (0, 8):
        messages = base.copy()
        for i in range(8):
            begin = 40 + apart * (i // 2)
            messages += [alarm(begin, f"l{i}", direction=-1, size=3.0, sigma=3.0, since=begin - 2), alarm(begin + 6, f"l{i}", over=True)]
        changes = run(messages, [60.0 * minute for minute in range(200)])
        assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", "settled")]


def test_what_is_certain_is_not_undone_by_what_is_not():
    """A spread is reported as confirmed, and once more unconfirmed; a recovery overshoots, and the overshoot is withdrawn."""
    spread = fleet(20, 120) + [alarm(20, f"l{i}", aspect="spread", certain=True, since=15) for i in range(8)]
    spread += [alarm(40, f"l{i}", aspect="spread", since=38) for i in range(8)]
    spread += [alarm(50, f"l{i}", aspect="spread", direction=-1, over=True) for i in range(8)]
    back = fleet(20, 120) + [alarm(20, f"l{i}", certain=True, since=18, size=6.0, sigma=6.0) for i in range(10)]
    back += [alarm(40, f"l{i}", direction=-1, certain=True, since=38, size=6.0, sigma=6.0) for i in range(5)]
    back += [alarm(45, f"l{i}", direction=-1, since=43, size=3.0, sigma=3.0) for i in range(5)]
    back += [alarm(50, f"l{i}", over=True, since=50) for i in range(5)]
    back += [alarm(55, "l9", direction=-1, certain=True, since=53, size=6.0, sigma=6.0)]
    for messages, outcome in ((spread, "settled"), (back, "recovered")):
        changes = run(messages, [60.0 * minute for minute in range(200)])
        assert [change.outcome for change in changes if change.kind == "closed"] == [outcome]


def test_what_is_over_when_it_becomes_an_incident_has_recovered():
    """Three links one after the other, each back to normal before the last makes the quorum."""
    messages = fleet(20, 90)
    for i in range(3):
        messages += [alarm(20 + 6 * i, f"l{i}", since=15 + 6 * i), alarm(24 + 6 * i, f"l{i}", direction=-1, over=True)]
    changes = run(messages, [60.0 * minute for minute in range(150)])
    assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", "recovered")]
    assert changes[1].time_s <= 37 * 60.0
    again = [*messages, alarm(30.5, "l0", since=30), alarm(31, "l1", since=30)]
    assert [change.outcome for change in run(again, [60.0 * minute for minute in range(150)])] == ["", "settled"], "two rose once more"


def test_the_last_links_of_a_recovery_may_come_back_in_pieces():
    messages = fleet(20, 120) + [alarm(20, f"l{i}", certain=True, since=18, size=3.0, sigma=3.0) for i in range(10)]
    messages += [alarm(60, f"l{i}", direction=-1, certain=True, since=58, size=3.0, sigma=3.0) for i in range(8)]
    messages += [alarm(63, "l9", direction=-1, certain=True, since=30, size=1.1, sigma=1.1)]
    messages += [alarm(75, "l9", direction=-1, certain=True, since=64, size=2.1, sigma=2.1)]
    minutes = [60.0 * minute for minute in range(150)]
    assert [change.outcome for change in run(messages, minutes)] == ["", "recovered"]
    third = alarm(85, "l9", direction=-1, certain=True, since=80, size=4.0, sigma=4.0)
    assert [change.scope for change in run([*messages, third], minutes)][-1] == "link", "that is more than was left"


def test_another_signal_is_told_whenever_it_comes():
    """It may come in the bucket in which the incident opens, from a link that it does not affect, or later from all links."""
    base = fleet(20, 120) + [alarm(20, f"l{i}", certain=True, since=18) for i in range(15)]
    minutes = [60.0 * minute for minute in range(60)]
    (opened,) = run([*base, alarm(20, "l18", signal=2, certain=True, since=18)], minutes)
    assert [(one.signal, one.links) for one in opened.signals] == [("rtt_ms", 15), ("packet_loss", 1)]
    more = [alarm(22, "l0", signal=2, certain=True, since=20)]
    more += [alarm(45, f"l{i}", signal=2, certain=True, since=43) for i in range(15)]
    assert [change.signals[-1].links for change in run(base + more, minutes)] == [15, 1, 15]


def test_a_link_that_was_told_before_its_wave_is_taken_over():
    messages = fleet(20, 120) + [alarm(20, f"l{i}", certain=True, since=18) for i in range(6)]
    messages += [alarm(60, "l9", signal=2, certain=True, since=59)]
    messages += [alarm(62, f"l{i}", signal=2, certain=True, since=59) for i in (10, 11, 12)]
    changes = run(messages, [60.0 * minute for minute in range(80)])
    assert [(change.kind, change.scope, change.outcome) for change in changes] == [
        ("opened", "region", ""), ("opened", "link", ""), ("closed", "link", "region"), ("updated", "region", ""),
    ]  # fmt: skip
    assert [(one.signal, one.links) for one in changes[-1].signals] == [("rtt_ms", 6), ("packet_loss", 4)]


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
    assert [change.kind for change in changes] == ["opened", "updated", "closed"]
    assert changes[-1].affected_links == 21


def test_what_has_grown_since_it_was_told_is_told():
    """Not since the last alarm: a change that grows by little steps is one that grows."""
    messages = fleet(20, 440)
    for step in range(12):
        minute = 20 + 30 * step
        messages += [alarm(minute, f"l{i}", certain=True, size=3.0, sigma=3.0, since=minute - 1) for i in range(10)]
    changes = run(messages, [60.0 * minute for minute in range(360)])
    assert [change.signals[0].size for change in changes] == [3.0, 6.0, 12.0, 24.0]


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
    """A fault of the data does not depend on the model; but the fault of a category that the new model knows is over."""
    faulty = [alarm(5, f"l{at}", signal=4, aspect="missing", certain=True) for at in range(4)]
    changes = run([*fleet(10), *faulty, seen(5, "l0", epoch=2)], [60.0 * minute for minute in range(10)])
    assert [(change.kind, change.group) for change in changes] == [("opened", "data")]
    unknown = [alarm(3, f"l{at}", signal=14, aspect="category", certain=True) for at in range(4)]
    changes = run([*fleet(10), *unknown, seen(5, "l0", epoch=2)], [60.0 * minute for minute in range(10)])
    assert [(change.kind, change.outcome) for change in changes] == [("opened", ""), ("closed", "model_replaced")]


def test_most_regions_at_once_are_one_incident_of_the_fleet():
    """Four regions of six change within the window: their incidents become one, and the fifth joins it. The fourth, with which it is one,
    is not reported by itself."""
    messages = [seen(minute, f"{r}-{at}", r) for minute in (0, 15) for r in "abcdef" for at in range(5)]
    messages += [alarm(1 + i, f"{r}-{at}", r) for i, r in enumerate("abcde") for at in range(3)]
    changes = run(messages, [60.0 * minute for minute in range(80)])
    assert [(change.kind, change.scope, change.region, change.outcome) for change in changes] == [
        *[("opened", "region", r, "") for r in "abc"], *[("closed", "region", r, "fleet") for r in "abc"], ("opened", "fleet", "", ""),
        ("updated", "fleet", "", ""), ("closed", "fleet", "", "settled"),
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
    reported = [(change.kind, change.scope, change.outcome) for change in drift.advance(600.0)]
    assert reported[0] == ("opened", "link", "")
    assert reported[-2:] == [("closed", "link", "fleet"), ("opened", "fleet", "")]
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
    """Return a digest of the region stage after an incident of the fleet, one of a region that recovers, and alarms of many links."""
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
    path = [*sys.path, str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {path!r}; import test_incidents; print(test_incidents.digest_of_a_state())"
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
    monkeypatch.setattr("drift.region.stage.REGIONS_MAX", 16)
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
    assert list(drift.forgotten_links) == ["link"], "whose regions have gone is known by name"
