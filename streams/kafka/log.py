"""Which log the records of a partition come from: an offset says nothing in another one.

A topic that is deleted and created again under its name, and a log that was cut back by an unclean leader election, hold other records
under offsets that were read before. Kafka tells them apart by the id of the topic (KIP-516) and the epochs of its leaders (KIP-320).
Where the operator has accepted that records are lost, reading goes on, and the offsets that the daemon sees go on ascending: what is
added to those of the log is its shift. So no name of a segment, no id of an alert and no entry of the journal ever comes again.
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
"""Records are handed over if the topic was seen to be the same so shortly before: less than it takes to delete a topic, to create it again
and to fill it beyond the offset that is wanted, and few enough questions."""
ACCEPT: Final = "start with accept_lost_records = true"

Positions: TypeAlias = Mapping[TopicPartition, OffsetAndMetadata]
"""Where each partition goes on, with the leader epoch of the record before."""


class KafkaLogs:
    """The logs that one consumer reads. All methods are called from the thread of the consumer's polls."""

    def __init__(self, topic: str, tell: EventHandler, *, accept_lost_records: bool) -> None:
        self._topic, self._tell, self._accept_lost_records = topic, tell, accept_lost_records
        self._logs: dict[TopicPartition, Log] = {}
        self._confirmed_s = 0.0

    def begin(self, consumer: KafkaConsumer, key: TopicPartition, offset: int | None, log: Log) -> None:
        """Seeks to the offset in a log; None: to where the group begins."""
        self._logs[key] = log
        if offset is not None:
            place(consumer, key, OffsetAndMetadata(offset - log.shift, "", log.leader_epoch))

    def of(self, consumer: KafkaConsumer, key: TopicPartition) -> Log:
        """The log of a partition, with the leader epoch of the last record that was polled."""
        position = consumer._subscription.assignment[key].position
        return replace(self._logs.get(key, Log()), leader_epoch=position.leader_epoch if position is not None else -1)

    def own_offset(self, key: TopicPartition, offset: int) -> int:
        """In the log itself, as it is now."""
        return max(0, offset - self._logs.get(key, Log()).shift)

    def confirm(self, consumer: KafkaConsumer, client: BrokerClient, before: Positions, asked: bool) -> bool:
        """Whether the topic is the one that was read before. Where it may be another, or nobody knows, all goes back to `before`.

        asked: ask the brokers, if what they said last is too old. Raises SourceError for a topic that was created anew, unless that is
        accepted: then it goes on from its first record.
        """
        sure = not asked or self._is_confirmed(client)
        current = str(client.cluster.topic_id(self._topic) or "")
        others = []
        for key in before:
            log = self._logs.get(key, Log())
            if current and not log.topic_id:
                self._logs[key] = replace(log, topic_id=current)
            elif current and log.topic_id != current:
                others.append(key)
        if sure and not others:
            return True
        for key, position in before.items():
            place(consumer, key, position)
        for key in others:
            self._created_anew(consumer, key, before[key].offset, current)
        return False

    def go_on(self, consumer: KafkaConsumer, client: BrokerClient, error: kafka_errors.KafkaError) -> SourceError | None:
        """The next records are gone, or are others than before: an error, unless the operator has accepted that."""
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
        """The next records are not there any more."""
        first = _look_up(consumer.beginning_offsets, key)
        end = _look_up(consumer.end_offsets, key)
        if first <= offset <= end:  # the broker refuses the leader epoch of the record before: its log knows nothing of it
            self._cut_back(consumer, key, None)
            return
        what = f"offset {offset} of {_name(key)} is gone: it holds {first} to {end} now"
        cause = "deleted by retention" if offset < first else "the log is shorter than before"
        self._go_on(consumer, key, offset, first, f"{what} ({cause})", cause, end)

    def _cut_back(self, consumer: KafkaConsumer, key: TopicPartition, agrees_to: OffsetAndMetadata | None) -> None:
        """Records that were read are not those of the log any more.

        agrees_to: the offset up to which they are; None where nothing is known of them.
        """
        offset = consumer._subscription.assignment[key].position.offset
        first = _look_up(consumer.beginning_offsets, key)
        following = max(first, agrees_to.offset) if agrees_to is not None else first
        what = f"the log of {_name(key)} was cut back to offset {following}: it was read to {offset}, and holds other records behind it now"
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
        self._tell("records_lost", found)

    def _is_confirmed(self, client: BrokerClient) -> bool:
        """Whether the brokers have said shortly before, or say now, which topic this is."""
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
    """Of the partitions that have one."""
    assignment = consumer._subscription.assignment
    return {key: state.position for key, state in list(assignment.items()) if state.position is not None}


def place(consumer: KafkaConsumer, key: TopicPartition, position: OffsetAndMetadata) -> None:
    """As KafkaConsumer.seek, which has no leader epoch: with one, the client notices a log that was cut back."""
    if consumer._subscription.is_assigned(key):
        consumer._subscription.seek(key, position)


def _look_up(question: Any, key: TopicPartition) -> int:
    return int(question([key], timeout_ms=LOOKUP_TIMEOUT_MS)[key])


def _name(key: TopicPartition) -> str:
    return f"{key.topic}-{key.partition}"
