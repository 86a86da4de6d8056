"""Links that come in several partitions: split by a topic without keys, or moved when partitions were added. The two are distinguished
whatever the order in which partitions are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from daemon.ingest import spread as spread_module
from daemon.ingest.partition import Pipeline
from daemon.ingest.settings import PipelineSettings
from daemon.ingest.spread import FirstTimes, LinkSpans, LinkSpread
from daemon.operator.observer import Observer
from daemon.state.snapshot import Restored
from drift.link.monitored import MonitoringPolicy
from drift.link.sensitivity import Sensitivity
from features.telemetry import DEFAULT_LINK_KEY, Partition
from model.buffer.rows import BufferWriter
from streams.source import RawBatch

START_S = 1_790_000_000.0
LINKS = 3
Rows = list[tuple[int, int]]
"""Link and minute of each record of a partition, in order."""


class Topic:
    """The pipelines of a topic's partitions, and what is reported of the links in them."""

    def __init__(self, partitions: int, links_max: int = 100) -> None:
        self.reported: list[tuple[str, dict[str, Any]]] = []
        self.spread = LinkSpread(DEFAULT_LINK_KEY, lambda name, **fields: self.reported.append((name, fields)), clock=lambda: 0.0)
        settings = PipelineSettings(DEFAULT_LINK_KEY, 5.0, links_max, MonitoringPolicy(), Sensitivity.for_budget(1.0), 60.0)
        self.pipelines = {
            partition: Pipeline(partition, settings, BufferWriter(Path("unused"), partition), lambda _: None, Observer())
            for partition in (Partition("t", number) for number in range(partitions))
        }

    @property
    def spans(self) -> dict[Partition, LinkSpans]:
        return {partition: pipeline.spans for partition, pipeline in self.pipelines.items()}

    def take(self, number: int, rows: Rows) -> None:
        """Records of one partition come, and everything is looked at as it is once a second."""
        pipeline = self.pipelines[Partition("t", number)]
        values = [
            json.dumps({"timestamp": START_S + 60 * minute, "node_id": f"n{link}", "peer_id": "p", "rtt_ms": 20.0}).encode()
            for link, minute in rows
        ]
        begin = pipeline.next_offset or 0
        pipeline.ingest(RawBatch(pipeline.partition, range(begin, begin + len(values)), values))
        self.spread.arrived(pipeline.spans, self.spans.values())
        self.spread.look(self.spans)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for found, fields in self.reported if found == name]


def read(topic: Topic, rows_of: list[Rows], turns: list[tuple[int, int]]) -> None:
    """Partitions come in batches, in any order, to their ends. turns: partition and records of each batch; the rest comes at the end."""
    at = [0] * len(rows_of)
    for number, count in [*turns, *((number, 10**6) for number in range(len(rows_of)))]:
        if batch := rows_of[number][at[number] : at[number] + count]:
            topic.take(number, batch)
            at[number] += len(batch)


TURNS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), max_size=12)


@given(TURNS, st.integers(1, 59))
def test_links_that_move_are_never_split(turns: list[tuple[int, int]], minute: int) -> None:
    """Each link moves once to another partition, within the time in which producers hear of it: whatever is read first, it is not split."""
    rows_of: list[Rows] = [[], [], []]
    for now in range(60):
        for link in range(LINKS):
            rows_of[(link + (now >= minute + link)) % 3].append((link, now))
    topic = Topic(3)
    read(topic, rows_of, turns)
    for _ in range(3):
        topic.spread.look(topic.spans)
    assert topic.spread.split == 0
    assert topic.spread.trouble is None
    assert not topic.named("links_split")


@given(TURNS, st.permutations([0, 1, 2]))
def test_links_without_a_key_are_always_split(turns: list[tuple[int, int]], order: list[int]) -> None:
    """Rows go round the partitions: in the end every link is split, and the report names links, partitions and what to do."""
    rows_of: list[Rows] = [[], [], []]
    for now in range(60):
        for link in range(LINKS):
            rows_of[order[(now + link) % 3]].append((link, now))
    topic = Topic(3)
    read(topic, rows_of, turns)
    topic.spread.look(topic.spans)
    assert topic.spread.split == LINKS
    assert "key" in (topic.spread.trouble or "")
    reported = topic.named("links_split")[0]
    assert reported["examples"][0].startswith("n")
    assert "node_id, peer_id" in reported["todo"]


