"""The journal: the decisions that depend on the clock, with the offsets from which each holds. A run is its topic and its journal.

An entry is durable before it takes effect. After a kill the stream is read again from the checkpoint, and the entries behind the checkpoint
take effect at the same offsets again, so that features, alerts and buffer come out the same.
"""

from __future__ import annotations

import errno
import io
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
from daemon.ingest.entries import Adopted, Alerted, Clock, Dropped, Entry, ModelLive, limit_of
from drift.region.buckets import BUCKET_S
from features.telemetry import Partition
from model.registry.durable import atomic_write, sync_folder
from model.registry.plain_file import read_plain_bytes, reason_of

_DECODER: Final = msgspec.json.Decoder(Entry)
_FIRST_LINE: Final = msgspec.json.Decoder(Entry | Dropped)
_SUMMED: Final = re.compile(rb"\} [0-9a-f]{8}\Z")
_SUM_BYTES: Final = 9
"""A space and eight digits: the CRC-32 of the entry, continued from that of the line before."""
MOST_BYTES: Final = 1 << 30
"""Limit of the file, bytes: a thousand times the size that it grows to."""
DROPPED_AT_ONCE: Final = 10_000
"""Entries that are dropped together, about a megabyte: the file is rewritten this rarely."""


class Journal:
    """An NDJSON file that grows at its end. Entries are numbered from 1; a partition's state knows the last one that it has applied."""

    def __init__(self, path: Path) -> None:
        """Read the file. A torn last line (a kill in the middle of an append) never took effect and is cut off.

        Raises:
            StateError: another line is not an entry, or the file cannot be read or written.
        """
        self._path = path
        self.entries: list[Entry] = []
        self.problem: str | None = None
        """Reason why the last append failed, and what to do; None once one has succeeded."""
        self.clock_s: float | None = None
        """The newest reading of the clock, UTC seconds; None without one."""
        self._dropped = Dropped()
        self._sum: int | None = None
        """Checksum of the last line; None if no line has one yet. After the first line that has one, each must."""
        self._renamed = False
        """True if the file's new name is not durable yet: a power cut could undo the rename."""
        self._file: io.FileIO | None = None
        """Open for appending; None after a rewrite, until the next append."""
        durable = self._read()
        self.clock_s = next((entry.now_s for entry in reversed(self.entries) if isinstance(entry, Clock)), None)
        try:
            self._size = durable
            self._open().truncate(durable)
            sync_folder(path.parent)  # a new file's name has to survive as well
        except OSError as error:
            raise StateError(f"{path}: the journal cannot be written ({error.strerror}); check its owner and the disk") from error

    @property
    def last(self) -> int:
        """Number of the newest entry."""
        return self._dropped.entries + len(self.entries)

    @property
    def live(self) -> ModelLive | None:
        """The entry by which the newest model went live; None before the first."""
        return self._summary(self.last).live

    def require(self, number: int) -> None:
        """Refuse a journal that ends before an entry that a checkpoint has applied: an entry appended now would get a number that counts as
        applied, and would have no effect after a restart.

        Raises:
            StateError: the file ends before entry `number`.
        """
        if self.last < number:
            raise StateError(
                f"{self._path}: ends with entry {self.last}, a checkpoint has applied entry {number}; restore the file from a copy, or "
                "start with another state directory"
            )

    def append(self, entry: Entry) -> int:
        """Make the entry durable and return its number.

        Raises:
            OSError: the disk refuses; the entry has no effect then.
        """
        line = _with_sum(entry, self._sum)
        try:
            file = self._open()
            file.truncate(self._size)  # what an append that failed may have left
            if file.write(line) < len(line):  # there was room for a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
            self._sync_name()
        except OSError as error:
            with suppress(OSError):  # if not now, then before the next append
                self._open().truncate(self._size)
            what = f"the journal cannot be written: {error.strerror}"
            self.problem = f"{what} ({self._path}); free space on its disk, or mend its permissions; it is tried again"
            raise OSError(error.errno, what, str(self._path)) from error
        self.problem = None
        self._size += len(line)
        self._sum = _sum_of(line)
        self.entries.append(entry)
        self.clock_s = entry.now_s if isinstance(entry, Clock) else self.clock_s
        return self.last

    def alerted_through(self, limit_s: float = math.inf) -> int:
        """Return the last bucket that any alert that was sent is derived from.

        Args:
            limit_s: buckets after this time (UTC seconds) do not count: alerts about them were sent while the clock was wrong.
        """
        buckets = [self._dropped.closed_through, *(entry.closed_through for entry in self.entries if isinstance(entry, Alerted))]
        return max((bucket for bucket in buckets if bucket * BUCKET_S <= limit_s), default=Dropped().closed_through)

    def adopted(self, partition: Partition, offset: int) -> int:
        """Return the number of the entry after which a partition that came with another member's state, up to `offset`, goes on.

        A second start from the same state goes on from the same entry.

        Raises:
            OSError: there is no such entry yet, and it cannot be written.
        """
        entry = Adopted({str(partition): offset})
        return max((number for number, other in self._numbered() if other == entry), default=0) or self.append(entry)

    def ahead(self, partition: Partition, applied: int) -> list[tuple[int, int, Entry]]:
        """Return the entries that the partition has yet to apply, as (offset, number, entry), in the order of their offsets.

        Args:
            applied: number of the last entry that the partition's state has applied.
        """
        name = str(partition)
        return [(entry.offsets[name], number, entry) for number, entry in self._numbered() if number > applied and name in entry.offsets]

    def drop(self, applied: Mapping[str, int]) -> None:
        """Drop the oldest entries that nobody will read again, once there are many.

        A disk that refuses changes nothing: dropping is tried again after the next checkpoint.

        Args:
            applied: for each partition the last entry that is in every state which a start could go back to; partitions that are not
                named have no such state.
        """
        needless = takewhile(lambda item: all(applied.get(name, item[0]) >= item[0] for name in item[1].offsets), self._numbered())
        if (count := sum(1 for _ in needless)) < DROPPED_AT_ONCE:
            return
        dropped = self._summary(self._dropped.entries + count)
        lines: list[bytes] = []
        for entry in (dropped, *self.entries[count:]):
            lines.append(_with_sum(entry, _sum_of(lines[-1]) if lines else None))
        content = b"".join(lines)
        try:
            atomic_write(self._path, content)
        except OSError:
            return
        self.close()
        self._size, self._renamed = len(content), True
        self._dropped, self.entries = dropped, self.entries[count:]
        self._sum = _sum_of(lines[-1])
        with suppress(OSError):  # otherwise with the next append, which has no effect without it
            self._sync_name()

    def close(self) -> None:
        """Close the file; another append would open it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> int:
        """Read the entries, and return the length of the file without a torn last line, bytes."""
        path, durable = self._path, 0
        try:
            content = read_plain_bytes(path, MOST_BYTES, follow_link=True) if path.exists() else b""
        except OSError as error:
            raise StateError(f"{path}: the journal {reason_of(error)}; restore the file from a copy") from error
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):  # not splitlines: a damaged byte may be a \r
            try:
                read = (_FIRST_LINE if number == 1 else _DECODER).decode(self._checked(line))
                if isinstance(read, Dropped):
                    self._dropped = read
                else:
                    self.entries.append(read)
            except (ValueError, RecursionError) as error:  # of msgspec, or bytes that are not UTF-8
                remedy = "restore the file from a copy, or start with another state directory"
                raise StateError(f"{path}, line {number}: is not a journal entry ({error}); {remedy}") from error
            durable += len(line) + 1
        return durable

    def _open(self) -> io.FileIO:
        if self._file is None:  # unbuffered: a line that could not be written must not wait in a buffer for the next one
            self._file = self._path.open("ab", buffering=0)
        return self._file

    def _numbered(self) -> enumerate[Entry]:
        return enumerate(self.entries, start=self._dropped.entries + 1)

    def _checked(self, line: bytes) -> bytes:
        """Return a line without its checksum, which covers it and all lines before it. Raises ValueError if it differs or is missing.

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
        """Return the facts that are still needed if the entries up to a number are dropped."""
        entries = self.entries[: through - self._dropped.entries]
        before = self._dropped
        buckets = [before.closed_through]
        for entry in entries:
            if isinstance(entry, Alerted):
                buckets.append(entry.closed_through)
            elif isinstance(entry, Clock) and entry.confirmed:  # alerts about a time after it are undone
                buckets = [bucket for bucket in buckets if bucket * BUCKET_S <= limit_of(entry.now_s)]
        live = [entry for entry in (before.live, *entries) if isinstance(entry, ModelLive)]
        newest = max(live, key=lambda entry: (entry.epoch, entry.number), default=None)
        return Dropped(through, max(buckets, default=Dropped().closed_through), newest)


def _with_sum(entry: Entry | Dropped, before: int | None) -> bytes:
    """Return the line of an entry. before: the checksum of the line before it, if there is one."""
    content = msgspec.json.encode(entry)
    return content + b" %08x\n" % zlib.crc32(content, before or 0)


def _sum_of(line: bytes) -> int:
    return int(line[-_SUM_BYTES:], 16)
