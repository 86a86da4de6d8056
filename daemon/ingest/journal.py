"""The journal: what the clock decided, with the offsets where it took effect. A run is its topic and its journal.

An entry is durable before it takes effect. After a kill the stream is read again from the checkpoint, and what stands in the
journal behind it takes effect at the same offsets again, so that features, alerts and buffer come out the same.
"""

from __future__ import annotations

import errno
import math
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Final

import msgspec

from daemon.errors import StateError
from drift.region.buckets import BUCKET_S
from features.telemetry import Partition
from model.buffer.segments import sync_folder
from model.registry.plain_file import read_plain_bytes, said
from streams.records.validate import MAX_FUTURE_S

CLOCK_S: Final = 60.0
"""So long a reading of the clock holds: which timestamps lie in the future is decided by one that is in the journal, and may be so old."""


def limit_of(clock_s: float | None) -> float:
    """The latest time that a record may have by a reading of the clock (UTC seconds); inf without one."""
    return math.inf if clock_s is None else clock_s + CLOCK_S + MAX_FUTURE_S


class ModelLive(msgspec.Struct, frozen=True, tag="model_live"):
    """From these next offsets on, forecasts come from `version`. epoch counts the models that went live, from 1.

    number: of the version, where it is signed: with it, and without offsets, stands what nothing older may follow (see Models).
    """

    epoch: int
    version: str
    offsets: dict[str, int]
    number: int = 0


class Forecasting(msgspec.Struct, frozen=True, tag="forecasting"):
    """From these next offsets on, forecasts are made (on) or shed because the stream is too far behind."""

    on: bool
    offsets: dict[str, int]


class Clock(msgspec.Struct, frozen=True, tag="clock"):
    """From these next offsets on, this is the time, UTC seconds, that says which timestamps lie in the future.

    confirmed: the times at which Kafka's records are written agree with it. Then what has come after it before cannot be, and is undone.
    """

    now_s: float
    offsets: dict[str, int]
    confirmed: bool = False


class Idle(msgspec.Struct, frozen=True, tag="idle"):
    """The partition brought nothing for so long that it no longer holds up the others; its next record resumes it."""

    offsets: dict[str, int]


class Resumed(msgspec.Struct, frozen=True, tag="resumed"):
    """An idle partition goes on. What it has for buckets up to closed_through comes too late for the region stage."""

    offsets: dict[str, int]
    closed_through: int


class Told(msgspec.Struct, frozen=True, tag="told"):
    """An alert was told that follows from the records before these next offsets, with buckets closed up to closed_through.

    Has no effect of its own. But a stream that is read again comes to the same alert only if nothing is decided anew before it is here
    again, and a partition that was idle then resumes behind the buckets that were closed without it.
    """

    offsets: dict[str, int]
    closed_through: int


class TakenUp(msgspec.Struct, frozen=True, tag="taken_up"):
    """The partition came with another member's state, which ends at this next offset: what stands here of it before is void."""

    offsets: dict[str, int]


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    """The first line of a journal whose oldest entries nobody needs any more: how many went, what the last Told of them said, and the last
    model that went live with them."""

    entries: int = 0
    closed_through: int = -(2**62)
    live: ModelLive | None = None


Entry = ModelLive | Forecasting | Clock | Idle | Resumed | Told | TakenUp
_DECODER: Final = msgspec.json.Decoder(Entry)
_FIRST_LINE: Final = msgspec.json.Decoder(Entry | Dropped)
_SUMMED: Final = re.compile(rb"\} [0-9a-f]{8}\Z")
_SUM_BYTES: Final = 9
"""A space and eight digits: the CRC-32 of the entry, which goes on from that of the line before."""
MOST_BYTES: Final = 1 << 30
"""A thousand times what it grows to."""
DROPPED_AT_ONCE: Final = 10_000
"""Entries, about a megabyte: so rarely is the file written anew."""


