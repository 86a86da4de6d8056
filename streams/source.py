"""The interface of every source of telemetry: Kafka, a file or folder, the simulator.

A new source is one file with a class that inherits from `Source` and implements `poll` and `seek`. Every other method has a default that
is right for a source without groups, brokers and offsets to publish.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

from features.telemetry import Partition


class SourceError(Exception):
    """A source cannot deliver records, and waiting would not help. The message has the problem, the place and what to do."""


@dataclass(frozen=True, slots=True)
class Log:
    """Identity of the log in which the offsets of a partition count. Another log has other records under the same offsets.

    Args:
        topic_id: Of Kafka, its id of the topic: another one for each topic that is created under the same name. Of files, a digest of
            the first record and its columns. "" means unknown.
        leader_epoch: Of Kafka, that of the record before the offset: a log that was cut back since has another end for it. Of files, the
            CRC-32 of that record, which shows that a file has changed before the offset. -1 means unknown.
        shift: Is added to the log's own offsets, so that they go on from the end of the log before.
    """

    topic_id: str = ""
    leader_epoch: int = -1
    shift: int = 0


ONLY_LOG: Final = Log()
"""For a source that has one log only, such as the simulator."""


@dataclass(frozen=True, slots=True)
class Written:
    """The time at which a record was written, as its topic has it.

    Args:
        time_s: UTC seconds.
        by_broker: True for the broker's clock (LogAppendTime), which no producer can forge. False for the producer's (CreateTime).
    """

    time_s: float
    by_broker: bool = False


@dataclass(frozen=True, slots=True)
class RawBatch:
    """N undecoded records of one partition, in stream order.

    Args:
        partition: Where they are from.
        offsets: N offsets, strictly ascending, also from batch to batch of a partition.
        values: N values; None is a Kafka tombstone.
        form: How the values are encoded.
        columns: For the form "csv", the header of the file.
        lines: For files, the name and the line number of each record, which dead letters report.
        log: The log in which the offsets count; of Kafka with the leader epoch of the last record.
        written: For Kafka, the time at which each record was written, None if the topic has none.
    """

    partition: Partition
    offsets: Sequence[int]
    values: Sequence[bytes | None]
    form: Literal["json", "csv"] = "json"
    columns: tuple[str, ...] = ()
    lines: Sequence[tuple[str, int]] | None = None
    log: Log = ONLY_LOG
    written: Sequence[Written | None] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def log_at_end(self) -> Log:
        """`log` with the facts about the last record: the argument for a seek to the offset after it."""
        return self.log if self.lines is None else replace(self.log, leader_epoch=zlib.crc32(self.values[-1] or b""))


@dataclass(frozen=True, slots=True)
class Polled:
    """Result of one poll. Changes of the assignment come before the batches and apply to them.

    Args:
        batches: Records.
        assigned: New partitions. The caller seeks each of them before the next poll; only then do their records start to come.
        revoked: Partitions that go to another member. Their state may still be written and committed before `release` is called.
        lost: Partitions that already belong to another member: drop their state.
        passed: Next offset of partitions that go on behind the offset that was sought, because the group has read on elsewhere since.
        ended: True when a finite source has no more records.
        silent_s: How long the thread of the source has not come back, in seconds; 0 while it works.
    """

    batches: list[RawBatch] = field(default_factory=list)
    assigned: frozenset[Partition] = frozenset()
    revoked: frozenset[Partition] = frozenset()
    lost: frozenset[Partition] = frozenset()
    passed: Mapping[Partition, int] = field(default_factory=dict)
    ended: bool = False
    silent_s: float = 0.0


class Source(Protocol):
    """A stream of telemetry in partitions, read at least once from any offset that still exists."""

    paused: bool = False

    @abstractmethod
    def poll(self, timeout_s: float) -> Polled:
        """Return the next records, after waiting up to timeout_s for them.

        A broker that is away is not an error: the source retries with back-off. Nothing comes of a partition before it is sought.

        Raises:
            SourceError: There will be no more records without somebody's help.
        """
        ...

    @abstractmethod
    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:
        """Let the next record of an assigned partition come from an offset.

        Args:
            partition: An assigned partition.
            offset: Of the next record. None: the earliest (or the committed) one.
            log: `log_at_end` of the batch before. If the source has another log now, it reports that with the next poll.
        """
        ...

    def release(self, partitions: frozenset[Partition]) -> None:  # noqa: ARG002 - for sources that override it
        """Let revoked partitions go to their next owner: their state is written. By default nothing is ever revoked."""
        return

    def commit(self, offsets: Mapping[Partition, int]) -> None:  # noqa: ARG002 - for sources that override it
        """Publish next offsets for lag monitors, without waiting for the broker. By default there is nobody to publish to."""
        return

    def pause(self) -> None:
        """Stop the records. Polls go on for heartbeats and rebalances."""
        self.paused = True

    def resume(self) -> None:
        """Let records come again."""
        self.paused = False

    def lag(self) -> int | None:
        """Return how many records lie between the last polled one and the readable end of the assigned partitions; None if unknown."""
        return None

    def held(self) -> int:
        """Return how many records behind that end are written but not readable yet, because a producer's transaction is open."""
        return 0

    def keyless(self) -> int:
        """Return how many records without a key came since the start. In a topic of several partitions, such records split links."""
        return 0

    def generation(self) -> int:
        """Return the generation of the group, which fences the state of a member that has lost a partition; 0 without a group."""
        return 0

    def healthy(self) -> bool:
        """Return whether the source is connected and can deliver records now."""
        return True

    def troubles(self) -> list[str]:
        """Return why there are no records, or not all of them, each with what to do. An empty list: all is well."""
        return []

    def close(self) -> None:
        """Close what the source has open."""
        return
