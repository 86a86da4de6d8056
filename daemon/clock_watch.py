"""Whether records lie in the future because their producer's clock is wrong, or because this machine's is.

A record of the future is refused, and its bytes end in the dead letters. But if nearly all links of a partition are in the future, and
Kafka says too that their records were written then, this machine's clock is behind: the records wait where they are until it is set. What
the broker has written down is certain. What producers say of themselves is not: a flood of such records stops the stream for a limited time
only, after which this machine's clock is believed again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
"""Share of the links from the first record of the future on. One relay with a wrong clock among ten is a producer's fault."""
REST_S: Final = 1.0
"""Seconds between two looks at the records that wait. Each reads them anew."""
NOT_READY_S: Final = 5.0
"""Seconds of waiting after which the daemon is not ready: a single record of the future in a quiet stream waits until others come."""
WAIT_S: Final[dict[str, float]] = {"certain": math.inf, "likely": 3600.0, "doubtful": 60.0}
"""Longest wait in seconds by what the evidence is worth. NTP sets a clock within minutes; an operator needs an hour."""
BELIEVED_S: Final = 86_400.0
"""Seconds for which this machine's clock is believed after the longest wait: the same flood does not stop the stream again every hour."""

Worth: TypeAlias = Literal["certain", "likely", "doubtful"]
"""certain: the broker's own times. likely: those of producers whose links are known, or of a stream that begins. doubtful: those of
producers that nobody knows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the records from the first one of the future on show.

    first: its place in the batch. links, links_ahead: that they are of, and that have come after the limit in the end. known_ahead: of
    the latter, known before. written_s: when the records of the future were written (the median), NaN if Kafka does not say.
    """

    first: int
    links: int
    links_ahead: int
    known_ahead: int
    written_s: float
    by_broker: bool


def evidence_of(rest: RawBatch, limit_s: float, knows: Callable[[TelemetryBatch], Flags]) -> Evidence | None:
    """limit_s: UTC seconds after which a record is of the future. knows: whether the link of each record was seen before. None: no record
    is valid and of the future."""
    batch = decode(rest, None).batch
    ahead = batch.time_s > limit_s
    if not ahead.any():
        return None
    place_of = {offset: place for place, offset in enumerate(rest.offsets)}
    begin = int(np.argmax(ahead))
    last = {(batch.node_id[row], batch.peer_id[row]): row for row in range(begin, len(batch))}
    rows = [row for row in last.values() if ahead[row]]
    written = [rest.written[place_of[offset]] for offset in batch.offsets[ahead].tolist()] if rest.written is not None else []
    stamps = [one for one in written if one is not None]
    known = knows(batch)
    return Evidence(
        first=place_of[int(batch.offsets[begin])],
        links=len(last),
        links_ahead=len(rows),
        known_ahead=int(np.count_nonzero(known[rows])),
        written_s=float(np.median([one.time_s for one in stamps])) if stamps else math.nan,
        by_broker=bool(stamps) and all(one.by_broker for one in stamps),
    )


def worth_of(evidence: Evidence, limit_s: float, links_known: int) -> Worth | None:
    """What the evidence is worth that this machine's clock is behind; None: it is not, and the records are refused."""
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
    told: bool = False


