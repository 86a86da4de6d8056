"""One member of a Kafka consumer group: the thread that owns the KafkaConsumer, and how partitions come and go there.

Rebalancing is incremental (KIP-429): a partition that stays is not disturbed. When one has to go, the client awaits our
listener on its own I/O thread, in the middle of `KafkaConsumer.poll`. So that thread of ours waits there, and the listener puts
a `HandOver` before the caller, who writes the partition's state in peace: heartbeats go on. Only after `release` does the
client rejoin, and only then does the next member get the partition.

The wait has no limit of its own: heartbeats stop being sent on behalf of a caller who has not come back for
max_poll_interval_ms (5 minutes), the group goes on without it, and its late state is fenced by the generation.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.future import Future
from kafka.structs import MemberState, OffsetAndMetadata

from streams.kafka.commits import KafkaCommits
from streams.kafka.connection.advice import REFUSALS, Errand, Failure
from streams.kafka.connection.client import BrokerClient, NotConnectedError, unreachable
from streams.kafka.connection.options import HEARTBEAT_INTERVAL_MS, Backoff, EventHandler, KafkaOptions
from streams.kafka.consumer import keep_joining, leave_at_close, open_consumer, tell_when_fenced
from streams.kafka.log import KafkaLogs, positions
from streams.kafka.records import Record
from streams.kafka.watch import KafkaWatch
from streams.source import Log, SourceError

JOIN_TIMEOUT_MS: Final = 1000  # a close waits for it
CLOSE_TIMEOUT_S: Final = 2.0  # to leave the group; a broker that is gone does not hold up the end

DEFAULTS: Final = {
    "bootstrap_timeout_ms": 5_000,  # a TCP connection is there already; this covers TLS, SASL and the first answer
    "heartbeat_interval_ms": HEARTBEAT_INTERVAL_MS,
    "fetch_max_bytes": 50_000_000,
    "max_partition_fetch_bytes": 4_000_000,  # some 25,000 compressed records: few requests, and memory stays bounded
    "isolation_level": "read_committed",  # a record of an aborted transaction was never measured
    "metadata_max_age_ms": 60_000,  # new partitions are seen within a minute
    "metrics_enabled": False,  # 3 % of the time, and nobody reads them
    "reconnect_backoff_ms": 500,
    "reconnect_backoff_max_ms": 10_000,  # a broker that is back is seen within ten seconds
}


@dataclass(frozen=True, slots=True)
class HandOver:
    """Partitions that go to another member as soon as they are released."""

    revoked: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn brought. logs: of the partitions with records. error: the end, for the caller to raise: every later turn brings it
    again."""

    records: dict[TopicPartition, list[Record]] = field(default_factory=dict)
    logs: dict[TopicPartition, Log] = field(default_factory=dict)
    assigned: frozenset[TopicPartition] = frozenset()
    lost: frozenset[TopicPartition] = frozenset()
    passed: dict[TopicPartition, int] = field(default_factory=dict)
    error: SourceError | None = None


