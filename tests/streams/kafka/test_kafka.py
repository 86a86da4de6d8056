"""The Kafka source against Apache Kafka: groups, offsets, pausing, rebalances, and reports to the operator."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, MemberToRemove
from kafka.errors import KafkaTimeoutError

from features.telemetry import Partition
from streams.kafka import lag as kafka_lag
from streams.kafka.connection.client import BrokerClient
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.source import KafkaSource
from streams.kafka.watch import KafkaWatch
from streams.source import Polled, SourceError

PATIENCE_S = 300.0  # nothing here is a measurement: a busy machine may take its time

Topics = Callable[..., str]


class Reader:
    """A loop around one source that keeps the protocol; `state` stands for the store of checkpoints that members share."""

    def __init__(self, source: KafkaSource, events: list[tuple[str, dict[str, object]]], state: dict[Partition, int]) -> None:
        self.source = source
        self.events = events
        self.state = state
        self.values: dict[Partition, list[bytes | None]] = {}
        self.offsets: dict[Partition, list[int]] = {}
        self.owned: set[Partition] = set()
        self.next: dict[Partition, int] = {}
        self.log: list[str] = []
        self.held: frozenset[Partition] | None = None
        self.history: list[Polled] = []

    def step(self, timeout_s: float = 0.2) -> Polled:
        polled = self.source.poll(timeout_s)
        self.history.append(polled)
        self.owned -= polled.lost
        if polled.revoked:
            assert not polled.batches
            if self.held is None:
                self.give(polled.revoked)
            else:
                self.held = polled.revoked
        self.owned |= polled.assigned
        for partition in polled.assigned:
            self.log.append(f"take {partition}")
            self.source.seek(partition, self.state.get(partition))
        for batch in polled.batches:
            assert batch.partition in self.owned
            assert len(batch.offsets) == len(batch.values)
            self.values.setdefault(batch.partition, []).extend(batch.values)
            self.offsets.setdefault(batch.partition, []).extend(batch.offsets)
            self.next[batch.partition] = batch.offsets[-1] + 1
        return polled

    def give(self, partitions: frozenset[Partition]) -> None:
        for partition in partitions:
            self.log.append(f"give {partition}")
            self.state[partition] = self.next.get(partition, self.state.get(partition, 0))
        self.source.commit({partition: self.state[partition] for partition in partitions})
        self.source.release(partitions)
        self.owned -= partitions

    def until(self, condition: Callable[[], Any], *others: Reader, timeout_s: float = 0.2) -> None:
        """Steps, in turn with the others, until the condition holds. timeout_s: of each poll."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s, f"it did not happen within {PATIENCE_S:g} s; events so far: {self.events}"
            for reader in (self, *others):
                reader.step(timeout_s)

    def count(self) -> int:
        return sum(map(len, self.values.values()))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@pytest.fixture
def open_reader(kafka_broker: str) -> Iterator[Callable[..., Reader]]:
    """open_reader(topic, group=..., state=..., client=..., **arguments of KafkaSource); closes all at the end."""
    readers = []

    def make(
        topic: str, group: str | None = None, state: dict[Partition, int] | None = None, options: KafkaOptions | None = None, **more: Any
    ) -> Reader:
        events: list[tuple[str, dict[str, object]]] = []
        source = KafkaSource(
            topic,
            group or f"group.{uuid.uuid4().hex[:8]}",
            options or KafkaOptions((kafka_broker,)),
            lambda name, fields: events.append((name, fields)),
            **more,
        )
        readers.append(Reader(source, events, {} if state is None else state))
        return readers[-1]

    yield make
    for reader in readers:
        reader.source.close()


@pytest.fixture
def produce(kafka_broker: str) -> Callable[..., None]:
    """produce(topic, values, partition=0, **producer options): writes the values in order and waits until they are there."""

    def write(topic: str, values: list[bytes], partition: int = 0, **config: Any) -> None:
        producer = KafkaProducer(bootstrap_servers=kafka_broker, linger_ms=20, max_request_size=20_000_000, **config)
        for value in values:
            producer.send(topic, value, key=b"key", partition=partition)
        producer.flush()
        producer.close()

    return write


def numbered(count: int, name: str = "v") -> list[bytes]:
    return [b"%s%d" % (name.encode(), number) for number in range(count)]


