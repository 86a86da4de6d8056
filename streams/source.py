"""The one interface behind which every source of telemetry stands: Kafka, a file or folder, the simulator."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

from features.telemetry import Partition

Headers = Sequence[tuple[str, bytes]]


class SourceError(Exception):
    """A source cannot give records, and waiting would not help: the message says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Log:
    """What the offsets of a partition count in: another log has other records under them. The simulator has one only.

    topic_id: Kafka's, another one for each topic that is created under the same name; of files a digest of the first record and its
        columns; "" unknown.
    leader_epoch: of the record before the offset. A Kafka log that was cut back since knows another end of it; of files it is the CRC-32
        of that record, so that files that have changed before the offset are known to. -1 unknown.
    shift: what is added to the log's own offsets, so that they go on where those of the log before ended.
    """

    topic_id: str = ""
    leader_epoch: int = -1
    shift: int = 0


ONLY_LOG: Final = Log()


@dataclass(frozen=True, slots=True)
class Written:
    """When records were written, as their topic says. time_s: UTC seconds. by_broker: by the broker's clock (LogAppendTime), which no
    producer can forge; otherwise by the producer's (CreateTime)."""

    time_s: float
    by_broker: bool = False


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Undecoded records of one partition, in stream order. A value of None is a Kafka tombstone.

    offsets: strictly ascending, over all batches of a partition. log: where they count; of Kafka with the leader epoch of the last record.
    """

    partition: Partition
    offsets: Sequence[int]
    values: Sequence[bytes | None]
    form: Literal["json", "csv"] = "json"
    columns: tuple[str, ...] = ()
    """For form "csv": the file's header."""
    lines: Sequence[tuple[str, int]] | None = None
    """For files: name and line number of each record, for the dead letters."""
    log: Log = ONLY_LOG
    written: Sequence[Written | None] | None = None
    """For Kafka: when each record was written, None where the topic does not say."""

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def log_at_end(self) -> Log:
        """`log`, with what is known of the last record: what a seek to the offset after it is given."""
        return self.log if self.lines is None else replace(self.log, leader_epoch=zlib.crc32(self.values[-1] or b""))


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought. Changes of the assignment come before the batches and hold for them.

    assigned: partitions that are new here; the caller seeks each of them before it polls again, and their records
    only start to come then. revoked: partitions that go to another member, whose state may still be written and
    committed before `release` is called. lost: partitions that already belong to another member: drop their state.
    passed: partitions that go on behind the offset that was sought, each with its next offset: the group has read on elsewhere since.
    ended: a finite source has nothing more to give. silent_s: for how long the source's own thread has not come back; 0 while it works.
    """

    batches: list[RawBatch] = field(default_factory=list)
    assigned: frozenset[Partition] = frozenset()
    revoked: frozenset[Partition] = frozenset()
    lost: frozenset[Partition] = frozenset()
    passed: Mapping[Partition, int] = field(default_factory=dict)
    ended: bool = False
    silent_s: float = 0.0


class Source(Protocol):
    """A stream of telemetry in partitions, read at least once from any offset that is still there."""

    def poll(self, timeout_s: float) -> Polled:
        """Waits up to timeout_s for records. Never raises for a broker that is away: it retries with back-off."""
        ...

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:
        """The next record of an assigned partition comes from `offset`; None: from the earliest (or the committed) one.

        log: that of the batch before. A source whose log is another one now says so with the next poll.
        """
        ...

    def release(self, partitions: frozenset[Partition]) -> None:
        """Tells that the state of revoked partitions is written: they may go to their next owner."""
        ...

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Publishes next offsets for lag monitors, without waiting for the broker."""
        ...

    def pause(self) -> None:
        """Stops records, while polls go on for heartbeats and rebalances."""
        ...

    def resume(self) -> None: ...

    def lag(self) -> int | None:
        """Records between the last polled one and the end of what can be read of the assigned partitions; None when unknown."""
        ...

    def held(self) -> int:
        """Records behind that end, which are written and cannot be read yet: a producer's transaction is open before them."""
        ...

    def keyless(self) -> int:
        """Records without a key since the start, of a topic of several partitions, which such records split links over."""
        ...

    def generation(self) -> int:
        """The group generation, for fencing the state of a member that has lost a partition; 0 where there is no group."""
        ...

    def healthy(self) -> bool:
        """Whether the source is connected and can give records now."""
        ...

    def troubles(self) -> list[str]:
        """Why it cannot give records, or not all of them, each with what to do; empty: all is well."""
        ...

    def close(self) -> None: ...
