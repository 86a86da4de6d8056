"""The distinction between records of the future whose producer's clock is wrong, and those that show that this machine's clock is.

A record of the future is refused, and goes to the dead letters. But if nearly all links of a partition are in the future, and their records
were written then by Kafka's times too, this machine's clock is behind: the records wait where they are until it is set. The broker's own
times are certain. Those of producers are not: a flood of such records stops the stream for a limited time only, after which this machine's
clock counts again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from daemon.clock import Clock
from daemon.operator.observer import Observer
from features.telemetry import Flags, Partition, TelemetryBatch
from streams.records.decode import decode
from streams.records.validate import MAX_FUTURE_S
from streams.source import Polled, RawBatch

NEARLY_ALL: Final = 0.9
"""Share of the links, from the first record of the future on, that have to be ahead. One relay with a wrong clock among ten is a producer's
fault."""
REST_S: Final = 1.0
"""Seconds between two readings of the records that wait."""
NOT_READY_S: Final = 5.0
"""Seconds of waiting after which the daemon is not ready: a single record of the future in a quiet stream waits until others come."""
WAIT_S: Final[dict[str, float]] = {"certain": math.inf, "likely": 3600.0, "doubtful": 60.0}
"""Longest wait, in seconds, by the worth of the evidence. NTP sets a clock within minutes; an operator needs an hour."""
BELIEVED_S: Final = 86_400.0
"""Seconds for which this machine's clock counts after the longest wait: the same flood does not stop the stream again every hour."""

Worth: TypeAlias = Literal["certain", "likely", "doubtful"]
"""certain: the broker's own times. likely: times of producers whose links are known, or of a stream that begins. doubtful: times of
producers that nobody knows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Facts about the records of a batch, from the first record of the future on.

    Args:
        first: index of the first record of the future in the batch.
        links: number of their links.
        links_ahead: number of links whose last record is after the limit.
        known_ahead: number of these that were known before.
        written_s: when the records of the future were written (the median), UTC seconds; NaN if Kafka does not report it.
        by_broker: whether all of these times are the broker's own.
    """

    first: int
    links: int
    links_ahead: int
    known_ahead: int
    written_s: float
    by_broker: bool


def evidence_of(rest: RawBatch, limit_s: float, knows: Callable[[TelemetryBatch], Flags]) -> Evidence | None:
    """Return the evidence of the records of the future; None if no valid record is of the future.

    Args:
        rest: undecoded records.
        limit_s: UTC seconds after which a record is of the future.
        knows: returns bool (N,), whether the link of each record was seen before.
    """
    batch = decode(rest, None).batch
    ahead = batch.time_s > limit_s
    if not ahead.any():
        return None
    index_of = {offset: index for index, offset in enumerate(rest.offsets)}
    begin = int(np.argmax(ahead))
    last = {(batch.node_id[row], batch.peer_id[row]): row for row in range(begin, len(batch))}
    rows = [row for row in last.values() if ahead[row]]
    written = [rest.written[index_of[offset]] for offset in batch.offsets[ahead].tolist()] if rest.written is not None else []
    stamps = [stamp for stamp in written if stamp is not None]
    known = knows(batch)
    return Evidence(
        first=index_of[int(batch.offsets[begin])],
        links=len(last),
        links_ahead=len(rows),
        known_ahead=int(np.count_nonzero(known[rows])),
        written_s=float(np.median([stamp.time_s for stamp in stamps])) if stamps else math.nan,
        by_broker=bool(stamps) and all(stamp.by_broker for stamp in stamps),
    )


def worth_of(evidence: Evidence, limit_s: float, links_known: int) -> Worth | None:
    """Return the worth of the evidence that this machine's clock is behind; None: it is not behind, and the records are refused."""
    if not evidence.written_s > limit_s:
        return None
    if evidence.by_broker:  # whose clock may be wrong as well: then most links would not be of the future
        return "certain" if 2 * evidence.links_ahead >= evidence.links else None
    if evidence.links_ahead < NEARLY_ALL * evidence.links:
        return None
    return "likely" if not links_known or 2 * evidence.known_ahead >= evidence.links_ahead else "doubtful"


@dataclass(slots=True)
class _Waiting:
    since_s: float
    offset: int
    behind_s: float = 0.0
    reported: bool = False


