"""One file of a checkpoint: arrays and one plain document in a NumPy archive. It is data only: nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.registry.plain_file import read_plain_bytes, sha256_of

MOST_BYTES: Final = 1 << 36
"""Limit of a file, 64 GiB: twenty times the state of a million links."""
_DOCUMENT: Final = "document"


def write_state(path: Path, document: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str:
    """Write and fsync the file.

    Args:
        document: numbers, strings, bytes, lists and dicts of them.

    Returns:
        SHA-256 of the file, hexadecimal.
    """
    encoded = np.frombuffer(msgspec.msgpack.encode(document), np.uint8)
    with path.open("w+b") as file:
        np.savez(file, allow_pickle=False, **{_DOCUMENT: encoded}, **arrays)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_state(path: Path, sha256: str) -> None:
    """Compare a file with the hash that was written down.

    Raises:
        ValueError: it is another file.
        OSError: it cannot be read.
    """
    if sha256_of(path, MOST_BYTES) != sha256:
        raise ValueError(f"{path.name} is not what was written (its checksum differs)")


def read_state(path: Path, sha256: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the document and the arrays.

    Raises:
        ValueError: the file is not the one whose hash was written down.
        OSError: it cannot be read.
    """
    content = read_plain_bytes(path, MOST_BYTES)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path.name} is not what was written (its checksum differs)")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name != _DOCUMENT}
            document = msgspec.msgpack.decode(archive[_DOCUMENT].tobytes(), type=dict[str, Any])
    except Exception as error:  # zipfile, zlib and NumPy's header parser have no common base
        raise ValueError(f"{path.name} is not a file of a checkpoint ({error})") from error
    return document, arrays