class KafkaMember(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no type information
    """Owns the consumer. The caller asks for one turn at a time and takes its outcome; what it wants done with the consumer
    it puts on `todo`, which the next turn does first. All public fields are safe to read from the caller's thread."""

    def __init__(
        self,
        topic: str,
        group_id: str,
        options: KafkaOptions,
        *,
        instance_id: str | None,
        max_records: int,
        accept_lost_records: bool,
        state_id: str,
        tell: EventHandler,
    ) -> None:
        self.topic = topic
        self.generation = 0
        self._errand = Errand(options, topic, group_id)
        self.watch = KafkaWatch(self._errand, tell)
        self.logs = KafkaLogs(topic, tell, accept_lost_records=accept_lost_records)
        self.outcomes: queue.SimpleQueue[HandOver | Turn] = queue.SimpleQueue()
        self.todo: deque[Callable[[KafkaConsumer], None]] = deque()
        self.commits = KafkaCommits(topic, group_id, state_id, self.logs, tell)
        self._options = options
        self._group_id = group_id
        self._instance_id = instance_id
        self._max_records = max_records
        self._tell = tell
        self._requests: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"kafka-{topic}", daemon=True)
        self._closing = threading.Event()
        self._assignor = CooperativeStickyAssignor()
        self._client: BrokerClient | None = None
        self._consumer: KafkaConsumer | None = None
        self._backoff = Backoff()
        self._retry_at_s = 0.0
        self._moved_s = time.monotonic()
        self._assigned: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()
        self._release: Future | None = None
        self._listener_error: Exception | None = None
        self._fenced: kafka_errors.KafkaError | None = None
        self._fatal: SourceError | None = None

    # --- the caller's thread ---

    @property
    def silent_s(self) -> float:
        """For how long this thread has not come back from the client, whose calls all have a time limit of some seconds."""
        return time.monotonic() - self._moved_s

    def ask(self, timeout_s: float) -> None:
        """Starts one turn; its outcome, and before it perhaps a HandOver, comes to `outcomes`."""
        self._moved()
        if not self._thread.is_alive():
            self._thread.start()
        self._requests.put(timeout_s)

    def release(self) -> None:
        """Lets the partitions of the last HandOver go; commits that were asked for before are sent first."""
        release, client = self._release, self._client
        if release is not None and client is not None and not release.is_done:
            release.success(None)
            client.wakeup()  # a future that another thread completes does not wake the client's I/O loop

    def close(self, timeout_s: float) -> None:
        """Leaves the group and waits for that up to timeout_s."""
        self._closing.set()
        self.release()
        if self._thread.is_alive():
            self._requests.put(None)
            self._thread.join(timeout_s)

    # --- the thread of the member ---

    def _moved(self) -> None:
        self._moved_s = time.monotonic()

    def _run(self) -> None:
        while (timeout_s := self._requests.get()) is not None:
            self.outcomes.put(self._turn(timeout_s))
        self._leave()

    def _turn(self, timeout_s: float) -> Turn:
        if self._fatal is not None:
            return Turn(error=self._fatal)
        records: dict[TopicPartition, list[Record]] = {}
        logs: dict[TopicPartition, Log] = {}
        try:
            consumer = self._connected(timeout_s)
            if consumer is not None and self._client is not None:
                self._do(consumer)
                records = self._poll(consumer, self._client, timeout_s)
                logs = {key: self.logs.of(consumer, key) for key in records}
        except SourceError as error:
            self._fatal = error
        except kafka_errors.KafkaError as error:
            self._fatal = self._judge(error)
        except Exception as error:  # noqa: BLE001 - a client whose I/O thread has died raises anything; the caller hears of all of it
            todo = "restart, and report it if it comes again"
            self._fatal = SourceError(f"the Kafka client failed on topic {self.topic}: {error!r}; {todo}")
        if self._fenced is not None:
            self._fatal = self._judge(self._fenced)
        if self._listener_error is not None:
            todo = "restart to join again from the last checkpoint"
            self._fatal = SourceError(f"a rebalance of group {self._group_id} failed: {self._listener_error!r}; {todo}")
        if self._consumer is not None:  # an evicted member has -1, but what it still writes belongs to the generation it was in
            self.generation = max(self._consumer.group_metadata().generation_id, self.generation)
        if self._fatal is not None or self._consumer is None:
            self.watch.healthy = False
        assigned, self._assigned = self._assigned, set()
        lost, self._lost = self._lost, set()
        return Turn(records, logs, frozenset(assigned), frozenset(lost), self.commits.passed(), self._fatal)

    def _poll(self, consumer: KafkaConsumer, client: BrokerClient, timeout_s: float) -> dict[TopicPartition, list[Record]]:
        """One poll, and more while a rebalance is going on.

        kafka-python 3.0.12 throws away a join that completes between two polls, and begins the next: members whose callers are
        busy at different times then rebalance for ever. So a join, once begun, is waited for here, whatever the caller does.
        And it forgets a join that new metadata has begun (a topic appears or grows): see keep_joining.
        """
        records = self._fetch(consumer, client, int(timeout_s * 1000))
        while not records and consumer.group_metadata().state == MemberState.REBALANCING and not self._closing.is_set():
            keep_joining(consumer)
            records = self._fetch(consumer, client, JOIN_TIMEOUT_MS)
        self._backoff.reset()
        return records

    def _fetch(self, consumer: KafkaConsumer, client: BrokerClient, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        """The records of one poll, if they are of the log that was read before."""
        before = positions(consumer)
        records: dict[TopicPartition, list[Record]] = consumer.poll(timeout_ms=timeout_ms, max_records=self._max_records)
        self._look(consumer, client)
        self._moved()
        first = {key: OffsetAndMetadata(found[0][0], "", -1) for key, found in records.items()}  # of those that had no position yet
        same = self.logs.confirm(consumer, client, {**first, **before}, asked=bool(records))
        return records if same else {}

    def _look(self, consumer: KafkaConsumer, client: BrokerClient) -> None:
        """What is found here may end the source, but does not take away the records of the poll before it."""
        try:
            self.watch.look(consumer, client)
        except kafka_errors.KafkaError as error:
            self._fatal = self._judge(error)

    def _do(self, consumer: KafkaConsumer) -> None:
        while self.todo:
            self.todo[0](consumer)  # one that nobody has answered is done again with the next turn
            self.todo.popleft()
        self.commits.send(consumer)

    def _connected(self, timeout_s: float) -> KafkaConsumer | None:
        """The consumer; None while there is no broker. The time until the next try passes here, up to timeout_s."""
        wait_s = self._retry_at_s - time.monotonic()
        if wait_s > 0:
            self._closing.wait(min(wait_s, timeout_s))
            return None
        if self._consumer is None:
            self._connect()
        return self._consumer

    def _connect(self) -> None:
        if (reason := unreachable(self._options, self._moved)) is not None:
            self._retry_later(reason, f"see that a broker of {self._options.servers()} runs and answers")
            return
        self._moved()
        ours = {
            "group_id": self._group_id,
            "enable_auto_commit": False,  # a checkpoint decides what was read
            "auto_offset_reset": "none",  # records that are gone must be noticed, not jumped over
            "partition_assignment_strategy": [self._assignor],
        }
        named = {"group_instance_id": self._instance_id}
        try:
            consumer, self._client = open_consumer(
                self.topic, DEFAULTS | named | self._options.consumer_config() | ours, self, self.watch.keys
            )
        except kafka_errors.KafkaConfigurationError as error:
            raise SourceError(f"Kafka options for topic {self.topic}: {error}; correct them and start again") from error
        except NotConnectedError as error:
            if isinstance(error.failure.error, REFUSALS):
                self._refused(error.failure)
            else:
                self._retry_later(str(error.failure), self._errand.advice(error.failure))
        else:
            self._consumer = consumer
            tell_when_fenced(consumer, self._fenced_by)
            self.watch.begin()

    def _retry_later(self, reason: str, todo: str) -> None:
        delay_s = self._backoff.next_s()
        self._retry_at_s = time.monotonic() + delay_s
        self.watch.unreachable(reason, todo)
        found: dict[str, object] = {"servers": self._options.servers(), "error": reason, "todo": todo}
        self._tell("kafka_unreachable", found | {"retry_in_s": round(delay_s, 1)})

    def _refused(self, failure: Failure) -> None:
        self._retry_at_s = time.monotonic() + self._backoff.next_s()
        self.watch.refused(failure)

    def _judge(self, error: kafka_errors.KafkaError) -> SourceError | None:
        """What an error of a connected consumer means: None when the next turn may well succeed."""
        consumer = self._consumer
        assert consumer is not None
        match error:
            case kafka_errors.NoOffsetForPartitionError():  # neither a committed offset nor, so far, one of the caller
                consumer.seek_to_beginning(*error.args[0])
            case kafka_errors.OffsetOutOfRangeError() | kafka_errors.LogTruncationError():
                assert self._client is not None
                return self.logs.go_on(consumer, self._client, error)
            case kafka_errors.SaslAuthenticationFailedError() | kafka_errors.UnsupportedSaslMechanismError():
                self._refused(Failure(error))
                self._lost |= consumer.assignment() - self._assigned
                self._assigned.clear()
                self._leave()  # the client remembers the refusal for ever: only a new one tries again
            case kafka_errors.AuthorizationError():
                self._refused(Failure(error))
            case kafka_errors.RetriableError():
                self._tell("kafka_error", {"topic": self.topic, "error": repr(error)})
                self._retry_at_s = time.monotonic() + self._backoff.next_s()
            case _:
                return SourceError(f"reading topic {self.topic} failed: {error!r}; {self._errand.advice(Failure(error))}")
        return None

    def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None  # its listener has nothing to hand over any more
        if consumer is None:
            return
        self._assignor.member_assignment = None
        try:
            self.commits.send(consumer)
            leave_at_close(consumer)
            consumer.close(autocommit=False, timeout_ms=int(CLOSE_TIMEOUT_S * 1000))
        except Exception as error:  # noqa: BLE001 - it ends either way, and the broker notices by the session time-out
            self._tell("kafka_close_failed", {"topic": self.topic, "group": self._group_id, "error": repr(error)})

    # --- the client's I/O thread ---

    def _fenced_by(self, error: kafka_errors.KafkaError) -> None:
        self._fenced = error

    # --- the client's I/O thread, while the thread above is in KafkaConsumer.poll ---

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        consumer = self._consumer
        assert consumer is not None
        try:
            consumer.pause(*assigned)  # until the caller has said where to start
            self._assigned |= assigned
        except Exception as error:
            self._listener_error = error
            raise

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        consumer = self._consumer
        if consumer is None:  # this member leaves: its caller has written all state
            return
        try:
            known = revoked - self._assigned  # one that went before the caller heard of it has no state
            self._assigned -= revoked
            if known and not self._closing.is_set():
                self.generation = consumer.group_metadata().generation_id
                self._release = Future()
                self.outcomes.put(HandOver(frozenset(known)))
                await self._release
                self.commits.send(consumer)
        except Exception as error:
            self._listener_error = error
            raise

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        self._lost |= lost - self._assigned
        self._assigned -= lost
        self._assignor.member_assignment = None  # or the next join would claim them, though another member has them by now
