"""The lag of a consumer, and the partitions that stand still although they have records."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from streams.kafka.log import LOOKUP_TIMEOUT_MS

ASK_AFTER_S: Final = 10.0
"""Seconds without progress after which the end of a partition is requested: without records there is no news of the end either.

The answer is the end for read_committed, so that an open transaction of a producer does not count as readable records."""
STALE_S: Final = 2.0
"""Age of the known end, in seconds, after which it is requested.

The client fetches more of a partition only when its records are used up, which may be 100,000. Until then it knows the end of the last
fetch, and the lag of a stream that comes faster than it is read would seem to fall."""
LOOKUP_EVERY_S: Final = 5.0
"""Seconds between two questions to the brokers."""
LOOKUP_AGAIN_S: Final = 30.0
"""Seconds after a question that nobody answered: each costs the thread of the member its whole time-out."""
UNHEARD_S: Final = 60.0
"""Seconds without news of an end that are reported: twice the client's time limit for a request, which then reconnects."""
STUCK_S: Final = 300.0
"""Seconds without progress that are reported.

A partition may have to wait for its turn while others catch up: the 50 MB of one broker's answer are some 300,000 records, half a minute of
work, and several answers may be ahead of it."""
HELD_S: Final = 60.0
"""Seconds that records may wait behind an open transaction before that is reported.

This is the time limit of a transaction in most producers, after which the broker ends one whose producer has died. A producer may raise it
to 15 minutes, and the configuration of the broker further."""


@dataclass(frozen=True, slots=True)
class Held:
    """Records of a partition that an open transaction hides from readers of committed records.

    Args:
        partition: The partition.
        offset: Where the transaction began.
        records: How many records it hides.
        seconds: How long it has hidden them.
    """

    partition: TopicPartition
    offset: int
    records: int
    seconds: float

    def todo(self, servers: str) -> str:
        """Return what to do, with the commands. servers: for the commands."""
        tool, where = f"kafka-transactions.sh --bootstrap-server {servers}", f"--topic {self.partition.topic}"
        where += f" --partition {self.partition.partition}"
        return (
            "find the producer whose transaction is open, and restart or stop it: the broker ends the transaction after its "
            f"transaction.timeout.ms. Commands: {tool} describe-producers {where}; {tool} abort {where} --start-offset {self.offset}"
        )


@dataclass(slots=True)
class _Place:
    """Position of a partition, and its end as far as known.

    Args:
        position: Offset of the next record; None if unknown.
        since_s: When the position last changed, monotonic seconds.
        heard_s: When the broker last reported the end, monotonic seconds.
        end: Up to which records can be read (the last stable offset) if that was asked for, else `written`.
        written: The high watermark.
        held_since_s: Since when all readable records are read and more are written, monotonic seconds.
    """

    position: int | None
    since_s: float
    heard_s: float
    end: int | None = None
    written: int | None = None
    held_since_s: float | None = None

    def move(self, position: int | None, now_s: float) -> None:
        """Note the position. If it has changed, no transaction holds the partition."""
        if self.position != position:
            self.position, self.since_s, self.held_since_s = position, now_s, None

    def hear(self, end: int | None, now_s: float) -> None:
        """Note the end that a fetch reports. The fetch may have waited for long, so only a later end is news."""
        if end is not None and (self.end is None or end > self.end):
            self.end, self.heard_s = end, now_s

    def asks(self, now_s: float) -> bool:
        """Return whether the end has to be asked for."""
        return now_s - self.since_s > ASK_AFTER_S or (bool(self.behind) and now_s - self.heard_s > STALE_S)

    @property
    def behind(self) -> int | None:
        """Records from the position to the end; None if either is unknown."""
        return max(0, self.end - self.position) if self.end is not None and self.position is not None else None

    @property
    def held(self) -> int:
        """Records that are written but not readable yet."""
        return max(0, self.written - self.end) if self.end is not None and self.written is not None else 0

    def look(self, now_s: float) -> None:
        """Note since when a transaction holds the partition."""
        if not self.held or self.behind != 0:
            self.held_since_s = None
        elif self.held_since_s is None:
            self.held_since_s = now_s