class ClockWatch:
    """The partitions that wait for this machine's clock. All methods are called from the loop's thread."""

    def __init__(self, clock: Clock, observer: Observer) -> None:
        self._clock, self._observer = clock, observer
        self._waiting: dict[Partition, _Waiting] = {}
        self._rests_until_s = self._believed_until_s = -math.inf
        self._ahead_reported = self._caught_up = False

    @property
    def rests(self) -> bool:
        """True if no record should be read for the moment."""
        return self._clock.monotonic_s() < self._rests_until_s

    @property
    def problem(self) -> str | None:
        """Reason why the stream waits, and what to do; None while it does not wait."""
        now_s = self._clock.monotonic_s()
        waiting = {partition: wait for partition, wait in self._waiting.items() if now_s - wait.since_s >= NOT_READY_S}
        if not waiting:
            return None
        behind_s = max(wait.behind_s for wait in waiting.values())
        first = sorted(waiting.items(), key=lambda item: str(item[0]))[:3]
        where = ", ".join(f"{partition} from offset {wait.offset}" for partition, wait in first)
        return (
            f"this machine's clock seems to be {behind_s:.0f} s behind: nearly all records have timestamps after it, but by "
            f"Kafka's times they are not of the future. They wait ({where}); set the clock (NTP), and reading resumes by itself"
        )

    def compare(self, polled: Polled, lag: int | None) -> None:
        """Compare the clock with the times of records that have come just now: hardly anything was left to read before.

        Records that wait are read again and again, and have come before.

        Args:
            lag: records behind the end of the stream; None if unknown.
        """
        have_come_now, self._caught_up = self._caught_up, lag is not None and lag <= sum(map(len, polled.batches))
        if not have_come_now:
            return
        fresh = [raw.written for raw in polled.batches if raw.written is not None and raw.partition not in self._waiting]
        stamps = [[stamp.time_s for stamp in written if stamp is not None] for written in fresh]
        medians = [float(np.median(times_s)) for times_s in stamps if times_s]
        if not medians:
            return
        ahead_s = self._clock.compare(float(np.median(medians)))
        self._observer.clock_ahead.set(ahead_s)
        if ahead_s > MAX_FUTURE_S and not self._ahead_reported:
            remedy = "compare the clocks of this machine, the brokers and the producers; until then, future timestamps are not refused"
            self._observer.emit("clock_ahead", ahead_s=round(ahead_s), remedy=remedy)
        self._ahead_reported = ahead_s > MAX_FUTURE_S

    def holds(
        self, partition: Partition, rest: RawBatch, limit_s: float, knows: Callable[[TelemetryBatch], Flags], known: int
    ) -> int | None:  # fmt: skip
        """Decide whether records wait.

        Args:
            rest: records, beginning with the piece that has a refused one.
            limit_s: UTC seconds after which a record is of the future.
            knows: returns bool (N,), whether the link of each record was seen before.
            known: number of links that were seen before.

        Returns:
            Index in `rest` of the first record that waits. None: none waits, and those of the future are refused.
        """
        now_s, stamps = self._clock.monotonic_s(), rest.written or ()
        believed = self._clock.confirmed or now_s < self._believed_until_s
        if not stamps or (believed and not any(stamp is not None and stamp.by_broker for stamp in stamps)):
            return None
        if not any(stamp is not None and stamp.time_s > limit_s for stamp in stamps):  # the evidence would be worth nothing, and costs much
            return None
        evidence = evidence_of(rest, limit_s, knows)
        worth = worth_of(evidence, limit_s, known) if evidence is not None else None
        if evidence is None or worth is None or (believed and worth != "certain"):
            return None
        offset = rest.offsets[evidence.first] - rest.log.shift
        return evidence.first if self._waits(partition, offset, evidence, worth) else None

    def _waits(self, partition: Partition, offset: int, evidence: Evidence, worth: Worth) -> bool:
        """Note and report that records wait from an offset on. Return False once they have waited for the longest time allowed."""
        now_s = self._clock.monotonic_s()
        waiting = self._waiting.get(partition)
        if waiting is None or waiting.offset != offset:
            waiting = self._waiting[partition] = _Waiting(now_s, offset)
        behind_s = evidence.written_s - (self._clock.latest_record_s() or 0.0)
        waiting.behind_s = max(waiting.behind_s, behind_s)  # less with each second that records wait
        waited_s = now_s - waiting.since_s
        if waited_s > WAIT_S[worth]:
            self._believe(partition, waiting)
            return False
        self._rests_until_s = now_s + REST_S
        self._observer.clock_waits.set(len(self._waiting))
        if not waiting.reported and waited_s >= NOT_READY_S:
            waiting.reported = True
            self._observer.emit(
                "clock_behind", partition=str(partition), offset=offset, behind_s=round(waiting.behind_s), worth=worth,
                links=evidence.links, links_ahead=evidence.links_ahead, remedy="set this machine's clock (NTP); nothing is lost meanwhile",
            )  # fmt: skip
        return True

    def _believe(self, partition: Partition, waiting: _Waiting) -> None:
        """End a wait that was long enough: this machine's clock counts."""
        self._believed_until_s = self._clock.monotonic_s() + BELIEVED_S
        del self._waiting[partition]
        self._observer.clock_waits.set(len(self._waiting))
        remedy = "find the producer whose clock is wrong, or set this machine's; the records are in the dead letters"
        self._observer.emit(
            "clock_believed", partition=str(partition), offset=waiting.offset, behind_s=round(waiting.behind_s), remedy=remedy
        )

    def ingested(self, partition: Partition) -> None:
        """Note that records of a partition were ingested, and that none of them waits any more."""
        if (waiting := self._waiting.pop(partition, None)) is not None:
            self._observer.clock_waits.set(len(self._waiting))
            if waiting.reported:
                self._observer.emit("clock_right", partition=str(partition), waited_s=round(self._clock.monotonic_s() - waiting.since_s))

    def drop(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that belong to another member: it has a clock of its own."""
        for partition in partitions:
            self._waiting.pop(partition, None)
        self._observer.clock_waits.set(len(self._waiting))
