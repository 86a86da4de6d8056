"""The simulator as a source: a keyed stream in partitions, first its history, then live at a multiple of real time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import numpy as np

from features.telemetry import Longs, Partition
from streams.simulator.fleet import FleetSpec, build_fleet
from streams.simulator.records import Records
from streams.simulator.simulation import Simulation
from streams.source import ONLY_LOG, Log, Polled, RawBatch, Source

_SHORTEST_WAIT_S: Final = 0.02  # live records come one by one: wait for a few rather than hand over each alone
_MAX_RECORDS: Final = 5_000  # 10-15 ms of encoding
_NOT_SOUGHT: Final = np.iinfo(np.int64).max


class SimulatorSource(Source):
    """A source over a simulated fleet. Nothing is stored: a seek backwards generates the stream again, to the same bytes.

    Args:
        spec: The fleet.
        duration_s: Length of the stream, seconds.
        history_s: Its first part, seconds, which comes as fast as it is polled.
        speed: Multiple of real time at which the rest comes, counted from the first live record. None: as fast as it is polled.
        partitions: How many partitions the links are spread over.
        hold_live: No live record comes before `go_live()`, and time counts from there.
        topic: Name of the topic.
        max_records: Of one poll.
        clock: Monotonic seconds.
        sleep: Waits for seconds.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        spec: FleetSpec,
        duration_s: float,
        history_s: float = 0.0,
        speed: float | None = None,
        partitions: int = 1,
        *,
        hold_live: bool = False,
        topic: str = "simulator",
        max_records: int = _MAX_RECORDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 <= history_s <= duration_s:
            raise ValueError(f"history_s is {history_s}: between 0 and duration_s, {duration_s}")
        if (speed is not None and not speed > 0) or partitions < 1 or max_records < 1:
            raise ValueError("speed must be above 0 (None: as fast as possible), partitions and max_records at least 1")
        self._max_records, self._clock, self._sleep = max_records, clock, sleep
        self._partitions = [Partition(topic, number) for number in range(partitions)]
        self._stream = _PartitionedStream(spec, spec.tick_count(duration_s), partitions)
        self._live = _LiveTime(spec.start_s + history_s, speed, hold_live, clock)
        self._delivered_s = spec.start_s
        self._end_s = spec.start_s + duration_s
        self._announced = False

    @property
    def event_time_s(self) -> float:
        """Simulated time, UTC seconds: of the last record that was polled, or while live, by the clock."""
        now_s = self._live.now_s()
        return self._delivered_s if now_s is None else max(self._delivered_s, min(now_s, self._end_s))

    def go_live(self) -> None:
        """Start live time now, or with the first live record if the history is not yet polled to its end."""
        self._live.start()

    def poll(self, timeout_s: float) -> Polled:
        """Return the next records of the partitions that were sought, in order of arrival over all of them."""
        if not self._announced:
            self._announced = True
            return Polled(assigned=frozenset(self._partitions))
        deadline_s = self._clock() + timeout_s
        while not self.paused and self._stream.sought:
            if not self._stream.waiting:
                if self._stream.at_end and self._stream.sought == len(self._partitions):
                    return Polled(ended=True)
                if self._stream.at_end:
                    break  # the rest is in a partition that is not sought yet
                self._stream.advance()
                if self._stream.waiting or self._clock() < deadline_s:
                    continue
                return Polled()
            batches = self._due_batches()
            if batches:
                return Polled(batches)
            if self._clock() >= deadline_s:
                return Polled()
            self._sleep(min(max(0.0, deadline_s - self._clock()), max(self._live.wait_s(self._stream.next_arrival_s), _SHORTEST_WAIT_S)))
        self._sleep(max(0.0, deadline_s - self._clock()))
        return Polled()

    def _due_batches(self) -> list[RawBatch]:
        """Return up to max_records that are due, a batch for each partition."""
        due = self._stream.advance_to(self._live.due_s(self._stream.next_arrival_s), self._max_records)
        if not len(due.records):
            return []
        self._delivered_s = float(due.records.arrival_s[-1])
        values = due.records.json()
        batches = []
        for partition in self._partitions:
            mine = np.flatnonzero(due.partition == partition.number)
            if len(mine):
                batches.append(RawBatch(partition, due.offset[mine].tolist(), [values[i] for i in mine]))
        return batches

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:  # noqa: ARG002 - there is one only
        """Let the next record of a partition come from an offset. Raises ValueError for another partition or a negative offset."""
        if partition not in self._partitions or (offset is not None and offset < 0):
            raise ValueError(
                f"seek of {partition} to {offset}: the simulator has {self._partitions[0].topic}-0 to {self._partitions[-1]}, from 0"
            )
        self._stream.seek(partition.number, offset or 0)