def test_records_come_after_the_seek_and_a_second_run_goes_on(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None]
) -> None:
    """A new group reads each partition from its start, nothing before its seek; the next run starts at the committed offsets."""
    topic, group = kafka_topic(partitions=2), f"group.{uuid.uuid4().hex[:8]}"
    for partition in (0, 1):
        produce(topic, numbered(100, f"p{partition}-"), partition)
    first = open_reader(topic, group)
    while not (polled := first.source.poll(0.2)).assigned:
        assert not polled.batches
    assert first.source.generation() == 1  # a checkpoint of these partitions is fenced from the start
    for _ in range(5):
        assert not first.source.poll(0.2).batches  # assigned, but not told where to start
    for assigned in polled.assigned:
        first.source.seek(assigned, None)
    first.owned |= polled.assigned
    first.until(lambda: first.count() == 200)
    assert first.values == {Partition(topic, p): numbered(100, f"p{p}-") for p in (0, 1)}
    assert first.offsets[Partition(topic, 1)] == list(range(100))
    first.source.commit({Partition(topic, 0): 100, Partition(topic, 1): 60})
    first.source.close()
    second = open_reader(topic, group)
    second.until(lambda: second.count() == 40)
    assert second.values == {Partition(topic, 1): numbered(100, "p1-")[60:]}
    assert first.names() == second.names() == ["kafka_connected"]


def test_a_checkpoint_outranks_the_committed_offset(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None], kafka_admin: KafkaAdminClient
) -> None:
    """seek(offset) is where the records come from, forwards and backwards; a commit arrives at the broker for lag monitors."""
    topic, group = kafka_topic(), f"group.{uuid.uuid4().hex[:8]}"
    produce(topic, numbered(50))
    only = Partition(topic, 0)
    first = open_reader(topic, group, state={only: 30})
    first.until(lambda: first.count() == 20)
    assert first.offsets[only] == list(range(30, 50))
    first.source.seek(only, 10)
    first.until(lambda: first.count() == 60)
    assert first.values[only][20:] == numbered(50)[10:]
    first.source.commit({only: 45})
    first.source.close()
    assert kafka_admin.list_group_offsets({group: None})[group][TopicPartition(topic, 0)].offset == 45
    second = open_reader(topic, group, state={only: 48})
    second.until(lambda: second.count() == 2)


def test_a_seek_that_cannot_be_meant_is_refused(kafka_topic: Topics, open_reader: Callable[..., Reader]) -> None:
    """A partition that this member does not have, a negative offset, and a poll after close are errors of the caller."""
    reader = open_reader(kafka_topic())
    reader.until(lambda: reader.owned)
    with pytest.raises(ValueError, match="other-3, which is not assigned"):
        reader.source.seek(Partition("other", 3), 0)
    with pytest.raises(ValueError, match="offsets begin at 0"):
        reader.source.seek(next(iter(reader.owned)), -1)
    reader.source.close()
    reader.source.close()
    with pytest.raises(ValueError, match="after close"):
        reader.source.poll(0.1)


def test_pause_stops_records_and_nothing_else(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None], kafka_admin: KafkaAdminClient
) -> None:
    """While paused no record comes, not of a partition that is assigned meanwhile either; resume brings all, each once."""
    topic = kafka_topic()
    produce(topic, numbered(1000))
    reader = open_reader(topic, max_records=100)
    reader.until(lambda: reader.count())
    reader.source.pause()
    before = reader.count()
    kafka_admin.create_partitions({topic: 2})
    reader.source._member._client.cluster.request_update()  # type: ignore[union-attr]  # or it is seen within a minute
    reader.until(lambda: len(reader.owned) == 2)
    produce(topic, numbered(10), partition=1)
    for _ in range(5):
        reader.step()
    assert reader.count() == before
    reader.until(lambda: reader.source.lag() == 1010 - before)
    reader.source.resume()
    reader.until(lambda: reader.count() >= 1010)
    assert reader.values == {Partition(topic, 0): numbered(1000), Partition(topic, 1): numbered(10)}
    reader.until(lambda: reader.source.lag() == 0)
    assert reader.source.healthy()


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_is_read(
    codec: str | None, kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None]
) -> None:
    """Producers choose their codec; the records arrive as they were written, tombstones too."""
    topic = kafka_topic()
    values = [b'{"n":%d,"pad":"%s"}' % (n, b"x" * 400) for n in range(500)]
    produce(topic, values, compression_type=codec)
    reader = open_reader(topic)
    reader.until(lambda: reader.count() == 500)
    assert reader.values[Partition(topic, 0)] == values


