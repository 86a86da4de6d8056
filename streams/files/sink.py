"""Events in a file, one JSON object per line, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from streams.events import Event
from streams.sinks import Sink

BYTES_MAX: Final = 256 << 20
"""Size at which a file is rotated."""
WRITE_BYTES: Final = 8 << 20
"""Number of bytes that are written at once: a long backlog is not copied into one piece."""


def rotated(path: Path) -> Path:
    """Return the name of a file of events after its rotation: events.ndjson becomes events.1.ndjson."""
    return path.with_name(f"{path.stem}.1{path.suffix}")


class NdjsonSink(Sink):
    """Append events to a file. They are in memory until `flush`, and durable after it.

    A file that has reached bytes_max is renamed before the next events, and replaces the one that was renamed before: between one and two
    times bytes_max of events exist. If somebody else has moved or removed the file, the next events go to a new one under its name.
    """

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX, on_rotated: Callable[[Path, int], None] | None = None) -> None:
        """Open or create the file, and remove a last line that a crash has cut off.

        Args:
            path: The file.
            bytes_max: Size at which it is rotated.
            on_rotated: Is called by the thread that flushes, with the path and the bytes of older events that are gone.

        Raises:
            BlockingIOError: Another process writes to the file.
            OSError: The file cannot be opened.
            ValueError: The file holds something else.
        """
        self.path, self.bytes_max = path, bytes_max
        self._on_rotated = on_rotated
        self._queue: list[bytes] = []
        self._descriptor = _opened(path)
        self._torn_from: int | None = None
        """Length of the file before a write that failed; the bytes after it must be removed."""

    def send(self, event: Event) -> None:
        """Queue one event in memory."""
        self._queue.append(event.encode() + b"\n")

    def pending(self) -> int:
        """Return how many events no flush has made durable yet."""
        return len(self._queue)

    def flush(self, timeout_s: float) -> None:  # noqa: ARG002  # a write to disk has no time limit
        """Write the queued events and wait for the disk. Another thread may send meanwhile: its events wait for the next flush.

        Raises:
            OSError: Nothing was written, for example because the disk is full. All events are still queued: call again.
        """
        self._remove_torn()
        events = self._queue[:]
        if not events:
            return
        if os.fstat(self._descriptor).st_size >= self.bytes_max and self._has_place:
            self._rotate()
        if not self._has_place:
            self._open_anew()
        durable_bytes = os.fstat(self._descriptor).st_size
        try:
            for piece in _pieces(events):
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            self._torn_from = durable_bytes
            with suppress(OSError):  # if not now, then before the next write
                self._remove_torn()
            message = f"{len(events)} events could not be written and stay queued: {error.strerror}"
            raise OSError(error.errno, message, str(self.path)) from error
        del self._queue[: len(events)]

    def close(self) -> None:
        """Close the file. Call `flush` before."""
        os.close(self._descriptor)

    @property
    def _has_place(self) -> bool:
        """True if the path still names the open file."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        before = rotated(self.path)
        gone_bytes = before.stat().st_size if before.exists() else 0
        self.path.replace(before)
        if self._on_rotated is not None:
            self._on_rotated(self.path, gone_bytes)

    def _open_anew(self) -> None:
        """Go on in the file that the path names, or in a new one. If that fails, nothing has changed."""
        try:
            fresh = _opened(self.path)
        except ValueError as error:
            raise OSError(errno.EEXIST, "events are kept, for the file holds something else: move it away", str(self.path)) from error
        os.close(self._descriptor)
        self._descriptor = fresh

    def _remove_torn(self) -> None:
        if self._torn_from is not None:
            os.ftruncate(self._descriptor, self._torn_from)
            self._torn_from = None


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the lines in pieces of at least WRITE_BYTES, except for the last one."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= WRITE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    yield b"".join(piece)


def _opened(path: Path) -> int:
    """Return a descriptor of the file for this process alone. The file ends with a whole line, and its name survives a power cut.

    Raises OSError, and ValueError if the file holds something else.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe is not durable, and blocks once it is full
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _repair(descriptor, path)
        _sync_folder(path.parent)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise BlockingIOError(error.errno, "another process writes events to this file: give each its own", str(path)) from error
        raise
    return descriptor


def _repair(descriptor: int, path: Path) -> None:
    """Remove a cut last line: it was never reported as durable, and its event is sent again."""
    size = os.fstat(descriptor).st_size
    # NUL bytes: some file systems leave them after a power failure.
    if size and os.pread(descriptor, 1, 0) not in (b"{", b"\0"):
        raise ValueError(f"{path} does not hold events: name another file")
    tail, start = b"", size
    while start and b"\n" not in tail:
        step = min(start, 1 << 16)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return
    try:
        msgspec.json.decode(last)
    except (msgspec.DecodeError, UnicodeDecodeError):
        os.ftruncate(descriptor, size - len(last))
    else:
        os.write(descriptor, b"\n")
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
