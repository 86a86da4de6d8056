"""The content of a models folder: published versions and refused candidates, by name and in the order of their publication."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model.registry.plain_file import folders_in, is_folder
from model.version.documents import DocumentError, read_document
from model.version.manifest import signed_manifest
from model.version.metadata import VERSION_FORMAT, VERSION_PATTERN

if TYPE_CHECKING:  # `cryptography` is imported where a key is configured: 11 MB
    from model.version.signing import VerifyKey

REFUSED_NAME: Final = "refused"
REFUSAL_NAME: Final = "REFUSED.json"
EXAMINED_MAX: Final = 1000
"""Folders with the name of a version that are looked into, the newest names first: a hundred times what is kept."""
AHEAD_S: Final = 86_400.0
"""Seconds. A refused candidate whose name is further ahead of the machine's clock is ignored: the clock was wrong when it was named."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The versions in a models folder. verify_key: must have signed those that count as published; None: a signature is not looked at."""

    root: Path
    verify_key: VerifyKey | None = None

    def versions(self) -> list[str]:
        """Return the folders that have the name of a version, oldest first."""
        return _versions_in(self.root)

    def numbers(self) -> dict[str, int]:
        """Return the number of each published version, by name. Its manifest must have that name, and be signed if there is a key."""
        found = {}
        for version in self.versions()[-EXAMINED_MAX:]:
            with suppress(DocumentError):
                found[version] = signed_manifest(self.root / version, self.verify_key).number
        return found

    def in_order(self) -> list[str]:
        """Return the published versions in the order of their publication, oldest first.

        That is the order of their numbers: an imported version may have an older name than the one before it. A version without a number
        follows those with older names.
        """
        highest, known = 0, []
        for version, number in self.numbers().items():
            highest = max(highest, number)
            known.append((number or highest, version))
        return [version for _, version in sorted(known)]

    def before(self, current: str) -> str | None:
        """Return the version that was published before the current one. Without one: a folder with an older version's name, or None."""
        known = self.in_order()
        earlier = known[: known.index(current)] if current in known else [version for version in known if version < current]
        return next(iter((earlier or [version for version in self.versions() if version < current])[-1:]), None)

    def refused(self) -> list[str]:
        """Return the refused candidates that are kept, oldest first, without those whose name is of a time to come."""
        latest = datetime.fromtimestamp(time.time() + AHEAD_S, UTC).strftime(VERSION_FORMAT)
        return [version for version in self.ever_refused() if version <= latest]

    def ever_refused(self) -> list[str]:
        """Return all refused candidates, oldest first. A folder that only has such a name is not one."""
        folder = self.root / REFUSED_NAME
        return [version for version in _versions_in(folder) if _is_refusal(folder / version)] if is_folder(folder) else []


def _versions_in(folder: Path) -> list[str]:
    return sorted(name for name in folders_in(folder) if VERSION_PATTERN.fullmatch(name))


def _is_refusal(folder: Path) -> bool:
    try:
        return read_document(folder / REFUSAL_NAME).get("version") == folder.name
    except (DocumentError, OSError):
        return False