class ClockWatch:
    """Which partitions wait for this machine's clock, and what is said of it. All methods are called from the loop's thread."""

    def __init__(self, clock: Clock, observer: Observer, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._observer, self._monotonic = clock, observer, monotonic
        self._waiting: dict[Partition, _Waiting] = {}
        self._rests_until_s = self._believed_until_s = -math.inf
        self._ahead_told = self._caught_up = False

    @property
    def rests(self) -> bool:
        """Whether no record is to be read for the moment."""
        return self._monotonic() < self._rests_until_s

    @property
    def problem(self) -> str | None:
        """Why the stream waits, and what to do; None while it does not."""
        now_s = self._monotonic()
        waiting = {part: one for part, one in self._waiting.items() if now_s - one.since_s >= NOT_READY_S}
        if not waiting:
            return None
        behind_s = max(one.behind_s for one in waiting.values())
        where = ", ".join(f"{part} from offset {one.offset}" for part, one in sorted(waiting.items(), key=lambda item: str(item[0]))[:3])
        return (
            f"this machine's clock seems to be {behind_s:.0f} s behind: nearly all records have timestamps after it, but by "
            f"Kafka's times they are not of the future. They wait ({where}); set the clock (NTP), and reading resumes by itself"
        )

    def look(self, polled: Polled, lag: int | None) -> None:
        """Holds the clock against the times of records that have come just now: nothing was left to read before, or hardly anything. Those
        that wait are read again and again, and have come before."""
        have_come_now, self._caught_up = self._caught_up, lag is not None and lag <= sum(map(len, polled.batches))
        if not have_come_now:
            return
        fresh = [raw.written for raw in polled.batches if raw.written is not None and raw.partition not in self._waiting]
        stamps = [[one.time_s for one in written if one is not None] for written in fresh]
        medians = [float(np.median(times_s)) for times_s in stamps if times_s]
        if not medians:
            return
        ahead_s = self._clock.compare(float(np.median(medians)))
        self._observer.clock_ahead.set(ahead_s)
        if ahead_s > MAX_FUTURE_S and not self._ahead_told:
            remedy = "compare the clocks of this machine, the brokers and the producers; until then, future timestamps are not refused"
            self._observer.tell("clock_ahead", ahead_s=round(ahead_s), remedy=remedy)
        self._ahead_told = ahead_s > MAX_FUTURE_S

    def holds(
        self, partition: Partition, rest: RawBatch, limit_s: float, knows: Callable[[TelemetryBatch], Flags], known: int
    ) -> int | None:  # fmt: skip
        """Whether records wait.

        Args:
            rest: records from the piece on that has a refused one.
            limit_s: UTC seconds after which a record is of the future.
            knows: bool (N,), whether the link of each record was seen before.
            known: how many links were.

        Returns:
            The place in `rest` of the first record that waits. None: all are taken, and refused where they are of the future.
        """
        now_s, stamps = self._monotonic(), rest.written or ()
        believed = self._clock.confirmed or now_s < self._believed_until_s
        if not stamps or (believed and not any(one is not None and one.by_broker for one in stamps)):
            return None
        if not any(one is not None and one.time_s > limit_s for one in stamps):  # the evidence would be worth nothing, and is dear
            return None
        evidence = evidence_of(rest, limit_s, knows)
        worth = worth_of(evidence, limit_s, known) if evidence is not None else None
        if evidence is None or worth is None or (believed and worth != "certain"):
            return None
        offset = rest.offsets[evidence.first] - rest.log.shift
        waiting = self._waiting.get(partition)
        if waiting is None or waiting.offset != offset:
            waiting = self._waiting[partition] = _Waiting(now_s, offset)
        behind_s = evidence.written_s - (self._clock.latest_record_s() or 0.0)
        waiting.behind_s = max(waiting.behind_s, behind_s)  # less with each second that records wait
        waited_s = now_s - waiting.since_s
        if waited_s > WAIT_S[worth]:
            self._believe(partition, waiting)
            return None
        self._rests_until_s = now_s + REST_S
        self._observer.clock_waits.set(len(self._waiting))
        if not waiting.told and waited_s >= NOT_READY_S:
            waiting.told = True
            self._observer.tell(
                "clock_behind", partition=str(partition), offset=offset, behind_s=round(waiting.behind_s), worth=worth,
                links=evidence.links, links_ahead=evidence.links_ahead, remedy="set this machine's clock (NTP); nothing is lost meanwhile",
            )  # fmt: skip
        return evidence.first

    def _believe(self, partition: Partition, waiting: _Waiting) -> None:
        """Ends a wait that was long enough: this machine's clock counts."""
        self._believed_until_s = self._monotonic() + BELIEVED_S
        del self._waiting[partition]
        self._observer.clock_waits.set(len(self._waiting))
        remedy = "find the producer whose clock is wrong, or set this machine's; the records are in the dead letters"
        self._observer.tell(
            "clock_believed", partition=str(partition), offset=waiting.offset, behind_s=round(waiting.behind_s), remedy=remedy
        )

    def took(self, partition: Partition) -> None:
        """Records of a partition were taken, and none of them waits any more."""
        if (waiting := self._waiting.pop(partition, None)) is not None:
            self._observer.clock_waits.set(len(self._waiting))
            if waiting.told:
                self._observer.tell("clock_right", partition=str(partition), waited_s=round(self._monotonic() - waiting.since_s))

    def give_up(self, partitions: frozenset[Partition]) -> None:
        """Partitions that belong to another member: it has a clock of its own."""
        for partition in partitions:
            self._waiting.pop(partition, None)
        self._observer.clock_waits.set(len(self._waiting))
