"""What goes into a checkpoint, what is read back out of it, and the manifest that makes it true."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from features.telemetry import Partition
from model.buffer.rows import BufferWriter, OpenSegment


class PartEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One partition in a manifest."""

    topic: str
    number: int
    offset: int | None
    file: str
    sha256: str
    segments: tuple[str, ...]
    journal: int = 0
    """The last entry of the member's journal that the state has taken."""


class Manifest(msgspec.Struct, frozen=True):
    """What makes a checkpoint true. sha256: of all the rest of it; checkpoints of schema 1 have none."""

    schema_version: int
    sequence: int
    member: str
    generation: int
    created_at_s: float
    process_sha256: str
    parts: tuple[PartEntry, ...]
    sha256: str = ""

    def sealed(self) -> Manifest:
        """The same with its own checksum: one digit of an offset that changes would skip records, and nothing else would notice."""
        plain = msgspec.structs.replace(self, sha256="")
        return msgspec.structs.replace(self, sha256=hashlib.sha256(msgspec.json.encode(plain)).hexdigest())

    @property
    def sound(self) -> bool:
        """Whether it is what was written."""
        return self == self.sealed() or (self.schema_version == 1 and not self.sha256)

    def part(self, partition: Partition) -> PartEntry | None:
        return next((part for part in self.parts if (part.topic, part.number) == (partition.topic, partition.number)), None)


@dataclass(frozen=True)
class PartState:
    """One partition as the loop's thread took it. offset: of the next record, None before the first; document["log"]: what it counts in.
    journal: the last entry of the journal that it has taken. open_rows: detached from `writer`, to be sealed."""

    partition: Partition
    offset: int | None
    document: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    writer: BufferWriter
    open_rows: OpenSegment | None
    journal: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Everything that one checkpoint writes. now_s: event time, for the retention by age."""

    parts: tuple[PartState, ...]
    process: dict[str, Any]
    generation: int
    created_at_s: float
    now_s: float


@dataclass(frozen=True)
class Restored:
    """One partition as a checkpoint of some member has it."""

    member: str
    offset: int | None
    document: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Written:
    """A checkpoint that has become true. offsets: to publish for lag monitors. journal: for each partition that one of this member's kept
    checkpoints names the last journal entry that all of them have taken. seconds: what it took to write."""

    sequence: int
    offsets: dict[Partition, int]
    segments: tuple[Path, ...]
    rows: int
    journal: dict[str, int]
    seconds: float
