"""Reads files of unknown origin: regular files of bounded size only, and never with a wait for another process."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

NOT_REGULAR: Final = "is not a regular file"
OF_PLAIN_FILE: Final = frozenset({errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.EFBIG})
"""The errno of each refusal of this module. Its strerror is a predicate ("is not a regular file"); that of other errors is a noun."""
_CHUNK_BYTES: Final = 1 << 20


def open_plain(path: Path, most_bytes: int, follow_link: bool = False) -> BinaryIO:
    """Open a regular file of at most `most_bytes` for reading. A pipe, a socket or a device is refused and never waited for.

    Args:
        path: of the file.
        most_bytes: a larger file is refused before anything of it is read.
        follow_link: open what a symbolic link names; otherwise a link is refused like everything else that is not a regular file.

    Raises:
        OSError: if it is not such a file, with a strerror that completes "FILE ..."; or if it cannot be opened.
    """
    _require_regular(path, path.stat() if follow_link else path.lstat(), most_bytes)  # before the open: a device may act on that
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_link else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket was put in its place since
            raise OSError(error.errno, NOT_REGULAR, str(path)) from error
        raise
    file = os.fdopen(descriptor, "rb")
    try:
        _require_regular(path, os.fstat(descriptor), most_bytes)
    except OSError:
        file.close()
        raise
    return file


def read_plain_bytes(path: Path, most_bytes: int, follow_link: bool = False) -> bytes:
    """Return the content of a file that `open_plain` accepts. Raises OSError, also for one that has grown over the bound meanwhile."""
    with open_plain(path, most_bytes, follow_link) as file:
        content = file.read(os.fstat(file.fileno()).st_size + 1)
        while len(content) <= most_bytes and (more := file.read(_CHUNK_BYTES)):  # it grows
            content += more
    if len(content) > most_bytes:
        raise _too_large(path, len(content))
    return content


def sha256_of(path: Path, most_bytes: int) -> str:
    """Return the SHA-256, hexadecimal, of a file that `open_plain` accepts. Raises OSError."""
    digest, done = hashlib.sha256(), 0
    with open_plain(path, most_bytes) as file:
        while content := file.read(_CHUNK_BYTES):
            digest.update(content)
            done += len(content)
            if done > most_bytes:
                raise _too_large(path, done)
    return digest.hexdigest()


def folders_in(folder: Path) -> Iterator[str]:
    """Yield the names of the real folders in a folder, in no order; links are left out. Nothing if it is missing or not a folder."""
    try:
        entries = os.scandir(folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder itself, and not a link to one. Raises OSError if that cannot be found out."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def reason_of(error: OSError) -> str:
    """Return the reason of an error as a predicate, to be put after the name of the file. The error may come from any call."""
    return error.strerror if error.errno in OF_PLAIN_FILE and error.strerror else f"cannot be read ({error.strerror})"


def _require_regular(path: Path, status: os.stat_result, most_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
    if status.st_size > most_bytes:
        raise _too_large(path, status.st_size)


def _too_large(path: Path, size: int) -> OSError:
    return OSError(errno.EFBIG, f"has {size:,} bytes or more, larger than this kind of file can be", str(path))
