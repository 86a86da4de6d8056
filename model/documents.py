"""JSON documents of a model version: written whole, and read with suspicion, for they may come from another machine."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 64 * 2**20
"""A hundred times the largest document of a version (its golden samples)."""


class DocumentError(ValueError):
    """A document is missing or is not what it should be. The message names the file and the reason."""


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Writes the document through a temporary file, fsync and rename. Raises ValueError where a number is NaN or infinite."""
    content = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in a plain file of at most MOST_BYTES. Raises DocumentError for everything else, a link or a pipe too."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise DocumentError(f"{path.name} is no plain file")
        if status.st_size > MOST_BYTES:
            raise DocumentError(f"{path.name} has {status.st_size:,} bytes, more than any such document")
        document = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise DocumentError(f"{path.name} is missing") from error
    except OSError as error:
        raise DocumentError(f"{path.name} cannot be read ({error.strerror})") from error
    except DocumentError:
        raise
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path.name} is no JSON document ({error})") from error
    if not isinstance(document, dict):
        raise DocumentError(f"{path.name} is no JSON object")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
