"""Telemetry from a CSV or NDJSON file, a folder of them, or standard input: replayed as partition 0 of a topic of that name."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np

from features.telemetry import Doubles, Partition
from streams.files.index import IndexedFiles
from streams.files.standard_input import StandardInput
from streams.source import ONLY_LOG, Log, Polled, RawBatch, Source, SourceError

MAX_RECORDS: Final = 5_000  # a poll of 2-3 MB: large enough for bulk decoding, small enough to stop within a second


class _Records(Protocol):
    """Records in a fixed order: IndexedFiles or StandardInput."""

    def seek(self, offset: int, log: Log) -> None: ...
    def fill(self, count: int, timeout_s: float) -> None: ...
    def ended(self) -> bool: ...
    def remaining(self) -> int | None: ...
    def times(self, count: int) -> Doubles: ...
    def next_batches(self, partition: Partition, count: int) -> list[RawBatch]: ...
    def close(self) -> None: ...


class FileSource(Source):
    """A finite source. Records of a file come in the order of their timestamps (links interleaved), records of a pipe as they arrive.

    Offsets are positions in that order, so the same files have the same offsets. A pipe cannot be rewound: after a seek its records are
    numbered on from there.

    Args:
        path: A file (.csv, .ndjson, .jsonl, .json, also with .gz; any other name is recognised by its first byte), a folder whose files
            of these names are merged, or "-" for standard input.
        speed: Multiple of recorded time at which records become due. None: as fast as the caller polls.
        max_records: Of one poll.
        clock: Monotonic seconds.
        sleep: Waits for seconds.
        standard_input: Descriptor of the pipe.

    Raises:
        SourceError: There is nothing to replay.
        ValueError: The speed is not above 0.
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
        self._sleep = sleep
        self._announced = False
        self._sought = False
        self._closed = False

    def poll(self, timeout_s: float) -> Polled:
        """Return the next records that are due, at most max_records. After the last ones, every poll is `ended`.

        Raises:
            SourceError: A file has become shorter, or the pipe cannot be read.
        """
        if not self._announced:
            self._announced = True
            return Polled(assigned=frozenset({self.partition}))
        if self.paused or not self._sought:
            self._sleep(timeout_s)
            return Polled()
        self._records.fill(self.max_records, timeout_s)
        if self._records.ended():
            return Polled(ended=True)
        count = self._due(timeout_s)
        return Polled(batches=self._records.next_batches(self.partition, count) if count else [])

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:
        """Let the next record come from an offset; None: from the first one.

        Raises:
            SourceError: The files are not those of `log`, or hold fewer records than `offset`.
        """
        if partition != self.partition:
            raise SourceError(f"{partition} is not a partition of this source, which has {self.partition}")
        self._records.seek(offset or 0, log)
        self._sought = True
        if self._pace is not None:
            self._pace.restart()

    def lag(self) -> int | None:
        """Return how many records are still to come; None for a pipe."""
        return self._records.remaining()

    def healthy(self) -> bool:
        """Return whether the source is open."""
        return not self._closed

    def close(self) -> None:
        """Close the files. Standard input stays open: it belongs to the process."""
        self._closed = True
        self._records.close()

    def _due(self, timeout_s: float) -> int:
        """Return how many of the next records are due, after waiting up to timeout_s for the first."""
        times = self._records.times(self.max_records)
        if self._pace is None or not len(times):
            return len(times)
        wait_s = self._pace.wait_s(times)
        if wait_s > 0:
            self._sleep(min(wait_s, timeout_s))
        return self._pace.due(times)


class _Pace:
    """Recorded time played at a multiple of the clock, from the first record on. After a pause it catches up, as from a broker."""

    def __init__(self, speed: float, clock: Callable[[], float]) -> None:
        self._speed = speed
        self._clock = clock
        self._started: tuple[float, float] | None = None

    def restart(self) -> None:
        self._started = None

    def _now_s(self, times: Doubles) -> float:
        """Return the recorded time that playing has reached, UTC seconds."""
        if self._started is None and np.isfinite(times[0]):
            self._started = (self._clock(), float(times[0]))
        if self._started is None:  # records of a pipe before any readable timestamp are due at once
            return float(times[0])
        clock_s, record_s = self._started
        return record_s + (self._clock() - clock_s) * self._speed

    def wait_s(self, times: Doubles) -> float:
        """Return the seconds of the clock until the first of the ascending `times` is due; 0 or less if it is."""
        return (float(times[0]) - self._now_s(times)) / self._speed if np.isfinite(times[0]) else 0.0

    def due(self, times: Doubles) -> int:
        """Return how many of the ascending `times` are due."""
        return int(np.searchsorted(times, self._now_s(times), side="right"))
