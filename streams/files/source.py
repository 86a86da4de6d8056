"""Replays telemetry from a CSV or NDJSON file, a folder of them, or standard input, as partition 0 of a topic of that name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np

from features.telemetry import Doubles, Partition
from streams.files.index import IndexedFiles
from streams.files.standard_input import StandardInput
from streams.source import ONLY_LOG, Log, Polled, RawBatch, SourceError

MAX_RECORDS: Final = 5_000  # a poll of 2-3 MB: large enough for bulk decoding, small enough to stop within a second


class _Records(Protocol):
    """Records in a fixed order, of which the next ones can be looked at and taken: IndexedFiles or StandardInput."""

    def seek(self, offset: int, log: Log) -> None: ...
    def fill(self, count: int, timeout_s: float) -> None: ...
    def ended(self) -> bool: ...
    def remaining(self) -> int | None: ...
    def times(self, count: int) -> Doubles: ...
    def take(self, partition: Partition, count: int) -> list[RawBatch]: ...
    def close(self) -> None: ...


class FileSource:
    """A finite source. A file's records come in the order of their timestamps (links interleaved), a pipe's as they arrive.

    path: a file (.csv, .ndjson, .jsonl, .json, also with .gz; any other name is recognised by its first byte), a folder
        whose files of these names are merged, or "-" for standard input.
    speed: multiple of recorded time at which records become due; None: as fast as the caller polls.

    Offsets are positions in that order, so the same files give the same offsets. A pipe cannot be rewound: after a seek
    its records are numbered on from there.
    Raises SourceError, here or in poll, when there is nothing to replay.
    """

    def __init__(
        self,
        path: Path | Literal["-"],
        speed: float | None = None,
        *,
        max_records: int = MAX_RECORDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        standard_input: int = 0,
    ) -> None:
        if speed is not None and not (0 < speed < np.inf):
            raise ValueError(f"speed is {speed}: give a multiple of recorded time above 0, or none for as fast as possible")
        self._records: _Records = StandardInput(standard_input) if path == "-" else IndexedFiles(Path(path))
        self.partition = Partition("stdin" if path == "-" else Path(path).resolve().name, 0)
        self._pace = None if speed is None else _Pace(speed, clock)
        self.max_records = max_records
        """Of one poll."""
        self._sleep = sleep
        self._announced = False
        self._sought = False
        self._paused = False
        self._closed = False

    def poll(self, timeout_s: float) -> Polled:
        """The next records that are due, at most max_records. After the last ones: `ended`, from then on in every poll."""
        if not self._announced:
            self._announced = True
            return Polled(assigned=frozenset({self.partition}))
        if self._paused or not self._sought:
            self._sleep(timeout_s)
            return Polled()
        self._records.fill(self.max_records, timeout_s)
        if self._records.ended():
            return Polled(ended=True)
        count = self._due(timeout_s)
        return Polled(batches=self._records.take(self.partition, count) if count else [])

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:
        """Raises SourceError when the files are not those of `log`, or hold fewer records than `offset`."""
        if partition != self.partition:
            raise SourceError(f"no partition {partition} here: this source has {self.partition}")
        self._records.seek(offset or 0, log)
        self._sought = True
        if self._pace is not None:
            self._pace.restart()

    def release(self, partitions: frozenset[Partition]) -> None:
        """Nothing to do: a file is never revoked."""

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Nothing to do: the checkpoint is what counts."""

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def lag(self) -> int | None:
        return self._records.remaining()

    def held(self) -> int:
        return 0

    def keyless(self) -> int:
        return 0

    def generation(self) -> int:
        return 0

    def healthy(self) -> bool:
        return not self._closed

    def troubles(self) -> list[str]:
        return []

    def close(self) -> None:
        self._closed = True
        self._records.close()

    def _due(self, timeout_s: float) -> int:
        """How many of the next records are to be given now, after waiting up to timeout_s for the first."""
        times = self._records.times(self.max_records)
        if self._pace is None or not len(times):
            return len(times)
        wait_s = self._pace.wait_s(times)
        if wait_s > 0:
            self._sleep(min(wait_s, timeout_s))
        return self._pace.due(times)


class _Pace:
    """Recorded time played at a multiple of the clock's, from the first record on. A pause is caught up afterwards, as from a broker."""

    def __init__(self, speed: float, clock: Callable[[], float]) -> None:
        self._speed = speed
        self._clock = clock
        self._started: tuple[float, float] | None = None

    def restart(self) -> None:
        self._started = None

    def _now_s(self, times: Doubles) -> float:
        """The recorded time that playing has reached."""
        if self._started is None and np.isfinite(times[0]):
            self._started = (self._clock(), float(times[0]))
        if self._started is None:  # records of a pipe before any readable timestamp: at once
            return float(times[0])
        clock_s, record_s = self._started
        return record_s + (self._clock() - clock_s) * self._speed

    def wait_s(self, times: Doubles) -> float:
        """Seconds of the clock until the first of the ascending `times` is due; 0 or less when it is."""
        return (float(times[0]) - self._now_s(times)) / self._speed if np.isfinite(times[0]) else 0.0

    def due(self, times: Doubles) -> int:
        """How many of the ascending `times` are due."""
        return int(np.searchsorted(times, self._now_s(times), side="right"))
