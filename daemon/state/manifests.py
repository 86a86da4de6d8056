"""The manifests in the folder of checkpoints. They show which checkpoints exist, which member wrote each, and which are sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from daemon.errors import StateError
from daemon.state.snapshot import SCHEMA_VERSION, Manifest
from daemon.state.state_file import check_state
from features.telemetry import Partition
from model.buffer.segments import SegmentError, describe
from model.registry.plain_file import read_plain_bytes

MANIFEST: Final = "MANIFEST.json"
PROCESS_FILE: Final = "process.npz"
MOST_MANIFEST_BYTES: Final = 1 << 28
"""Limit of a manifest, bytes: names of a million segments."""


class Manifests:
    """Manifests of all members, as seen by one of them. The folder is read at each call: other members write into it."""

    def __init__(self, folder: Path, member: str, emit: Callable[..., None]) -> None:
        """Read nothing yet.

        Args:
            folder: folder of checkpoints.
            member: the member that reads.
            emit: logs one operational event, by name and fields (Observer.emit).
        """
        self._folder, self._member, self._emit = folder, member, emit
        self._reported: set[str] = set()

    def all(self) -> list[tuple[Path, Manifest]]:
        """Return every readable manifest with its checkpoint's folder, newest first.

        Raises:
            StateError: a manifest is of a newer release.
        """
        found = []
        for path in self._folder.iterdir():
            if path.name.startswith(".") or not path.is_dir():
                continue
            try:
                found.append((path, _read(path)))
            except (OSError, ValueError, RecursionError, AttributeError) as error:  # msgspec's are ValueErrors, and so is "not UTF-8"
                theirs = not path.name.endswith(f"-{self._member}") and path.exists()  # one's own is set aside; another deletes its own
                if theirs and path.name not in self._reported:
                    self._reported.add(path.name)
                    self._emit("checkpoint_unsound", checkpoint=path.name, problem=str(error), remedy="an older one is used")
        return sorted(found, key=lambda item: item[1].sequence, reverse=True)

    def own(self) -> list[tuple[Path, Manifest]]:
        """Return the manifests of this member, newest first."""
        return [(path, manifest) for path, manifest in self.all() if manifest.member == self._member]

    def named_segments(self) -> set[str]:
        """Return the segments that any checkpoint names."""
        return {name for _, manifest in self.all() for part in manifest.parts for name in part.segments}

    def last_sequence(self) -> int:
        """Return the number of the newest checkpoint of any member; 0 without one."""
        return max((manifest.sequence for _, manifest in self.all()), default=0)

    def applied(self) -> dict[str, list[int]]:
        """Return for each partition the last journal entries that this member's checkpoints have applied."""
        applied: dict[str, list[int]] = {}
        for _, manifest in self.own():
            for part in manifest.parts:
                applied.setdefault(str(Partition(part.topic, part.number)), []).append(part.journal)
        return applied


def flaws(path: Path, manifest: Manifest, buffer: Path) -> tuple[str, dict[str, str]]:
    """Check a checkpoint.

    Args:
        path: its folder.
        buffer: folder of the segments.

    Returns:
        The problem of its state files, and the problem of each segment that is missing or damaged; both empty if it is sound.
    """
    missing: dict[str, str] = {}
    try:
        for file, digest in ((PROCESS_FILE, manifest.process_sha256), *((part.file, part.sha256) for part in manifest.parts)):
            check_state(path / file, digest)
    except (OSError, ValueError) as error:
        return str(error), missing
    for segment in (segment for part in manifest.parts for segment in part.segments):
        try:
            describe(buffer / segment)
        except SegmentError as error:
            missing[segment] = str(error)
    return "", missing


def _read(path: Path) -> Manifest:
    """Read a checkpoint's manifest. Raises OSError, ValueError and others if it is not whole, StateError if it is of a newer release."""
    content = read_plain_bytes(path / MANIFEST, MOST_MANIFEST_BYTES)
    version = msgspec.json.decode(content).get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StateError(
            f"{path}: was written by a newer release (state version {version}, this one reads {SCHEMA_VERSION}); "
            "install that release, or start with another state directory"
        )
    manifest = msgspec.json.decode(content, type=Manifest)
    if not manifest.sound:
        raise ValueError(f"{MANIFEST} is not what was written (its checksum differs)")
    return manifest