def test_a_link_that_has_moved_is_reported_once() -> None:
    """It says from where to where, and that nothing is to be done."""
    topic = Topic(2)
    topic.take(0, [(0, minute) for minute in range(30)] + [(1, minute) for minute in range(30)])
    topic.take(1, [(0, minute) for minute in range(30, 60)])
    topic.take(0, [(1, minute) for minute in range(30, 60)])
    reported = topic.named("links_moved")
    assert [(fields["links"], fields["examples"]) for fields in reported] == [(1, ["n0|p| from t-0 to t-1"])]
    assert topic.spread.moved == 1
    assert topic.spread.split == 0


def test_links_that_are_mended_are_no_trouble_any_more() -> None:
    """Once the producers use keys, an hour of the partitions' event time later nothing is said any more; if it begins again, it is said
    again."""
    topic = Topic(2)
    rows = [[(0, minute) for minute in range(0, 60, 2)], [(0, minute) for minute in range(1, 60, 2)]]
    read(topic, rows, [])
    assert topic.spread.split == 1
    topic.take(0, [(1, minute) for minute in range(60, 130)])
    topic.take(1, [(0, minute) for minute in range(60, 130)])
    topic.spread.look(topic.spans)
    assert (topic.spread.split, topic.spread.trouble) == (0, None)
    read(topic, [[(0, minute) for minute in range(130, 160, 2)], [(0, minute) for minute in range(131, 160, 2)]], [])
    assert len(topic.named("links_split")) == 2


def test_partitions_that_come_with_their_state() -> None:
    """After a restart both partitions know the link. One that had moved before is not reported again; one that is split is,
    when rows show it."""
    before = Topic(2)
    before.take(0, [(0, minute) for minute in range(30)] + [(1, minute) for minute in range(60)])
    before.take(1, [(0, minute) for minute in range(30, 60)] + [(1, minute) for minute in range(1, 61)])
    after = Topic(2)
    for partition, old in before.pipelines.items():
        state, pipeline = old.snapshot(), after.pipelines[partition]
        pipeline.restore(Restored("main", state.offset, json.loads(json.dumps(state.document)), state.arrays))
        after.spread.restored(pipeline.spans, after.spans.values())
    after.spread.look(after.spans)
    assert not after.reported
    after.take(0, [(1, minute) for minute in range(61, 80)])
    after.take(1, [(0, minute) for minute in range(61, 80)] + [(1, minute) for minute in range(61, 80)])
    ((example,),) = [fields["examples"] for fields in after.named("links_split")]
    assert example.startswith("n1|p| in ")
    assert not after.named("links_moved")


def test_a_partition_that_goes_takes_its_findings_along() -> None:
    """A partition that another member owns is not reported by this one."""
    topic = Topic(2)
    read(topic, [[(0, minute) for minute in range(0, 60, 2)], [(0, minute) for minute in range(1, 60, 2)]], [])
    assert topic.spread.split == 1
    topic.spread.gone({Partition("t", 1)})
    topic.spread.look(topic.spans)
    assert (topic.spread.split, topic.spread.trouble) == (0, None)


def test_links_that_are_forgotten_keep_the_others_first_times() -> None:
    """Slots are numbered anew when a full table makes room: what is known of the links that stay goes with them."""
    topic = Topic(2, links_max=8)
    topic.take(0, [(link, link) for link in range(8)])
    topic.take(0, [(7, 20), (100, 21)])
    pipeline = topic.pipelines[Partition("t", 0)]
    spans = {key[0]: pipeline.spans.span_of(key) for key in pipeline.spans.links()}
    assert spans["n7"] == (START_S + 60 * 7, START_S + 60 * 20)
    assert spans["n100"] == (START_S + 60 * 21, START_S + 60 * 21)
    assert spans.get("n0") is None


