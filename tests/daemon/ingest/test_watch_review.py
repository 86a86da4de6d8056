"""Links of long ago do not hold the places among the watched for good."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.ingest.partition import Pipeline
from daemon.ingest.settings import PipelineSettings
from daemon.operator.observer import Observer
from drift.link.monitored import PRESENT_S, SILENT_S, MonitoredList, MonitoringPolicy
from drift.link.sensitivity import Sensitivity
from features.telemetry import Partition
from model.buffer.rows import BufferWriter
from streams.source import RawBatch

NOW_S = 1_767_571_200.0


@pytest.mark.parametrize(
    ("per_region", "links_max", "always", "watched"),
    [
        (2, 9, (), ["a1", "b0", "c0", "a2"]),  # a is full: its silent link leaves, and its first link that waits comes
        (9, 3, (), ["a1", "b0", "a2"]),  # all are full: whoever is silent for longest leaves
        (9, 9, (), ["a0", "a1", "b0", "a2", "a3", "c0"]),  # there is room
        (2, 9, ("a0",), ["a0", "a1", "b0", "c0"]),  # a pinned one never leaves
    ],
)
def test_a_silent_link_gives_its_place_to_one_that_is_there(
    per_region: int, links_max: int, always: tuple[str, ...], watched: list[str]
) -> None:
    """Region a has two monitored links, one of them silent for a day, and two more that send; region c has one that came back."""
    links = ["a0", "a1", "b0", "a2", "a3", "c0"]
    silent_s = [SILENT_S + 60.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    watch = MonitoredList(MonitoringPolicy(links_per_region=per_region, links_max=links_max, always=always))
    watch.index, watch.regions = [0, 1, 2, -1, -1, -1], ["a", "a", "b"]
    watch.__post_init__()
    stay, joined = watch.review(links, NOW_S - np.array(silent_s), NOW_S, lambda slot: links[slot][0])
    by_index = {index: links[slot] for slot, index in enumerate(watch.index) if index >= 0}
    assert sorted(by_index.values()) == sorted(watched)
    assert [by_index[index] for index in range(len(stay))] == [["a0", "a1", "b0"][index] for index in stay.tolist()]
    assert joined == len(by_index) - len(stay)
    assert [watch.regions[index] for index in range(len(watch))] == [by_index[index][0] for index in range(len(watch))]


@pytest.mark.parametrize("silent", [0, 1])
def test_a_review_ends_when_no_place_is_left(silent: int) -> None:
    """A thousand links are there and find none: they are not looked at one by one."""
    links = [f"n{at}" for at in range(1000)]
    watch = MonitoredList(MonitoringPolicy(links_max=9))
    watch.follow(links, ["a"] * len(links))
    newest_s = np.full(len(links), NOW_S)
    newest_s[:silent] -= SILENT_S + 60.0
    looked: list[int] = []

    def region_of(slot: int) -> str:
        looked.append(slot)
        return "a"

    stay, joined = watch.review(links, newest_s, NOW_S, region_of)
    assert (stay.tolist(), joined) == (list(range(silent, 9)), silent)
    assert looked == [9][:silent]
    assert len(watch) == 9


ages = st.sampled_from([0.0, 0.0, PRESENT_S + 1.0, SILENT_S + 1.0, SILENT_S + 99.0])


@given(
    links=st.lists(st.tuples(st.sampled_from("abc"), ages, st.booleans()), max_size=40),
    per_region=st.integers(1, 6),
    links_max=st.integers(1, 12),
)
def test_a_review_keeps_the_bounds_and_takes_no_place_from_one_that_is_there(
    links: list[tuple[str, float, bool]], per_region: int, links_max: int
) -> None:
    """Whatever is watched: no bound is passed that held before, only silent links leave, and only such that are there join."""
    names = [f"{region}{at}" for at, (region, _, _) in enumerate(links)]
    watch = MonitoredList(MonitoringPolicy(links_per_region=per_region, links_max=links_max))
    for region, _, wants in links:
        fits = wants and len(watch) < links_max and watch.regions.count(region) < per_region
        watch.index.append(len(watch.regions) if fits else -1)
        watch.regions += [region] if fits else []
    watch.__post_init__()
    before = {name for name, index in zip(names, watch.index, strict=True) if index >= 0}
    age = {name: one[1] for name, one in zip(names, links, strict=True)}
    watch.review(names, NOW_S - np.array([one[1] for one in links], np.float64), NOW_S, lambda slot: links[slot][0])
    after = {name for name, index in zip(names, watch.index, strict=True) if index >= 0}
    assert len(after) == len(watch) <= links_max
    assert all(watch.regions.count(region) <= per_region for region in "abc")
    assert all(age[name] > SILENT_S for name in before - after)
    assert all(age[name] <= PRESENT_S for name in after - before)
    assert len(after) >= len(before)


def test_links_that_come_after_a_flood_are_watched_and_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred names that came once have all places. A day later the links that are there have them, at the same record however the
    stream is cut."""
    monkeypatch.setattr("daemon.ingest.pieces.REVIEW_RECORDS", 64)
    partition, settings = Partition("t", 0), PipelineSettings(("node_id",), 5.0, 1000, MonitoringPolicy(links_max=50), Sensitivity(), 60.0)
    records = [(f"flood-{at}", f"r{at}", at * 1.0) for at in range(100)]
    records += [(f"link-{at % 8}", "eu", 100.0 + 3600.0 * (at // 8)) for at in range(8 * 40)]
    lines = [
        json.dumps({"timestamp": NOW_S + at_s, "node_id": node, "peer_id": "p", "region": region, "rtt_ms": 1}).encode()
        for node, region, at_s in records
    ]

    def state_after(cuts: list[int]) -> tuple[bytes, list[str]]:
        reported: list[str] = []
        pipeline = Pipeline(
            partition, settings, BufferWriter(tmp_path, partition), lambda _version: None, Observer(lambda event, _: reported.append(event))
        )
        for begin, end in pairwise([0, *cuts, len(lines)]):
            pipeline.ingest(RawBatch(partition, range(begin, end), lines[begin:end]))
        taken = pipeline.snapshot()
        watched = [key[0] for key, index in zip(taken.document["keys"], taken.document["watch_index"], strict=True) if index >= 0]
        assert "watch_reviewed" in reported
        arrays = {name: array.tolist() for name, array in taken.arrays.items() if name.startswith("drift")}
        return msgspec.json.encode([taken.document["watch_index"], taken.document["watch_regions"], str(arrays)]), watched

    whole, watched = state_after([])
    assert {f"link-{at}" for at in range(8)} <= set(watched)
    assert len(watched) == 50
    for cuts in ([1, 64, 65, 200], list(range(7, 420, 7)), [300]):
        assert state_after(cuts)[0] == whole