class Journal:
    """An NDJSON file that grows at its end. Entries are numbered from 1; a partition's state knows the last one it has taken."""

    def __init__(self, path: Path) -> None:
        """Reads the file; a torn last line (a kill in the middle of an append) never took effect and is cut off.

        Raises StateError for anything else that is not an entry, and where the file cannot be read or written.
        """
        self._path = path
        self.entries: list[Entry] = []
        self.problem: str | None = None
        """Why the last append failed, and what to do; None once one has succeeded."""
        self.clock_s: float | None = None
        """The newest reading of the clock, UTC seconds; None without one."""
        self._dropped = Dropped()
        self._sum: int | None = None
        """Of the last line; None where no line has one yet. From the first that has, each must."""
        self._renamed = False
        """Whether the file has a name that a power cut could take back."""
        durable = 0
        try:
            content = read_plain_bytes(path, MOST_BYTES, follow_link=True) if path.exists() else b""
        except OSError as error:
            raise StateError(f"{path}: the journal {said(error)}; restore the file from a copy") from error
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):  # not splitlines: a damaged byte may be a \r
            try:
                read = (_FIRST_LINE if number == 1 else _DECODER).decode(self._checked(line))
                if isinstance(read, Dropped):
                    self._dropped = read
                else:
                    self.entries.append(read)
            except (ValueError, RecursionError) as error:  # of msgspec, or bytes that are no UTF-8
                remedy = "restore the file from a copy, or start with another state directory"
                raise StateError(f"{path}, line {number}: is no journal entry ({error}); {remedy}") from error
            durable += len(line) + 1
        self.clock_s = next((entry.now_s for entry in reversed(self.entries) if isinstance(entry, Clock)), None)
        try:
            self._file = path.open("ab", buffering=0)  # a line that could not be written must not wait in a buffer for the next one
            self._size = durable
            self._file.truncate(durable)
            sync_folder(path.parent)  # a new file's name has to survive as well
        except OSError as error:
            raise StateError(f"{path}: the journal cannot be written ({error.strerror}); check its owner and the disk") from error

    @property
    def last(self) -> int:
        """Number of the newest entry."""
        return self._dropped.entries + len(self.entries)

    def require(self, taken: int) -> None:
        """Raises StateError where the file ends before the entry that a checkpoint has taken: what was appended now would get a number that
        counts as taken, and have no effect after a restart."""
        if self.last < taken:
            raise StateError(
                f"{self._path}: ends with entry {self.last}, a checkpoint has taken entry {taken}; restore the file from a copy, or start "
                "with another state directory"
            )

    def append(self, entry: Entry) -> int:
        """Makes the entry durable; gives its number. Raises OSError, and the entry has no effect then."""
        line = _with_sum(entry, self._sum)
        try:
            self._file.truncate(self._size)  # what an append that failed may have left
            if self._file.write(line) < len(line):  # there was room for a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
            self._sync_name()
        except OSError as error:
            with suppress(OSError):  # if not now, then before the next append
                self._file.truncate(self._size)
            what = f"the journal cannot be written: {error.strerror}"
            self.problem = f"{what} ({self._path}); free space on its disk, or mend its permissions; it is tried again"
            raise OSError(error.errno, what, str(self._path)) from error
        self.problem = None
        self._size += len(line)
        self._sum = _sum_of(line)
        self.entries.append(entry)
        self.clock_s = entry.now_s if isinstance(entry, Clock) else self.clock_s
        return self.last

    def told_through(self, limit_s: float = math.inf) -> int:
        """The last bucket that any alert which was told rests on. limit_s: buckets after this time (UTC seconds) cannot be, and do not
        count: they were told while the clock was wrong."""
        told = [self._dropped.closed_through, *(entry.closed_through for entry in self.entries if isinstance(entry, Told))]
        return max((one for one in told if one * BUCKET_S <= limit_s), default=Dropped().closed_through)

    @property
    def live(self) -> ModelLive | None:
        """How the newest model went live; None before the first."""
        return self._summary(self.last).live

    def taken_up(self, partition: Partition, offset: int) -> int:
        """Number of the entry after which a partition that came with another member's state, up to `offset`, goes on.

        A second start from the same state goes on from the same entry. Raises OSError where there is none and it cannot be written.
        """
        entry = TakenUp({str(partition): offset})
        numbered = enumerate(self.entries, start=self._dropped.entries + 1)
        return max((number for number, one in numbered if one == entry), default=0) or self.append(entry)

    def ahead(self, partition: Partition, taken: int) -> list[tuple[int, int, Entry]]:
        """(offset, number, entry) of what the partition has yet to take when it reaches that offset, in order."""
        name = str(partition)
        return [
            (entry.offsets[name], number, entry)
            for number, entry in enumerate(self.entries, start=self._dropped.entries + 1)
            if number > taken and name in entry.offsets
        ]

    def drop(self, taken: Mapping[str, int]) -> None:
        """Drops the oldest entries that nobody will read again, once they are many.

        taken: for each partition the last entry that is in every state which a start could go back to; partitions that are not named have
        no such state. A disk that refuses changes nothing: it is tried again with the next checkpoint.
        """
        numbered = enumerate(self.entries, start=self._dropped.entries + 1)
        needless = takewhile(lambda one: all(taken.get(name, one[0]) >= one[0] for name in one[1].offsets), numbered)
        if (count := sum(1 for _ in needless)) < DROPPED_AT_ONCE:
            return
        dropped = self._summary(self._dropped.entries + count)
        lines: list[bytes] = []
        for entry in (dropped, *self.entries[count:]):
            lines.append(_with_sum(entry, _sum_of(lines[-1]) if lines else None))
        content = b"".join(lines)
        partial = self._path.with_name(f".{self._path.name}")
        try:
            partial.unlink(missing_ok=True)
            file = partial.open("ab", buffering=0)
        except OSError:
            return
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
            partial.rename(self._path)
        except OSError:
            file.close()
            return
        self._file.close()
        self._file, self._size, self._renamed = file, len(content), True
        self._dropped, self.entries = dropped, self.entries[count:]
        self._sum = _sum_of(lines[-1])
        with suppress(OSError):  # then with the next append, which has no effect without it
            self._sync_name()

    def _checked(self, line: bytes) -> bytes:
        """A line without its sum, which covers it and all lines before it. Raises ValueError where it is another one, or missing.

        Lines of older releases have none; the first that has one begins the count.
        """
        if _SUMMED.search(line) is None:
            if self._sum is not None:
                raise ValueError("its checksum is missing")
            return line
        if _sum_of(line + b"\n") != zlib.crc32(line[:-_SUM_BYTES], self._sum or 0):
            raise ValueError("its checksum differs: it, or a line before it, is not what was written")
        self._sum = _sum_of(line + b"\n")
        return line[:-_SUM_BYTES]

    def _sync_name(self) -> None:
        if self._renamed:
            sync_folder(self._path.parent)
            self._renamed = False

    def _summary(self, through: int) -> Dropped:
        """What has to be known of the entries up to a number, were they dropped."""
        entries = self.entries[: through - self._dropped.entries]
        before = self._dropped
        told = [before.closed_through]
        for entry in entries:
            if isinstance(entry, Told):
                told.append(entry.closed_through)
            elif isinstance(entry, Clock) and entry.confirmed:  # what was told of a time after it is undone
                told = [one for one in told if one * BUCKET_S <= limit_of(entry.now_s)]
        live = [entry for entry in (before.live, *entries) if isinstance(entry, ModelLive)]
        newest = max(live, key=lambda entry: (entry.epoch, entry.number), default=None)
        return Dropped(through, max(told, default=Dropped().closed_through), newest)

    def close(self) -> None:
        self._file.close()


def _with_sum(entry: Entry | Dropped, before: int | None) -> bytes:
    """The line of an entry. before: the sum of the line before it, if there is one."""
    content = msgspec.json.encode(entry)
    return content + b" %08x\n" % zlib.crc32(content, before or 0)


def _sum_of(line: bytes) -> int:
    return int(line[-_SUM_BYTES:], 16)
