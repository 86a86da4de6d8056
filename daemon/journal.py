"""The journal: what the clock decided, with the offsets where it took effect. A run is its topic and its journal.

An entry is durable before it takes effect. After a kill the stream is read again from the checkpoint, and what stands in the
journal behind it takes effect at the same offsets again, so that features, alerts and buffer come out the same.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from daemon.errors import StateError
from features.telemetry import Partition
from model.segments import sync_folder


class ModelLive(msgspec.Struct, frozen=True, tag="model_live"):
    """From these next offsets on, forecasts come from `version`. epoch counts the models that went live, from 1."""

    epoch: int
    version: str
    offsets: dict[str, int]


class Forecasting(msgspec.Struct, frozen=True, tag="forecasting"):
    """From these next offsets on, forecasts are made (on) or shed because the stream is too far behind."""

    on: bool
    offsets: dict[str, int]


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


Entry = ModelLive | Forecasting | Idle | Resumed | Told
_DECODER: Final = msgspec.json.Decoder(Entry)


class Journal:
    """An append-only NDJSON file. Entries are numbered from 1; a partition's state knows the last one it has taken."""

    def __init__(self, path: Path) -> None:
        """Reads the file; a torn last line (a kill in the middle of an append) never took effect and is cut off.

        Raises StateError for anything else that is not an entry, and where the file cannot be read or written.
        """
        self._path = path
        self.entries: list[Entry] = []
        self.problem: str | None = None
        """Why the last append failed, and what to do; None once one has succeeded."""
        durable = 0
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise StateError(f"{path}: the journal cannot be read ({error.strerror}); restore the file from a copy") from error
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):  # not splitlines: a damaged byte may be a \r
            try:
                self.entries.append(_DECODER.decode(line))
            except (ValueError, RecursionError) as error:  # of msgspec, or bytes that are no UTF-8
                raise StateError(f"{path}, line {number}: is no journal entry ({error}); restore the file from a copy") from error
            durable += len(line) + 1
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
        return len(self.entries)

    def append(self, entry: Entry) -> int:
        """Makes the entry durable; gives its number. Raises OSError, and the entry has no effect then."""
        line = msgspec.json.encode(entry) + b"\n"
        try:
            self._file.truncate(self._size)  # what an append that failed may have left
            if self._file.write(line) < len(line):  # there was room for a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # if not now, then before the next append
                self._file.truncate(self._size)
            what = f"the journal cannot be written: {error.strerror}"
            self.problem = f"{what} ({self._path}); free space on its disk, or mend its permissions; it is tried again"
            raise OSError(error.errno, what, str(self._path)) from error
        self.problem = None
        self._size += len(line)
        self.entries.append(entry)
        return self.last

    @property
    def told_through(self) -> int:
        """The last bucket that any alert which was told rests on."""
        return max((entry.closed_through for entry in self.entries if isinstance(entry, Told)), default=-(2**62))

    def ahead(self, partition: Partition, taken: int) -> list[tuple[int, int, Entry]]:
        """(offset, number, entry) of what the partition has yet to take when it reaches that offset, in order."""
        name = str(partition)
        return [
            (entry.offsets[name], number, entry)
            for number, entry in enumerate(self.entries[taken:], start=taken + 1)
            if name in entry.offsets
        ]

    def close(self) -> None:
        self._file.close()
