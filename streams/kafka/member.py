"""One member of a Kafka consumer group: the thread that owns the KafkaConsumer."""

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
from kafka.structs import MemberState, OffsetAndMetadata

from streams.kafka.commits import KafkaCommits
from streams.kafka.connection.advice import REFUSALS, Errand, Failure
from streams.kafka.connection.client import BrokerClient, NotConnectedError, unreachable
from streams.kafka.connection.options import Backoff, EventHandler, KafkaOptions
from streams.kafka.consumer import DEFAULTS, keep_joining, leave_at_close, notice_fencing, open_consumer
from streams.kafka.log import KafkaLogs, positions
from streams.kafka.rebalance import HandOver, Rebalances
from streams.kafka.records import Record
from streams.kafka.watch import KafkaWatch
from streams.source import Log, SourceError

JOIN_TIMEOUT_MS: Final = 1000  # a close waits for it
CLOSE_TIMEOUT_S: Final = 2.0  # to leave the group; a broker that is gone does not hold up the end


@dataclass(frozen=True, slots=True)
class Turn:
    """Result of one turn.

    Args:
        records: Records by partition.
        logs: The log of each partition that has records.
        assigned: Partitions that are new here.
        lost: Partitions that another member has by now.
        passed: Next offset of partitions that go on behind the offset that was sought.
        error: The end of the source, for the caller to raise. Every later turn has it again.
    """

    records: dict[TopicPartition, list[Record]] = field(default_factory=dict)
    logs: dict[TopicPartition, Log] = field(default_factory=dict)
    assigned: frozenset[TopicPartition] = frozenset()
    lost: frozenset[TopicPartition] = frozenset()
    passed: dict[TopicPartition, int] = field(default_factory=dict)
    error: SourceError | None = None


