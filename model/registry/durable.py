"""Durable files: each is written whole or not at all, and its name survives a power cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

SHARED_TRIES: Final = 3
"""Attempts to write a file that several processes write: a member that starts may remove the temporary file as the remains of a crash."""


def atomic_write(path: Path, content: bytes, *, shared: bool = False) -> None:
    """Replace a file through a temporary one, fsync and rename. Its name is durable only after `sync_folder`.

    Args:
        shared: several processes may write the file at once; each has a temporary file of its own.

    Raises:
        OSError: the disk refuses; the file is as it was, and nothing is left behind.
    """
    for attempt in range(SHARED_TRIES):
        try:
            with atomic_file(path, path.with_name(f".{path.name}.{secrets.token_hex(8)}") if shared else None) as file:
                file.write(content)
            return
        except FileNotFoundError:
            if not shared or attempt == SHARED_TRIES - 1:
                raise


@contextmanager
def atomic_file(path: Path, temporary: Path | None = None) -> Iterator[IO[bytes]]:
    """Open the file that replaces `path` once the block has ended without an error.

    Args:
        temporary: its path until then; None: ".NAME.partial".
    """
    temporary = temporary or path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)  # it may be a pipe or a link: open a new file of our own
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename is on disk only after its folder is.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
