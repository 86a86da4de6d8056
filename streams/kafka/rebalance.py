"""Assignment and release of the partitions of a consumer group's member.

Rebalancing is incremental (KIP-429): a partition that stays is not disturbed. When one has to go, the client awaits our listener on its own
I/O thread, in the middle of `KafkaConsumer.poll`. So the thread of the member waits there, and the listener puts a `HandOver` before the
caller, who writes the state of the partition in peace: heartbeats go on. Only after `release` does the client rejoin, and only then does
the next member get the partition.

The wait has no limit of its own. For a caller who has not come back for max_poll_interval_ms (5 minutes) heartbeats stop, the group goes on
without it, and the generation fences its late state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.future import Future

from streams.kafka.connection.client import BrokerClient


@dataclass(frozen=True, slots=True)
class HandOver:
    """Partitions that go to another member as soon as they are released."""

    revoked: frozenset[TopicPartition]


class Rebalances(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no type information
    """The listener of one member, for all of its consumers.

    Args:
        hand_over: Is called on the I/O thread of the client with partitions that have to go.
        before_rejoin: Is called on that thread once they are released.
    """

    def __init__(self, hand_over: Callable[[HandOver], None], before_rejoin: Callable[[KafkaConsumer], None]) -> None:
        self.generation = 0
        self.error: Exception | None = None
        """Reason why a rebalance failed."""
        self.closing = threading.Event()
        """Set once the caller leaves: it has written all state."""
        self.assignor = CooperativeStickyAssignor()
        self._hand_over = hand_over
        self._before_rejoin = before_rejoin
        self._consumer: KafkaConsumer | None = None
        self._assigned: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()
        self._release: Future | None = None

    def listen_to(self, consumer: KafkaConsumer | None) -> None:
        """Listen to a new consumer; None: to none any more, as the member leaves the group."""
        self._consumer = consumer
        if consumer is None:
            self.assignor.member_assignment = None

    def release(self, client: BrokerClient | None) -> None:
        """Let the partitions of the last HandOver go. May be called from any thread."""
        release = self._release
        if release is not None and client is not None and not release.is_done:
            release.success(None)
            client.wakeup()  # a future that another thread completes does not wake the client's I/O loop

    def changes(self) -> tuple[frozenset[TopicPartition], frozenset[TopicPartition]]:
        """Return the partitions that were assigned and those that were lost since the last call."""
        assigned, self._assigned = self._assigned, set()
        lost, self._lost = self._lost, set()
        return frozenset(assigned), frozenset(lost)

    def lose_all(self, assignment: set[TopicPartition]) -> None:
        """Count the whole assignment as lost, except for partitions that the caller does not know yet."""
        self._lost |= assignment - self._assigned
        self._assigned.clear()

    def follow(self, consumer: KafkaConsumer) -> None:
        """Update the generation. An evicted member has -1, but its last writes belong to its former generation, which is kept."""
        self.generation = max(consumer.group_metadata().generation_id, self.generation)

    # --- the client's I/O thread, while the member is in KafkaConsumer.poll ---

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Stop new partitions until the caller has sought them."""
        consumer = self._consumer
        assert consumer is not None
        try:
            consumer.pause(*assigned)
            self._assigned |= assigned
        except Exception as error:
            self.error = error
            raise

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Hand partitions over, and wait until the caller releases them."""
        consumer = self._consumer
        if consumer is None:  # this member leaves: its caller has written all state
            return
        try:
            known = revoked - self._assigned  # a partition that the caller never got has no state
            self._assigned -= revoked
            if known and not self.closing.is_set():
                self.generation = consumer.group_metadata().generation_id
                self._release = Future()
                self._hand_over(HandOver(frozenset(known)))
                await self._release
                self._before_rejoin(consumer)
        except Exception as error:
            self.error = error
            raise

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        """Note partitions that another member has by now."""
        self._lost |= lost - self._assigned
        self._assigned -= lost
        self.assignor.member_assignment = None  # or the next join would claim them
