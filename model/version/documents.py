"""JSON documents of a model version: written whole, and read with suspicion, for they may come from another machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from model.registry.durable import atomic_write
from model.registry.plain_file import read_plain_bytes, said

MOST_BYTES: Final = 64 * 2**20
"""A hundred times the largest document of a version (its golden samples)."""


class DocumentError(ValueError):
    """A document is missing or is not what it should be. The message names the file and the reason."""


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Writes the document whole or not at all. Raises ValueError where a number is NaN or infinite."""
    atomic_write(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode())


def read_document(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """The JSON object in a plain file of at most MOST_BYTES. Raises DocumentError for everything else, a link or a pipe too.

    sha256: hexadecimal, of the content that is wanted; None: any.
    """
    content = read_plain(path)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DocumentError(f"{path.name} has changed since it was verified")
    return parse_document(path.name, content)


def read_plain(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most_bytes`. Raises DocumentError for everything else, a link or a pipe too."""
    try:
        return read_plain_bytes(path, most_bytes)
    except FileNotFoundError as error:
        raise DocumentError(f"{path.name} is missing") from error
    except OSError as error:
        raise DocumentError(f"{path.name} {said(error)}") from error


def parse_document(name: str, content: bytes) -> dict[str, Any]:
    """The JSON object that the content is. Raises DocumentError, with the name, where it is none.

    Strictly JSON: no NaN, no number beyond a double, no half of a surrogate pair, which no file or terminal could take.
    """
    try:
        document = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{name} is no JSON document ({error})") from error
    if not isinstance(document, dict):
        raise DocumentError(f"{name} is no JSON object")
    return document
