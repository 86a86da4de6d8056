"""The simulator as a source: a keyed stream in partitions, first its history, then live at a multiple of real time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import numpy as np

from features.telemetry import Longs, Partition
from streams.simulator.fleet import FleetSpec, build_fleet
from streams.simulator.records import Records
from streams.simulator.simulation import Simulation
from streams.source import ONLY_LOG, Log, Polled, RawBatch

_SHORTEST_WAIT_S: Final = 0.02  # live records come one by one: wait for a few rather than hand over each alone
_MAX_RECORDS: Final = 5_000  # 10-15 ms of encoding
_NOT_SOUGHT: Final = np.iinfo(np.int64).max


class SimulatorSource:
    """A Source over a simulated fleet. Nothing is stored: a seek backwards generates the stream again, to the same bytes.

    The first history_s of duration_s come as fast as they are polled. The rest comes at `speed` times real time (None: as fast as
    it is polled), counted from the first live record; with hold_live no live record comes before `go_live()`, and time counts from there.
    clock: monotonic seconds; sleep: waits for seconds. Raises ValueError for values out of range.
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
        self._announced = self._paused = False

    @property
    def event_time_s(self) -> float:
        """The simulated time: of the last record that was polled, or while live, what the clock says."""
        now_s = self._live.now_s()
        return self._delivered_s if now_s is None else max(self._delivered_s, min(now_s, self._end_s))

    def go_live(self) -> None:
        """Live time begins now, or with the first live record where the history is not yet polled to its end."""
        self._live.start()

    def poll(self, timeout_s: float) -> Polled:
        """The next records of the partitions that were sought, in order of arrival over all of them."""
        if not self._announced:
            self._announced = True
            return Polled(assigned=frozenset(self._partitions))
        deadline_s = self._clock() + timeout_s
        while not self._paused and self._stream.sought:
            if not self._stream.waiting:
                if self._stream.at_end and self._stream.sought == len(self._partitions):
                    return Polled(ended=True)
                if self._stream.at_end:
                    break  # the rest is in a partition that is not sought yet
                self._stream.advance()
                if self._stream.waiting or self._clock() < deadline_s:
                    continue
                return Polled()
            batches = self._take()
            if batches:
                return Polled(batches)
            if self._clock() >= deadline_s:
                return Polled()
            self._sleep(min(max(0.0, deadline_s - self._clock()), max(self._live.wait_s(self._stream.next_arrival_s), _SHORTEST_WAIT_S)))
        self._sleep(max(0.0, deadline_s - self._clock()))
        return Polled()

    def _take(self) -> list[RawBatch]:
        """Up to max_records that are due, a batch for each partition."""
        taken = self._stream.take(self._max_records, self._live.due_s(self._stream.next_arrival_s))
        if not len(taken.records):
            return []
        self._delivered_s = float(taken.records.arrival_s[-1])
        values = taken.records.json()
        batches = []
        for partition in self._partitions:
            mine = np.flatnonzero(taken.partition == partition.number)
            if len(mine):
                batches.append(RawBatch(partition, taken.offset[mine].tolist(), [values[i] for i in mine]))
        return batches

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:  # noqa: ARG002 - there is one only
        """See Source. Offsets begin at 0. ValueError for another partition or a negative offset."""
        if partition not in self._partitions or (offset is not None and offset < 0):
            raise ValueError(
                f"seek of {partition} to {offset}: the simulator has {self._partitions[0].topic}-0 to {self._partitions[-1]}, from 0"
            )
        self._stream.seek(partition.number, offset or 0)

    def release(self, partitions: frozenset[Partition]) -> None:
        """Nothing is ever revoked."""

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Nobody watches the lag of a simulation."""

    def pause(self) -> None:
        """See Source. Live time goes on, as it does for a topic."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def lag(self) -> int | None:
        """None: how many records are still to come is known once they are generated."""
        return None

    def held(self) -> int:
        return 0

    def keyless(self) -> int:
        return 0

    def generation(self) -> int:
        return 0

    def healthy(self) -> bool:
        return True

    def troubles(self) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing is held open."""


class _LiveTime:
    """Which simulated time it is, once the history is over."""

    def __init__(self, history_end_s: float, speed: float | None, held: bool, clock: Callable[[], float]) -> None:
        self._history_end_s, self._speed, self._held, self._clock = history_end_s, speed, held, clock
        self._wall_s: float | None = None
        self._event_s: float | None = None

    def start(self) -> None:
        self._held = False
        self._wall_s = self._clock() if self._wall_s is None else self._wall_s

    def due_s(self, next_arrival_s: float) -> float:
        """Records that arrive before this time may come."""
        if self._event_s is None:
            if next_arrival_s < self._history_end_s or self._held:
                return self._history_end_s
            # Not the end of the history: a restart may begin in the middle of the live part, and goes on from there.
            self._event_s = next_arrival_s
            self.start()
        now_s = self.now_s()
        return math.inf if now_s is None else math.nextafter(now_s, math.inf)

    def now_s(self) -> float | None:
        """None where time only follows the polls."""
        if self._speed is None or self._event_s is None or self._wall_s is None:
            return None
        return self._event_s + (self._clock() - self._wall_s) * self._speed

    def wait_s(self, next_arrival_s: float) -> float:
        """Real seconds until a record is due; 0 where that hangs on something else than the clock."""
        now_s = self.now_s()
        return 0.0 if now_s is None or self._speed is None else (next_arrival_s - now_s) / self._speed


@dataclass(frozen=True, slots=True)
class _Numbered:
    """N records with the partition and the offset of each, int64 (N,)."""

    records: Records
    partition: Longs
    offset: Longs


class _PartitionedStream:
    """The run as a keyed producer would write it: a link in one partition, offsets counted in each. One block is held at a time."""

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
        """Generates the next block."""
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
        self._taken = 0

    @property
    def sought(self) -> int:
        """How many partitions were sought."""
        return int((self._wanted != _NOT_SOUGHT).sum())

    @property
    def at_end(self) -> bool:
        """Whether the held block is the last one."""
        return self._simulation.next_tick >= self._ticks

    @property
    def waiting(self) -> int:
        """How many records of the held block are still to be taken."""
        return len(self._positions) - self._taken

    @property
    def next_arrival_s(self) -> float:
        return float(self._arrival_s[self._taken])

    def take(self, most: int, before_s: float) -> _Numbered:
        """The next records, at most so many, that arrive before a time."""
        due = int(np.searchsorted(self._arrival_s, before_s))
        chosen = self._positions[self._taken : min(due, self._taken + most)]
        self._taken += len(chosen)
        number, offset = self._block.partition[chosen], self._block.offset[chosen]
        self._wanted[number] = offset + 1  # of equal indices the last one counts, and offsets ascend
        return _Numbered(self._block.records.take(chosen), number, offset)
