"""The bytes of a telemetry file as a map of it, unpacked if it is gzip."""

from __future__ import annotations

import gzip
import mmap
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO, Final

from streams.source import SourceError

BLOCK_BYTES: Final = 4 << 20
"""Number of bytes that are read at once."""


def map_file(path: Path) -> mmap.mmap | None:
    """Return the bytes of a file, unpacked if it is gzip; None if it has none. Raises SourceError if it cannot be read."""
    try:
        with path.open("rb") as file:
            if path.suffix.lower() != ".gz":
                return _mapped(file)
            with _unpacked(file, path) as unpacked:
                return _mapped(unpacked)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error


def _mapped(file: IO[bytes]) -> mmap.mmap | None:
    if os.fstat(file.fileno()).st_size == 0:
        return None
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # keeps the file open by itself


def _unpacked(file: IO[bytes], path: Path) -> IO[bytes]:
    """Return a nameless file with the content of a gzip file. Raises SourceError, which names the temporary folder if that has no room."""
    try:
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise SourceError(f"{path} cannot be unpacked: {error.strerror or error}; set TMPDIR to a folder with room") from error
    try:
        packed = gzip.GzipFile(fileobj=file)
        while block := packed.read(BLOCK_BYTES):
            _write(unpacked, block, path)
        unpacked.seek(0)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        unpacked.close()
        raise SourceError(f"{path} is not a whole gzip file: {error}") from error
    except BaseException:
        unpacked.close()
        raise
    return unpacked


def _write(unpacked: IO[bytes], block: bytes, path: Path) -> None:
    try:
        unpacked.write(block)
        unpacked.flush()
    except OSError as error:
        where = f"cannot be unpacked into {tempfile.gettempdir()} ({error.strerror or error})"
        raise SourceError(f"{path} {where}; set TMPDIR to a folder with room, or unpack it yourself") from error
