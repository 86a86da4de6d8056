"""Read events from an NDJSON file that may still grow, and be rotated meanwhile."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

from streams.events import EventData, fresh_events
from streams.files.sink import rotated

LINE_BYTES_MAX: Final = 16 << 20
"""A longer line is skipped: it is not an event."""
_POLL_S: Final = 0.5


def events_in_file(path: Path, follow: bool, from_start: bool = True) -> Iterator[EventData]:
    """Yield the events of a file, each id once. What is not an event is skipped.

    Args:
        path: The file.
        follow: Go on with the events that are appended, for ever. A file that does not exist yet is waited for, one that was cut is read
            anew, and one that was renamed is read to its end, and then those that came after it.
        from_start: Begin with the first event; otherwise with the next one.

    Raises:
        OSError: The file cannot be read.
    """
    return fresh_events(_lines(path, follow, from_start))


class _File:
    """The whole lines of a file that grows, after the last one read. The file is identified by its descriptor, as its name may change."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():  # reading a pipe would wait
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        self._file = path.open("rb", buffering=0)
        self.rest = b""
        """The last line while it has no end."""

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Identity of the file, also after it is closed: another file may get its number then, but not its time too."""
        status = os.fstat(self._file.fileno())
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def is_one_of(self, *others: _File | None) -> bool:
        return any(other is not None and os.path.sameopenfile(self._file.fileno(), other._file.fileno()) for other in others)

    def skip(self) -> None:
        self._file.seek(0, os.SEEK_END)

    def more(self) -> Iterator[bytes]:
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # cut in place: its lines are others
            self._file.seek(0)
            self.rest = b""
        while chunk := self._file.read(1 << 20):
            *whole, self.rest = (self.rest + chunk).split(b"\n")
            yield from whole
            self.rest = self.rest if len(self.rest) <= LINE_BYTES_MAX else b""

    def close(self) -> None:
        self._file.close()


def _lines(path: Path, follow: bool, from_start: bool) -> Iterator[bytes]:
    reading: _File | None = None
    following: list[_File] = []
    left: set[tuple[int, int, int]] = set()
    try:
        while True:
            following = _after(reading, path, left)
            if reading is not None:
                yield from reading.more()  # to its end: if there was another file at this look, nothing is written to this one any more
            elif not following and not follow:
                raise FileNotFoundError(errno.ENOENT, "there is no file of alerts", str(path))
            while following:
                if reading is not None:
                    yield reading.rest
                    left.add(reading.stamp)
                    reading.close()
                reading = following.pop(0)
                if from_start:
                    yield from reading.more()
                else:
                    reading.skip()
            from_start = True
            if not follow:
                assert reading is not None  # else there was none
                yield reading.rest  # the last line of a file that somebody has cut by hand
                return
            time.sleep(_POLL_S)
    finally:
        for file in (reading, *following):
            if file is not None:
                file.close()


def _after(reading: _File | None, path: Path, left: Container[tuple[int, int, int]]) -> list[_File]:
    """Return the files that were begun after the one that is read, oldest first.

    These are the file of the path and the one that it has replaced, if they are new. The path is opened first: a file that is rotated
    meanwhile is found under its other name.
    """
    newest = _opened(path)
    if newest is None and reading is not None:
        return []  # between two files
    if newest is not None and newest.is_one_of(reading):
        newest.close()
        return []
    before = _opened(rotated(path))
    if before is not None and (before.is_one_of(reading, newest) or before.stamp in left):
        before.close()
        before = None
    return [file for file in (before, newest) if file is not None]


def _opened(path: Path) -> _File | None:
    """Open a file; None if there is no such file at the moment."""
    try:
        return _File(path)
    except FileNotFoundError:
        return None