def test_a_huge_record_does_not_stop_the_stream(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None]
) -> None:
    """A record of 10 MB, more than one fetch takes, arrives whole, and so do those before and behind it."""
    topic = kafka_topic()
    huge = b"h" * 10_000_000
    produce(topic, [*numbered(10, "a"), huge, *numbered(10, "b")])
    reader = open_reader(topic)
    reader.until(lambda: reader.count() == 21)
    assert reader.values[Partition(topic, 0)] == [*numbered(10, "a"), huge, *numbered(10, "b")]


def test_aborted_records_are_not_read(kafka_broker: str, kafka_topic: Topics, open_reader: Callable[..., Reader]) -> None:
    """Records of an aborted transaction never arrive, and the holes that they leave in the offsets are kept exactly."""
    topic = kafka_topic()
    producer = KafkaProducer(bootstrap_servers=kafka_broker, transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    for commit in (True, False, True):
        producer.begin_transaction()
        for value in numbered(5, "yes" if commit else "no"):
            producer.send(topic, value, partition=0)
        producer.flush()
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close()
    reader = open_reader(topic)
    reader.until(lambda: reader.count() == 10)
    assert reader.values[Partition(topic, 0)] == numbered(5, "yes") * 2
    assert reader.offsets[Partition(topic, 0)] == [*range(5), *range(12, 17)]  # a marker ends each transaction


def test_deleted_records_are_an_error_that_says_so(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None], kafka_admin: KafkaAdminClient
) -> None:
    """When retention has overtaken the checkpoint nothing is skipped in silence, and the error stays until a restart."""
    topic = kafka_topic()
    produce(topic, numbered(100))
    kafka_admin.delete_records({TopicPartition(topic, 0): 40})
    reader = open_reader(topic, state={Partition(topic, 0): 25})
    with pytest.raises(SourceError, match=rf"offset 25 of {topic}-0 is gone: it holds 40 to 100 now .* accept_lost_records = true"):
        reader.until(lambda: reader.count())
    assert not reader.source.healthy()
    with pytest.raises(SourceError, match="offset 25"):
        reader.step()
    assert reader.count() == 0


@pytest.mark.parametrize("checkpoint", [25, 250])
def test_deleted_records_can_be_accepted(
    checkpoint: int,
    kafka_topic: Topics,
    open_reader: Callable[..., Reader],
    produce: Callable[..., None],
    kafka_admin: KafkaAdminClient,
) -> None:
    """An operator who has accepted the loss gets the records that are left, and an event with the gap. Offsets never go back."""
    topic = kafka_topic()
    produce(topic, numbered(100))
    kafka_admin.delete_records({TopicPartition(topic, 0): 40})
    reader = open_reader(topic, state={Partition(topic, 0): checkpoint}, accept_lost_records=True)
    reader.until(lambda: reader.count() == 60)
    assert reader.values[Partition(topic, 0)] == numbered(100)[40:]
    begin = max(checkpoint, 40)
    assert reader.offsets[Partition(topic, 0)] == list(range(begin, begin + 60))
    reader.source.commit({Partition(topic, 0): begin + 60})
    reader.source.close()
    group = reader.source._member._group_id
    assert kafka_admin.list_group_offsets({group: None})[group][TopicPartition(topic, 0)].offset == 100  # its own, for lag monitors
    cause = "deleted by retention" if checkpoint < 40 else "the log is shorter than before"
    gap = {"partition": f"{topic}-0", "wanted_offset": checkpoint, "next_offset": 40, "end_offset": 100, "cause": cause}
    assert ("records_lost", gap) in reader.events


def test_a_missing_topic_is_waited_for_and_never_created(
    open_reader: Callable[..., Reader], produce: Callable[..., None], kafka_admin: KafkaAdminClient
) -> None:
    """The operator is asked to create it, the broker (which creates topics by itself) does not, and then it is read."""
    topic = f"test.{uuid.uuid4().hex[:12]}"
    reader = open_reader(topic)
    reader.until(lambda: "topic_missing" in reader.names())
    assert f"create topic {topic}" in str(dict(reader.events)["topic_missing"]["todo"])
    assert not reader.source.healthy()
    assert topic not in kafka_admin.list_topics()
    kafka_admin.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
    produce(topic, numbered(10))
    reader.until(lambda: reader.count() == 10)
    assert reader.source.healthy()