def test_many_links_are_followed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is of a few links, and the next one of the next few: all are looked at in the end, and no more are kept than the bound."""
    monkeypatch.setattr(spread_module, "LOOK_AT", 2)
    monkeypatch.setattr(spread_module, "LINKS_MAX", 5)
    topic = Topic(2)
    for number in (0, 1):
        topic.take(number, [(link, minute) for minute in range(number, 60, 2) for link in range(9)])
    for _ in range(4):
        topic.spread.look(topic.spans)
    assert topic.spread.split == 5


def test_links_that_have_moved_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """More links move, one after the other, than are followed at a time: all are counted, and one that is split after them is found."""
    monkeypatch.setattr(spread_module, "LINKS_MAX", 5)
    topic = Topic(2)
    for link in range(20):
        topic.take(0, [(link, minute) for minute in range(30)])
        topic.take(1, [(link, minute) for minute in range(30, 60)])
        topic.take(0, [(99, 60 + link)])
    assert (topic.spread.moved, topic.spread.split) == (20, 0)
    read(topic, [[(50, minute) for minute in range(100, 160, 2)], [(50, minute) for minute in range(101, 160, 2)]], [])
    assert topic.spread.split == 1


def test_a_link_is_looked_up_where_it_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links of other partitions are asked for nowhere else, so partitions that come cost what their own links do; those that were forgotten
    are not kept for ever; and what left and came back is compared with what stayed."""
    monkeypatch.setattr(spread_module, "KNOWN_MIN", 50)
    asked: list[Any] = []
    original = LinkSpans.span_of
    monkeypatch.setattr(LinkSpans, "span_of", lambda self, key: asked.append(key) or original(self, key))
    topic = Topic(4, links_max=10)
    for number in range(4):
        topic.take(number, [(10 * number + link, 0) for link in range(10)])
    for pipeline in topic.pipelines.values():
        topic.spread.restored(pipeline.spans, topic.spans.values())
    assert not asked
    for flood in range(100, 400):
        topic.take(3, [(flood, flood)])
    assert len(topic.spread._known) <= 2 * 50
    before = topic.pipelines[Partition("t", 1)]
    topic.take(0, [(10, minute) for minute in range(0, 60, 2)])
    topic.spread.gone({before.partition})
    topic.spread.restored(before.spans, topic.spans.values())
    topic.take(1, [(10, minute) for minute in range(1, 60, 2)])
    assert topic.spread.split == 1


def test_first_times_are_those_of_the_first_row() -> None:
    """If a batch has several rows of a new link, the first one counts; known links are not looked up again."""
    import numpy as np

    first = FirstTimes()
    first.follow(2, np.array([5.0, 6.0, 7.0]), np.array([0, 1, 0], np.int32))
    first.follow(2, np.array([9.0]), np.array([0], np.int32))
    assert (first.of(0), first.of(1), first.unreported(), first.unreported()) == (5.0, 6.0, 0, 2)


def test_a_topic_without_keys(
    kafka_broker: str, kafka_admin: KafkaAdminClient, kafka_topic: Callable[..., str], run: Callable[..., Any]
) -> None:
    """A daemon on a topic whose producer uses no keys reports that in events, metric and /readyz. Added partitions are reported, too."""
    topic = kafka_topic(partitions=2)
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for minute in range(60):
        row = {"timestamp": START_S + 60 * minute, "node_id": "x", "peer_id": "b", "rtt_ms": 20.0}
        producer.send(topic, json.dumps(row).encode(), partition=minute % 2)
    producer.flush()
    producer.close()
    daemon = run(kafka_broker, topic=topic, more="[kafka.options]\nmetadata_max_age_ms = 500")
    keyless = daemon.until(lambda: daemon.reported("records_without_key"))[0]
    assert (keyless["topic"], keyless["partitions"]) == (topic, 2)
    split = daemon.until(lambda: daemon.reported("links_split"))[0]
    assert (split["links"], split["partitions"]) == (1, [f"{topic}-0", f"{topic}-1"])
    daemon.until(lambda: "x|b|" in daemon.get("/readyz")[1])
    assert daemon.get("/readyz")[0] == 503
    assert "\ndwcp_links_split 1.0\n" in daemon.get("/metrics")[1]
    daemon.until(lambda: "\ndwcp_records_without_key_total 60.0\n" in daemon.get("/metrics")[1])
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    producer.send(topic, b"one more", partition=0)
    producer.flush()
    producer.close()
    daemon.until(lambda: "\ndwcp_records_without_key_total 61.0\n" in daemon.get("/metrics")[1])
    kafka_admin.create_partitions({topic: 3})
    added = daemon.until(lambda: daemon.reported("partitions_added"))[0]
    assert (added["before"], added["now"]) == (2, 3)
