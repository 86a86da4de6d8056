"""Telemetry from a Kafka topic, as a member of a consumer group.

What the caller does, all on one thread:

1. `poll`. Handle `lost` first (drop the state), then `revoked`, then `assigned`, then the batches.
2. `assigned`: load the state of each partition and `seek` to its offset. Records of a partition only come after its seek.
   `seek(partition, None)` starts at the committed offset, or at the earliest record if nothing was ever committed.
3. `revoked`: such a Polled has no batches, and all records that came before have been handled. Write the state of these partitions, fenced
   with `generation()`, `commit` their offsets, call `release`, drop the state. Meanwhile the rebalance waits and heartbeats go on, for up
   to max_poll_interval_ms (5 minutes); then the group goes on without this member. A poll before the release returns nothing.
4. `close`: checkpoint and `commit` before it, as there are no rebalances any more.

Partitions that stay with this member are not mentioned in a rebalance: nothing has to be done for them.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from kafka import KafkaConsumer, TopicPartition

from features.telemetry import Partition
from streams.kafka.connection.options import EventHandler, KafkaOptions
from streams.kafka.member import KafkaMember
from streams.kafka.rebalance import HandOver
from streams.kafka.records import Record
from streams.source import ONLY_LOG, Log, Polled, RawBatch, Source

DEFAULT_MAX_RECORDS: Final = 5000  # 25 ms of work: large enough for throughput, small against every time limit
SLACK_S: Final = 0.05  # the poll of the client returns a little after its time-out; its outcome belongs to the same poll of ours
CLOSE_LIMIT_S: Final = 5.0  # the group is left within milliseconds, within 2 s without a broker


class KafkaSource(Source):
    """The partitions of a topic that the group assigns to this member. The docstring of the module describes the protocol.

    Nothing connects before the first poll, and no method waits for a broker: all that happens on a thread of the source.

    Args:
        topic: Name of the topic.
        group_id: Name of the consumer group.
        options: How to reach the cluster.
        on_event: Is called with name and fields of operational events, on the thread of the caller, within poll and close:
            `kafka_connected`, `kafka_unreachable`, `kafka_refused`, `topic_missing`, `kafka_joining`, `records_lost`, `records_held`,
            `records_without_key`, `partitions_added`, `group_ahead`, `kafka_error`, `kafka_commit_failed`, `kafka_close_failed`.
        instance_id: A name that a restart keeps (KIP-345). The partitions of a member that was killed are its own again at once, not only
            after the session time-out. A member that closes in order leaves the group all the same. No two members may have the same name.
        max_records: Of one poll.
        accept_lost_records: Go on from the earliest record if the wanted ones have been deleted or are no longer the same (the topic was
            created anew, its log was cut back), and report `records_lost`, instead of raising SourceError.
        state_id: Names the state directory whose checkpoints are sought. If another one has committed beyond such a checkpoint, the
            partition goes on behind that (`group_ahead`, Polled.passed).
    """

    def __init__(
        self,
        topic: str,
        group_id: str,
        options: KafkaOptions,
        on_event: EventHandler,
        *,
        instance_id: str | None = None,
        max_records: int = DEFAULT_MAX_RECORDS,
        accept_lost_records: bool = False,
        state_id: str = "",
    ) -> None:
        self._events: deque[tuple[str, dict[str, object]]] = deque()
        self._on_event = on_event
        self._member = KafkaMember(
            topic,
            group_id,
            options,
            instance_id=instance_id,
            max_records=max_records,
            accept_lost_records=accept_lost_records,
            state_id=state_id,
            emit=lambda name, fields: self._events.append((name, fields)),
        )
        self._asked = False
        self._closed = False
        self._owned: set[Partition] = set()
        self._seeked: set[Partition] = set()
        self._handing_over: set[Partition] = set()

    def poll(self, timeout_s: float) -> Polled:
        """Return the next records and changes of the assignment, after up to timeout_s.

        Raises:
            SourceError: The next records are gone, the configuration cannot work, or a rebalance failed.
            ValueError: The source is closed.
        """
        if self._closed:
            raise ValueError(f"poll of topic {self._member.topic} after close")
        if not self._asked:
            self._member.ask(timeout_s)
            self._asked = True
        try:
            outcome = self._member.outcomes.get(timeout=timeout_s + SLACK_S)
        except queue.Empty:
            return Polled(silent_s=0.0 if self._handing_over else self._member.silent_s)  # else it waits for the caller
        finally:
            self._emit_events()
        if isinstance(outcome, HandOver):
            revoked = _partitions(outcome.revoked)
            self._handing_over |= revoked
            self._forget(revoked)
            return Polled(revoked=revoked)
        self._asked = False
        if outcome.error is not None:
            raise outcome.error
        assigned, lost = _partitions(outcome.assigned), _partitions(outcome.lost)
        self._forget(lost)
        self._owned |= assigned
        batches = [_batch(key, records, outcome.logs[key]) for key, records in outcome.records.items()]
        passed = {Partition(key.topic, key.partition): offset for key, offset in outcome.passed.items()}
        return Polled(batches=batches, assigned=assigned, lost=lost, passed=passed)

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:
        """Let the next record of an assigned partition come from an offset. It takes effect with the next poll.

        Raises:
            ValueError: The partition is not assigned here, or the offset is negative.
        """
        if partition not in self._owned:
            raise ValueError(f"seek in {partition}, which is not assigned to this member (it has {sorted(map(str, self._owned))})")
        if offset is not None and offset < 0:
            raise ValueError(f"seek to offset {offset} of {partition}: offsets begin at 0")
        begin = self._member.logs.begin if partition in self._seeked else self._member.commits.begin
        self._seeked.add(partition)
        key, paused = _key(partition), self.paused

        def place(consumer: KafkaConsumer) -> None:
            begin(consumer, key, offset, log)
            if not paused and key in consumer.assignment():  # it may have gone meanwhile
                consumer.resume(key)

        self._member.todo.append(place)

    def release(self, partitions: frozenset[Partition]) -> None:
        """Let revoked partitions go to their next owner."""
        self._handing_over -= partitions
        if not self._handing_over:
            self._member.release()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Publish next offsets with the next poll, before partitions are released, or at close. A failure is an event."""
        if offsets:
            self._member.commits.put({_key(partition): offset for partition, offset in offsets.items()})

    def pause(self) -> None:
        """Stop the records with the next poll."""
        super().pause()
        self._member.todo.append(lambda consumer: consumer.pause(*consumer.assignment()))

    def resume(self) -> None:
        """Let records come again with the next poll."""
        super().resume()
        keys = {_key(partition) for partition in self._seeked}  # a partition that waits for its seek goes on waiting
        self._member.todo.append(lambda consumer: consumer.resume(*(keys & consumer.assignment())))

    def lag(self) -> int | None:
        """Return the lag that the last look has found; None if it is unknown."""
        return self._member.watch.lag if self._member.watch.healthy else None

    def held(self) -> int:
        """Return how many records an open transaction holds."""
        return self._member.watch.held

    def keyless(self) -> int:
        """Return how many records came without a key, if the topic has several partitions."""
        return self._member.watch.keyless

    def generation(self) -> int:
        """Return the generation of the group in which this member has its partitions."""
        return self._member.generation

    def healthy(self) -> bool:
        """Return whether the member is connected and in its group."""
        return self._member.watch.healthy

    def troubles(self) -> list[str]:
        """Return why there are no records, or not all of them, each with what to do."""
        return self._member.watch.troubles()

    def close(self) -> None:
        """Leave the group, so that its partitions are free at once. Returns within seconds, with or without a broker."""
        if not self._closed:
            self._closed = True
            self._member.close(CLOSE_LIMIT_S)
            self._emit_events()

    def _forget(self, partitions: frozenset[Partition]) -> None:
        self._owned -= partitions
        self._seeked -= partitions

    def _emit_events(self) -> None:
        while self._events:
            self._on_event(*self._events.popleft())


def _key(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)


def _partitions(keys: Iterable[TopicPartition]) -> frozenset[Partition]:
    return frozenset(Partition(key.topic, key.partition) for key in keys)


def _batch(key: TopicPartition, records: list[Record], log: Log) -> RawBatch:
    first, last = records[0][0] + log.shift, records[-1][0] + log.shift
    # Offsets have holes after compaction and around transactions. Without holes, a range costs nothing.
    dense = last - first == len(records) - 1
    offsets = range(first, last + 1) if dense else [record[0] + log.shift for record in records]
    values, written = [record[1] for record in records], [record[2] for record in records]
    return RawBatch(Partition(key.topic, key.partition), offsets, values, log=log, written=written)