class KafkaLag:
    """The lag of a connected consumer, as the last look found it."""

    def __init__(self) -> None:
        self.records: int | None = None
        """Records between the next one to poll and the readable end, over the assignment; None while an end is unknown."""
        self.held = 0
        """Records behind an open transaction, which become readable when it ends."""
        self.holds: list[Held] = []
        """Partitions that a transaction has held for longer than HELD_S."""
        self._places: dict[TopicPartition, _Place] = {}
        self._next_lookup_s = 0.0
        self._troubles: list[str] = []

    def look(self, consumer: KafkaConsumer, servers: str, leader_of: Callable[[TopicPartition], str]) -> None:
        """Look at the consumer.

        Args:
            consumer: The consumer.
            servers: Addresses, for messages.
            leader_of: Describes the leader of a partition, for messages.
        """
        now_s = time.monotonic()
        paused = consumer.paused()
        self._follow(consumer, now_s)
        asked = [part for part, place in self._places.items() if part in paused or place.asks(now_s)]
        if asked and now_s >= self._next_lookup_s:
            self._ask(consumer, asked, now_s)
        for place in self._places.values():
            place.look(now_s)
        behind = [place.behind for place in self._places.values()]
        known = [records for records in behind if records is not None]
        self.records = sum(known) if len(known) == len(behind) else None
        self.held = sum(place.held for place in self._places.values())
        self.holds = [held for part, place in self._places.items() if (held := _held(part, place, now_s)) is not None]
        found = (_trouble(part, place, part in paused, now_s, leader_of) for part, place in self._places.items())
        self._troubles = [text for text in found if text] + [_hold(held, servers) for held in self.holds]

    def troubles(self) -> list[str]:
        """Return the partitions without news or without progress, each with what to do."""
        return self._troubles

    def forget(self) -> None:
        """Forget everything: the consumer is not connected."""
        self.records, self.held, self.holds, self._places, self._troubles = None, 0, [], {}, []

    def _follow(self, consumer: KafkaConsumer, now_s: float) -> None:
        places = {}
        for part in consumer.assignment():
            position = _position(consumer, part)
            place = self._places.get(part) or _Place(position, now_s, now_s)
            place.move(position, now_s)
            place.written = consumer.highwater(part)
            if now_s - place.since_s <= ASK_AFTER_S:
                place.hear(place.written, now_s)
            places[part] = place
        self._places = places

    def _ask(self, consumer: KafkaConsumer, parts: list[TopicPartition], now_s: float) -> None:
        try:
            ends = consumer.end_offsets(parts, timeout_ms=LOOKUP_TIMEOUT_MS)
        except kafka_errors.RetriableError:
            self._next_lookup_s = now_s + LOOKUP_AGAIN_S
            return
        self._next_lookup_s = now_s + LOOKUP_EVERY_S
        for part, end in ends.items():
            self._places[part].end, self._places[part].heard_s = end, now_s


def _position(consumer: KafkaConsumer, part: TopicPartition) -> int | None:
    try:
        position: int | None = consumer.position(part, timeout_ms=0)
    except kafka_errors.RetriableError:  # the partition waits for its seek, or for its leader
        return None
    return position


def _held(part: TopicPartition, place: _Place, now_s: float) -> Held | None:
    if place.held_since_s is None or now_s - place.held_since_s <= HELD_S or place.end is None:
        return None
    return Held(part, place.end, place.held, now_s - place.held_since_s)


def _hold(held: Held, servers: str) -> str:
    name = f"{held.partition.topic}-{held.partition.partition}"
    what = (
        f"an open transaction of a producer has held {held.records} records of {name} from offset {held.offset} on for {held.seconds:.0f} s"
    )
    return f"{what}: {held.todo(servers)}"


def _trouble(part: TopicPartition, place: _Place, paused: bool, now_s: float, leader_of: Callable[[TopicPartition], str]) -> str | None:
    name = f"{part.topic}-{part.partition}"
    unheard_s, stood_s = now_s - place.heard_s, now_s - place.since_s
    if unheard_s > ASK_AFTER_S + UNHEARD_S:
        return f"no broker has reported the end offset of {name} for {unheard_s:.0f} s: see that {leader_of(part)} runs and answers"
    if not paused and place.position is None and stood_s > STUCK_S:
        return f"the position in {name} has been unknown for {stood_s:.0f} s: see that {leader_of(part)} and the group's coordinator answer"
    if not paused and stood_s > STUCK_S and place.behind:
        waiting = f"{place.behind} records of {name} have not come for {stood_s:.0f} s, its position is {place.position}"
        return f"{waiting}: see the log of {leader_of(part)}, and restart this daemon if other consumers read it"
    return None
