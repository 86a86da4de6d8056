"""The log that the records of a partition come from: an offset means nothing in another one.

A topic that is deleted and created again under its name, and a log that was cut back by an unclean leader election, hold other records
under offsets that were read before. Kafka distinguishes them by the id of the topic (KIP-516) and the epochs of its leaders (KIP-320).
If the operator has accepted that records are lost, reading goes on, and the offsets that the daemon sees go on ascending: the shift is
added to those of the log. So no name of a segment, no id of an alert and no entry of the journal ever repeats.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata

from streams.kafka.connection.client import BrokerClient
from streams.kafka.connection.options import EventHandler
from streams.source import Log, SourceError

LOOKUP_TIMEOUT_MS: Final = 2000  # a question to the broker, on the member's thread
CONFIRM_EVERY_S: Final = 0.25
"""Records are delivered if the topic was confirmed within this many seconds before.

It is less than the time to delete a topic, create it again and fill it beyond the wanted offset, and it causes few requests."""
ACCEPT: Final = "start with accept_lost_records = true"

Positions: TypeAlias = Mapping[TopicPartition, OffsetAndMetadata]
"""Next offset of each partition, with the leader epoch of the record before."""


class KafkaLogs:
    """The logs that one consumer reads. All methods are called from the thread of the consumer's polls.

    Args:
        topic: Name of the topic.
        emit: Is called with name and fields of each operational event.
        accept_lost_records: Go on if records are lost, instead of raising SourceError.
    """

    def __init__(self, topic: str, emit: EventHandler, *, accept_lost_records: bool) -> None:
        self._topic, self._emit, self._accept_lost_records = topic, emit, accept_lost_records
        self._logs: dict[TopicPartition, Log] = {}
        self._confirmed_s = 0.0

    def begin(self, consumer: KafkaConsumer, key: TopicPartition, offset: int | None, log: Log) -> None:
        """Seek to an offset in a log; None: to the group's begin."""
        self._logs[key] = log
        if offset is not None:
            place(consumer, key, OffsetAndMetadata(offset - log.shift, "", log.leader_epoch))

    def of(self, consumer: KafkaConsumer, key: TopicPartition) -> Log:
        """Return the log of a partition, with the leader epoch of the last record that was polled."""
        position = consumer._subscription.assignment[key].position
        return replace(self._logs.get(key, Log()), leader_epoch=position.leader_epoch if position is not None else -1)

    def own_offset(self, key: TopicPartition, offset: int) -> int:
        """Return an offset as it counts in the log itself."""
        return max(0, offset - self._logs.get(key, Log()).shift)

    def confirm(self, consumer: KafkaConsumer, client: BrokerClient, before: Positions, asked: bool) -> bool:
        """Return whether the topic is the one that was read before. If it is not, or nobody knows, go back to the positions `before`.

        Args:
            consumer: The consumer.
            client: The client under it.
            before: Positions before the last poll.
            asked: Ask the brokers if their last answer is too old.

        Raises:
            SourceError: The topic was created anew, and lost records are not accepted. Otherwise it goes on from its first record.
        """
        confirmed = not asked or self._is_confirmed(client)
        current = str(client.cluster.topic_id(self._topic) or "")
        others = []
        for key in before:
            log = self._logs.get(key, Log())
            if current and not log.topic_id:
                self._logs[key] = replace(log, topic_id=current)
            elif current and log.topic_id != current:
                others.append(key)
        if confirmed and not others:
            return True
        for key, position in before.items():
            place(consumer, key, position)
        for key in others:
            self._created_anew(consumer, key, before[key].offset, current)
        return False

    def go_on(self, consumer: KafkaConsumer, client: BrokerClient, error: kafka_errors.KafkaError) -> SourceError | None:
        """Go on although the next records are gone or have changed. Return an error unless the operator has accepted that."""
        try:
            if not self.confirm(consumer, client, positions(consumer), asked=True):
                return None
            if isinstance(error, kafka_errors.LogTruncationError):
                for key, agrees_to in error.divergent_offsets.items():
                    self._cut_back(consumer, key, agrees_to)
            else:
                for key, offset in error.args[0].items():
                    self._gone(consumer, key, offset)
        except SourceError as ended:
            return ended
        except kafka_errors.RetriableError:
            return None  # the next turn meets the same gap, and then perhaps a broker that answers
        return None

    def _gone(self, consumer: KafkaConsumer, key: TopicPartition, offset: int) -> None:
        """Handle an offset whose record does not exist any more."""
        first = _look_up(consumer.beginning_offsets, key)
        end = _look_up(consumer.end_offsets, key)
        if first <= offset <= end:  # the broker refuses the leader epoch of the record before: its log does not have it
            self._cut_back(consumer, key, None)
            return
        what = f"offset {offset} of {_name(key)} is gone: it holds {first} to {end} now"
        cause = "deleted by retention" if offset < first else "the log is shorter than before"
        self._go_on(consumer, key, offset, first, f"{what} ({cause})", cause, end)

    def _cut_back(self, consumer: KafkaConsumer, key: TopicPartition, agrees_to: OffsetAndMetadata | None) -> None:
        """Handle a log whose records are not those that were read.

        Args:
            consumer: The consumer.
            key: The partition.
            agrees_to: Offset up to which the records are the same; None if nothing is known of them.
        """
        offset = consumer._subscription.assignment[key].position.offset
        first = _look_up(consumer.beginning_offsets, key)
        following = max(first, agrees_to.offset) if agrees_to is not None else first
        what = (
            f"the log of {_name(key)} was cut back to offset {following}: it was read to {offset}, and now holds other records behind that"
        )
        reason = "an unclean leader election, or a broker that has lost its disk"
        self._go_on(consumer, key, offset, following, f"{what} ({reason})", "the log was cut back", _look_up(consumer.end_offsets, key))

    def _created_anew(self, consumer: KafkaConsumer, key: TopicPartition, offset: int, current: str) -> None:
        log = self._logs[key]
        first, end = _look_up(consumer.beginning_offsets, key), _look_up(consumer.end_offsets, key)
        what = f"topic {self._topic} was created anew (its id was {log.topic_id} and is {current} now): offset {offset} of {_name(key)}"
        self._logs[key] = replace(log, topic_id=current)
        self._go_on(consumer, key, offset, first, f"{what} is another record now", "the topic was created anew", end)

    def _go_on(self, consumer: KafkaConsumer, key: TopicPartition, offset: int, following: int, what: str, cause: str, end: int) -> None:
        if not self._accept_lost_records:
            raise SourceError(f"{what}; to go on without the missing records, from offset {following}, {ACCEPT}")
        log = self._logs.get(key, Log())
        if cause == "the topic was created anew" or following < offset:
            self._logs[key] = replace(log, shift=log.shift + offset - following)
        place(consumer, key, OffsetAndMetadata(following, "", -1))
        found = {"partition": _name(key), "wanted_offset": offset, "next_offset": following, "end_offset": end, "cause": cause}
        self._emit("records_lost", found)

    def _is_confirmed(self, client: BrokerClient) -> bool:
        """Return whether the brokers have confirmed the topic shortly before, or do so now."""
        if time.monotonic() - self._confirmed_s < CONFIRM_EVERY_S:
            return True
        known = threading.Event()
        future = client.cluster.request_update()
        future.add_both(lambda _: known.set())
        if not known.wait(LOOKUP_TIMEOUT_MS / 1000) or future.failed():
            return False
        self._confirmed_s = time.monotonic()
        return True


def positions(consumer: KafkaConsumer) -> Positions:
    """Return the positions of the partitions that have one."""
    assignment = consumer._subscription.assignment
    return {key: state.position for key, state in list(assignment.items()) if state.position is not None}


def place(consumer: KafkaConsumer, key: TopicPartition, position: OffsetAndMetadata) -> None:
    """Seek with a leader epoch, which KafkaConsumer.seek does not have: with one, the client notices a log that was cut back."""
    if consumer._subscription.is_assigned(key):
        consumer._subscription.seek(key, position)


def _look_up(question: Any, key: TopicPartition) -> int:
    return int(question([key], timeout_ms=LOOKUP_TIMEOUT_MS)[key])


def _name(key: TopicPartition) -> str:
    return f"{key.topic}-{key.partition}"