class _LiveTime:
    """Simulated time after the end of the history."""

    def __init__(self, history_end_s: float, speed: float | None, held: bool, clock: Callable[[], float]) -> None:
        self._history_end_s, self._speed, self._held, self._clock = history_end_s, speed, held, clock
        self._wall_s: float | None = None
        self._event_s: float | None = None

    def start(self) -> None:
        self._held = False
        self._wall_s = self._clock() if self._wall_s is None else self._wall_s

    def due_s(self, next_arrival_s: float) -> float:
        """Return the time before which records may arrive, UTC seconds."""
        if self._event_s is None:
            if next_arrival_s < self._history_end_s or self._held:
                return self._history_end_s
            # Not the end of the history: a restart may begin in the middle of the live part, and goes on from there.
            self._event_s = next_arrival_s
            self.start()
        now_s = self.now_s()
        return math.inf if now_s is None else math.nextafter(now_s, math.inf)

    def now_s(self) -> float | None:
        """Return the simulated time; None if it only follows the polls."""
        if self._speed is None or self._event_s is None or self._wall_s is None:
            return None
        return self._event_s + (self._clock() - self._wall_s) * self._speed

    def wait_s(self, next_arrival_s: float) -> float:
        """Return the real seconds until a record is due; 0 if that does not depend on the clock."""
        now_s = self.now_s()
        return 0.0 if now_s is None or self._speed is None else (next_arrival_s - now_s) / self._speed


@dataclass(frozen=True, slots=True)
class _Numbered:
    """N records with the partition and the offset of each, int64 (N,)."""

    records: Records
    partition: Longs
    offset: Longs


class _PartitionedStream:
    """The run as a keyed producer would write it: each link in one partition, offsets counted in each. One block is in memory at a time."""

    def __init__(self, spec: FleetSpec, ticks: int, partitions: int) -> None:
        self._spec, self._ticks, self._count = spec, ticks, partitions
        self._fleet = build_fleet(spec)
        self._partition_of_link = np.array([crc32(self._fleet.key(link)) % partitions for link in range(len(self._fleet))])
        self._wanted = np.full(partitions, _NOT_SOUGHT)
        self._restart()

    def _restart(self) -> None:
        self._simulation = Simulation(self._spec, self._fleet)
        self._end = np.zeros(self._count, np.int64)
        self.advance()

    def advance(self) -> None:
        """Generate the next block."""
        self._start = self._end
        records = self._simulation.block().until_tick(self._ticks)
        partition = self._partition_of_link[records.link]
        offset = np.empty(len(records), np.int64)
        for number in range(self._count):
            mine = np.flatnonzero(partition == number)
            offset[mine] = self._start[number] + np.arange(len(mine))
        self._end = self._start + np.bincount(partition, minlength=self._count)
        self._block = _Numbered(records, partition, offset)
        self._select()

    def seek(self, number: int, offset: int) -> None:
        self._wanted[number] = offset
        if offset < self._start[number]:
            self._restart()
        else:
            self._select()

    def _select(self) -> None:
        self._positions = np.flatnonzero(self._block.offset >= self._wanted[self._block.partition])
        self._arrival_s = self._block.records.arrival_s[self._positions]
        self._passed = 0

    @property
    def sought(self) -> int:
        """Number of partitions that were sought."""
        return int((self._wanted != _NOT_SOUGHT).sum())

    @property
    def at_end(self) -> bool:
        """True if the block in memory is the last one."""
        return self._simulation.next_tick >= self._ticks

    @property
    def waiting(self) -> int:
        """Number of records of the block in memory that are still to come."""
        return len(self._positions) - self._passed

    @property
    def next_arrival_s(self) -> float:
        return float(self._arrival_s[self._passed])

    def advance_to(self, before_s: float, most: int) -> _Numbered:
        """Return the next records that arrive before a time (UTC seconds), at most `most` of them."""
        due = int(np.searchsorted(self._arrival_s, before_s))
        chosen = self._positions[self._passed : min(due, self._passed + most)]
        self._passed += len(chosen)
        number, offset = self._block.partition[chosen], self._block.offset[chosen]
        self._wanted[number] = offset + 1  # of equal indices the last one counts, and offsets ascend
        return _Numbered(self._block.records.select(chosen), number, offset)