def test_a_join_that_is_complete_before_the_next_poll(
    open_reader: Callable[..., Reader], kafka_admin: KafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic appears, the group is joined anew for it, the poll ends too early for that, and a busy machine is slow to begin the next
    one: the join is not forgotten."""
    topic = f"test.{uuid.uuid4().hex[:12]}"
    reader = open_reader(topic)
    reader.until(lambda: "topic_missing" in reader.names())
    look = KafkaWatch.look

    def slow_look(watch: KafkaWatch, consumer: KafkaConsumer, client: BrokerClient) -> None:
        look(watch, consumer, client)
        time.sleep(0.3)

    monkeypatch.setattr(KafkaWatch, "look", slow_look)
    kafka_admin.create_topics({topic: {"num_partitions": 2}}, wait_for_metadata=True)
    reader.until(lambda: len(reader.owned) == 2, timeout_s=0.001)


def test_a_partition_moves_with_its_state(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None], kafka_admin: KafkaAdminClient
) -> None:
    """A second member joins: the first keeps half without a break, writes the state of the other half, and only after that does the
    second take it over, at exactly the record behind. It leaves, and its half comes back. Every record is read once."""
    topic, group = kafka_topic(partitions=4), f"group.{uuid.uuid4().hex[:8]}"
    state: dict[Partition, int] = {}
    first, second = (open_reader(topic, group, state) for _ in range(2))
    second.log = first.log
    for partition in range(4):
        produce(topic, numbered(300, "a"), partition)
    first.until(lambda: first.count() == 1200)
    generation = first.source.generation()

    first.until(lambda: len(first.owned) == 2 and len(second.owned) == 2, second)
    for partition in range(4):
        produce(topic, numbered(300, "b"), partition)
    first.until(lambda: first.count() + second.count() == 2400, second)
    assert sum(len(polled.revoked) for polled in first.history) == 2  # those that stayed were left alone
    moved = sorted(map(str, second.owned))
    assert sorted(first.log[4:6]) == [f"give {name}" for name in moved]
    assert sorted(first.log[6:8]) == [f"take {name}" for name in moved]
    assert second.source.generation() > generation
    assert kafka_admin.list_group_offsets({group: None})[group][TopicPartition(topic, next(iter(second.owned)).number)].offset == 300

    state.update(second.next)
    second.source.close()
    first.until(lambda: len(first.owned) == 4)
    for partition in range(4):
        produce(topic, numbered(300, "c"), partition)
    first.until(lambda: first.count() + second.count() == 3600)
    for owned in first.owned:
        read = first.values[owned][:300] + second.values.get(owned, []) + first.values[owned][300:]
        assert read == numbered(300, "a") + numbered(300, "b") + numbered(300, "c")


def test_a_partition_waits_until_it_is_released(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None]
) -> None:
    """A member that takes long over its state holds the partition meanwhile: its polls bring nothing, and the other member waits."""
    topic, group = kafka_topic(partitions=2), f"group.{uuid.uuid4().hex[:8]}"
    state: dict[Partition, int] = {}
    first, second = (open_reader(topic, group, state) for _ in range(2))
    first.until(lambda: len(first.owned) == 2)
    first.held = frozenset()
    first.until(lambda: first.held, second)
    assert len(first.held) == 1
    for partition in (0, 1):
        produce(topic, numbered(10), partition)
    for _ in range(8):  # 3 s: two rebalances of this group would have passed
        assert first.step() == Polled()
        second.step()
    assert not second.owned
    first.give(first.held)
    first.until(lambda: first.count() == second.count() == 10, second)
    assert second.owned == first.held
    assert not any(polled.lost for polled in first.history)


def test_a_join_that_takes_long_is_told(kafka_topic: Topics, open_reader: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic is there and the member waits for its group: it says so, with what it waits for."""
    monkeypatch.setattr("streams.kafka.watch.JOIN_GRACE_S", 1.0)
    topic, group = kafka_topic(partitions=2), f"group.{uuid.uuid4().hex[:8]}"
    first, second = (open_reader(topic, group) for _ in range(2))
    first.until(lambda: len(first.owned) == 2)
    second.until(lambda: "kafka_joining" in second.names())  # the first does not poll, as one that has died
    reported = dict(second.events)["kafka_joining"]
    assert (reported["topic"], reported["group"], reported["state"]) == (topic, group, "rebalancing")
    assert "session time-out" in str(reported["todo"])
    assert not second.source.healthy()
    second.until(lambda: second.owned and first.owned and second.source.healthy(), first)


def test_an_evicted_member_hears_that_its_partitions_are_lost(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None], kafka_admin: KafkaAdminClient
) -> None:
    """A member that the group has evicted gets `lost`, not `revoked`: its state must not be written. It joins again by itself."""
    topic, group = kafka_topic(partitions=2), f"group.{uuid.uuid4().hex[:8]}"
    produce(topic, numbered(20))
    reader = open_reader(topic, group)
    reader.until(lambda: reader.count() == 20)
    both = frozenset(reader.owned)
    members = kafka_admin.describe_groups([group])[group]["members"]
    kafka_admin.remove_group_members(group, [MemberToRemove(member_id=member["member_id"]) for member in members])
    reader.until(lambda: any(polled.lost for polled in reader.history))
    assert [polled.lost for polled in reader.history if polled.lost] == [both]
    assert not any(polled.revoked for polled in reader.history)
    reader.until(lambda: reader.owned == both)
    reader.until(lambda: reader.count() == 40)  # the reader had no checkpoint: it starts again


