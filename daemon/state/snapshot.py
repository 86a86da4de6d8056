"""The content of a checkpoint, as it is written and as it is read again, and the manifest that makes it valid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from numpy.typing import NDArray

from features.telemetry import Partition
from model.buffer.rows import BufferWriter, OpenSegment

SCHEMA_VERSION: Final = 8
"""Schema version of a checkpoint. daemon.state.migration brings older ones up to date."""


class PartEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One partition in a manifest. journal: number of the last entry of the member's journal that its state has applied."""

    topic: str
    number: int
    offset: int | None
    file: str
    sha256: str
    segments: tuple[str, ...]
    journal: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """The file that makes a checkpoint valid. sha256: checksum of all other fields; checkpoints of schema 1 have none."""

    schema_version: int
    sequence: int
    member: str
    generation: int
    created_at_s: float
    process_sha256: str
    parts: tuple[PartEntry, ...]
    sha256: str = ""

    def sealed(self) -> Manifest:
        """Return the manifest with its checksum: one changed digit of an offset would skip records, and nothing else would notice."""
        plain = msgspec.structs.replace(self, sha256="")
        return msgspec.structs.replace(self, sha256=hashlib.sha256(msgspec.json.encode(plain)).hexdigest())

    @property
    def sound(self) -> bool:
        """True if the checksum fits: the manifest is as it was written."""
        return self == self.sealed() or (self.schema_version == 1 and not self.sha256)

    def part(self, partition: Partition) -> PartEntry | None:
        """Return the entry of a partition, if there is one."""
        return next((part for part in self.parts if (part.topic, part.number) == (partition.topic, partition.number)), None)


@dataclass(frozen=True)
class PartState:
    """One partition as the loop's thread has left it.

    Args:
        offset: offset of the next record, None before the first; document["log"] is the log that it counts in.
        open_rows: rows that were detached from `writer`, to be sealed.
        journal: number of the last journal entry that the state has applied.
    """

    partition: Partition
    offset: int | None
    document: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    writer: BufferWriter
    open_rows: OpenSegment | None
    journal: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Everything that one checkpoint writes. now_s: event time, UTC seconds, for the retention by age."""

    parts: tuple[PartState, ...]
    process: dict[str, Any]
    generation: int
    created_at_s: float
    now_s: float


@dataclass(frozen=True)
class Restored:
    """One partition as a checkpoint of any member has it."""

    member: str
    offset: int | None
    document: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Written:
    """A checkpoint that was written.

    Args:
        offsets: next offset of each partition, to be committed for lag monitors.
        segments: files of the training buffer that it names.
        rows: number of rows in them.
        journal: for each partition that a kept checkpoint of this member names, the last journal entry that all of these have applied.
        seconds: how long it took to write.
    """

    sequence: int
    offsets: dict[Partition, int]
    segments: tuple[Path, ...]
    rows: int
    journal: dict[str, int]
    seconds: float
