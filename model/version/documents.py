"""JSON documents of a model version: written whole, and checked when they are read, because they may come from another machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from model.registry.durable import atomic_write
from model.registry.plain_file import read_plain_bytes, reason_of
from model.version.contract import cut

MOST_BYTES: Final = 64 * 2**20
"""A hundred times the largest document of a version (its golden samples)."""


MOST_MESSAGE: Final = 4000
"""Characters of a message about a document, which may quote from it."""


class DocumentError(ValueError):
    """A document is missing or is not what it should be. The message names the file and the reason, and is bounded."""

    def __init__(self, message: str) -> None:
        super().__init__(cut(message, MOST_MESSAGE))


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write the document whole or not at all. Raises ValueError if a number is NaN or infinite."""
    atomic_write(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode())


def read_document(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Return the JSON object in a plain file of at most MOST_BYTES.

    Args:
        path: of the file.
        sha256: hexadecimal, that the content must have; None: any.

    Raises:
        DocumentError: for everything else, also a link or a pipe.
    """
    content = read_plain(path)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DocumentError(f"{path.name} has changed since it was verified")
    return parse_document(path.name, content)


def read_plain(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file of at most `most_bytes`. Raises DocumentError for everything else, a link or a pipe too."""
    try:
        return read_plain_bytes(path, most_bytes)
    except FileNotFoundError as error:
        raise DocumentError(f"{path.name} is missing") from error
    except OSError as error:
        raise DocumentError(f"{path.name} {reason_of(error)}") from error


def parse_document(name: str, content: bytes) -> dict[str, Any]:
    """Return the JSON object that the content is.

    Strictly JSON: NaN, a number beyond a double and half of a surrogate pair, which a file or terminal could not show, are refused.

    Raises:
        DocumentError: with the name, if it is not such an object.
    """
    try:
        document = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{name} is not a JSON document ({error})") from error
    if not isinstance(document, dict):
        raise DocumentError(f"{name} is not a JSON object")
    return document