def test_the_lag_grows_while_records_are_taken_that_were_fetched_before(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that comes faster than it is taken: the client fetches no more until what it has is taken, and hears of no newer end."""
    for name in ("STALE_S", "LOOKUP_EVERY_S"):
        monkeypatch.setattr(kafka_lag, name, 0.2)
    topic = kafka_topic()
    produce(topic, numbered(5000))
    reader = open_reader(topic, max_records=10)
    reader.until(lambda: reader.count() > 0)
    produce(topic, numbered(5000))
    while (reader.source.lag() or 0) <= 5000:
        assert reader.count() < 5000, f"it seems to be {reader.source.lag()} behind, of 10000, and {reader.count()} are taken"
        reader.step()
        time.sleep(0.05)  # as a daemon that has other work; a broker that is busy has 25 s to answer
    reader.until(lambda: reader.count() == 10_000, timeout_s=0.0)
    reader.until(lambda: reader.source.lag() == 0)


def test_an_unknown_lag_costs_no_records(
    kafka_topic: Topics, open_reader: Callable[..., Reader], produce: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question for the end of a partition is asked between polls: when the broker does not answer it, the lag is unknown."""

    def unanswered(*_: object, **__: object) -> None:
        raise KafkaTimeoutError("no answer")

    monkeypatch.setattr(KafkaConsumer, "position", unanswered)
    topic = kafka_topic()
    produce(topic, numbered(1000))
    reader = open_reader(topic, max_records=10)
    reader.until(lambda: reader.count() == 1000)
    assert reader.values[Partition(topic, 0)] == numbered(1000)
    assert reader.source.lag() is None


def test_a_failing_rebalance_is_raised(kafka_topic: Topics, open_reader: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reports an exception of a rebalance callback once and goes on as if all was well; the source does not."""

    def broken(*_: object) -> None:
        raise RuntimeError("no pause today")

    monkeypatch.setattr(KafkaConsumer, "pause", broken)
    reader = open_reader(kafka_topic())
    for _ in range(2):
        with pytest.raises(SourceError, match=r"rebalance of group .* failed: .*no pause today"):
            reader.until(lambda: False)


@pytest.mark.parametrize("kept_by", ["CreateTime", "LogAppendTime"])
def test_records_come_with_the_time_at_which_they_were_written(
    kafka_topic: Topics, open_reader: Callable[..., Reader], kafka_broker: str, kept_by: str
) -> None:
    """A producer that lives in 2020: its own time, or the broker's, as the topic is configured."""
    then_s = 1_577_880_000.0
    topic = kafka_topic(configs={"message.timestamp.type": kept_by})
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for value in numbered(3):
        producer.send(topic, value, timestamp_ms=int(then_s * 1000))
    producer.flush()
    producer.close()
    reader = open_reader(topic)
    reader.until(lambda: reader.count() == 3)
    written = [one for polled in reader.history for batch in polled.batches for one in batch.written or ()]
    assert len(written) == 3
    assert all(one is not None and one.by_broker == (kept_by == "LogAppendTime") for one in written)
    if kept_by == "CreateTime":
        assert {one.time_s for one in written if one is not None} == {then_s}
    else:
        assert all(one is not None and abs(one.time_s - time.time()) < 3600.0 for one in written)