class KafkaMember:
    """The thread that owns the consumer.

    The caller asks for one turn at a time and gets its outcome from `outcomes`. What it wants done with the consumer it appends to `todo`,
    which the next turn does first. All public attributes are safe to read from the thread of the caller.

    Args:
        topic: Name of the topic.
        group_id: Name of the consumer group.
        options: How to reach the cluster.
        instance_id: Name of the member that a restart keeps (KIP-345), or None.
        max_records: Of one turn.
        accept_lost_records: Go on without records that are lost, instead of ending.
        state_id: Name of the state directory that the checkpoints are in.
        emit: Is called with name and fields of each operational event, on the thread of the member.
    """

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
        emit: EventHandler,
    ) -> None:
        self.topic = topic
        self._errand = Errand(options, topic, group_id)
        self.watch = KafkaWatch(self._errand, emit)
        self.logs = KafkaLogs(topic, emit, accept_lost_records=accept_lost_records)
        self.outcomes: queue.SimpleQueue[HandOver | Turn] = queue.SimpleQueue()
        self.todo: deque[Callable[[KafkaConsumer], None]] = deque()
        self.commits = KafkaCommits(topic, group_id, state_id, self.logs, emit)
        self._options = options
        self._group_id = group_id
        self._instance_id = instance_id
        self._max_records = max_records
        self._emit = emit
        self._requests: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"kafka-{topic}", daemon=True)
        self._rebalances = Rebalances(self.outcomes.put, self.commits.send)
        self._client: BrokerClient | None = None
        self._consumer: KafkaConsumer | None = None
        self._backoff = Backoff()
        self._retry_at_s = 0.0
        self._moved_s = time.monotonic()
        self._fenced: kafka_errors.KafkaError | None = None
        self._fatal: SourceError | None = None

    # --- the caller's thread ---

    @property
    def generation(self) -> int:
        """Generation of the group in which this member has its partitions."""
        return self._rebalances.generation

    @property
    def silent_s(self) -> float:
        """Seconds for which the thread has been in a call of the client. All these calls have a time limit of some seconds."""
        return time.monotonic() - self._moved_s

    def ask(self, timeout_s: float) -> None:
        """Start one turn of up to timeout_s. Its outcome, and before it perhaps a HandOver, comes to `outcomes`."""
        self._moved()
        if not self._thread.is_alive():
            self._thread.start()
        self._requests.put(timeout_s)

    def release(self) -> None:
        """Let the partitions of the last HandOver go. Commits that were asked for before are sent first."""
        self._rebalances.release(self._client)

    def close(self, timeout_s: float) -> None:
        """Leave the group, and wait for that up to timeout_s."""
        self._rebalances.closing.set()
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
            self._fatal = self._decide(error)
        except Exception as error:  # noqa: BLE001 - a client whose I/O thread has died raises anything; the caller gets all of it
            todo = "restart, and report it if it happens again"
            self._fatal = SourceError(f"the Kafka client failed on topic {self.topic}: {error!r}; {todo}")
        if self._fenced is not None:
            self._fatal = self._decide(self._fenced)
        if self._rebalances.error is not None:
            todo = "restart to join again from the last checkpoint"
            self._fatal = SourceError(f"a rebalance of group {self._group_id} failed: {self._rebalances.error!r}; {todo}")
        if self._consumer is not None:
            self._rebalances.follow(self._consumer)
        if self._fatal is not None or self._consumer is None:
            self.watch.healthy = False
        assigned, lost = self._rebalances.changes()
        return Turn(records, logs, assigned, lost, self.commits.passed(), self._fatal)

    def _poll(self, consumer: KafkaConsumer, client: BrokerClient, timeout_s: float) -> dict[TopicPartition, list[Record]]:
        """Poll once, and more often while a rebalance is going on.

        kafka-python 3.0.12 throws away a join that completes between two polls, and begins the next one: members whose callers are busy at
        different times then rebalance for ever. So a join that has begun is waited for here, whatever the caller does. The client also
        forgets a join that new metadata has begun (a topic appears or grows), see `keep_joining`.
        """
        records = self._fetch(consumer, client, int(timeout_s * 1000))
        while not records and consumer.group_metadata().state == MemberState.REBALANCING and not self._rebalances.closing.is_set():
            keep_joining(consumer)
            records = self._fetch(consumer, client, JOIN_TIMEOUT_MS)
        self._backoff.reset()
        return records

    def _fetch(self, consumer: KafkaConsumer, client: BrokerClient, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        """Return the records of one poll, if they are of the log that was read before."""
        before = positions(consumer)
        records: dict[TopicPartition, list[Record]] = consumer.poll(timeout_ms=timeout_ms, max_records=self._max_records)
        self._look(consumer, client)
        self._moved()
        first = {key: OffsetAndMetadata(found[0][0], "", -1) for key, found in records.items()}  # of those that had no position yet
        same = self.logs.confirm(consumer, client, {**first, **before}, asked=bool(records))
        return records if same else {}

    def _look(self, consumer: KafkaConsumer, client: BrokerClient) -> None:
        """Look at the state of the connection. A fault may end the source, but the records of the poll before are kept."""
        try:
            self.watch.look(consumer, client)
        except kafka_errors.KafkaError as error:
            self._fatal = self._decide(error)

    def _do(self, consumer: KafkaConsumer) -> None:
        while self.todo:
            self.todo[0](consumer)  # one that raises, because nobody answers, is done again with the next turn
            self.todo.popleft()
        self.commits.send(consumer)

    def _connected(self, timeout_s: float) -> KafkaConsumer | None:
        """Return the consumer, or None while there is no broker. Waits for the next try here, up to timeout_s."""
        wait_s = self._retry_at_s - time.monotonic()
        if wait_s > 0:
            self._rebalances.closing.wait(min(wait_s, timeout_s))
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
            "enable_auto_commit": False,  # only a checkpoint marks records as read
            "auto_offset_reset": "none",  # records that are gone must be noticed, not skipped
            "partition_assignment_strategy": [self._rebalances.assignor],
        }
        named = {"group_instance_id": self._instance_id}
        try:
            config = DEFAULTS | named | self._options.consumer_config() | ours
            consumer, self._client = open_consumer(self.topic, config, self._rebalances, self.watch.keys)
        except kafka_errors.KafkaConfigurationError as error:
            raise SourceError(f"Kafka options for topic {self.topic}: {error}; correct them and start again") from error
        except NotConnectedError as error:
            if isinstance(error.failure.error, REFUSALS):
                self._refused(error.failure)
            else:
                self._retry_later(str(error.failure), self._errand.advice(error.failure))
        else:
            self._consumer = consumer
            self._rebalances.listen_to(consumer)
            notice_fencing(consumer, self._fenced_by)
            self.watch.begin()

    def _retry_later(self, reason: str, todo: str) -> None:
        delay_s = self._backoff.next_s()
        self._retry_at_s = time.monotonic() + delay_s
        self.watch.unreachable(reason, todo)
        found: dict[str, object] = {"servers": self._options.servers(), "error": reason, "todo": todo}
        self._emit("kafka_unreachable", found | {"retry_in_s": round(delay_s, 1)})

    def _refused(self, failure: Failure) -> None:
        self._retry_at_s = time.monotonic() + self._backoff.next_s()
        self.watch.refused(failure)

    def _decide(self, error: kafka_errors.KafkaError) -> SourceError | None:
        """Return the error that ends the source, or None if the next turn may succeed."""
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
                self._rebalances.lose_all(consumer.assignment())
                self._leave()  # the client remembers the refusal for ever: only a new one tries again
            case kafka_errors.AuthorizationError():
                self._refused(Failure(error))
            case kafka_errors.RetriableError():
                self._emit("kafka_error", {"topic": self.topic, "error": repr(error)})
                self._retry_at_s = time.monotonic() + self._backoff.next_s()
            case _:
                return SourceError(f"reading topic {self.topic} failed: {error!r}; {self._errand.advice(Failure(error))}")
        return None

    def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        self._rebalances.listen_to(None)
        try:
            self.commits.send(consumer)
            leave_at_close(consumer)
            consumer.close(autocommit=False, timeout_ms=int(CLOSE_TIMEOUT_S * 1000))
        except Exception as error:  # noqa: BLE001 - it ends either way, and the broker notices by the session time-out
            self._emit("kafka_close_failed", {"topic": self.topic, "group": self._group_id, "error": repr(error)})

    # --- the client's I/O thread ---

    def _fenced_by(self, error: kafka_errors.KafkaError) -> None:
        self._fenced = error
