"""Sealed segment of the training buffer: one Parquet file, named after topic, partition, first and last offset.

A segment is written once (temporary file, fsync, rename, fsync of the folder) and never changed. Every page has a checksum, and the footer
holds the times, so that a torn or altered file is refused and not learnt from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.telemetry import CATEGORIES, NUMERIC, Partition
from model.buffer.arrow_columns import arrow_column, arrow_strings, numpy_column
from model.registry.durable import atomic_file, sync_folder
from model.registry.plain_file import open_plain, reason_of

SCHEMA_VERSION: Final = 1
SUFFIX: Final = ".parquet"
TEMPORARY_PREFIX: Final = ".sealing-"
_NAME = re.compile(r"(?P<topic>[^/]+)-(?P<number>\d+)-(?P<first>\d{20})-(?P<last>\d{20})\.parquet", re.ASCII)
MOST_BYTES: Final = 1 << 40
"""Largest file that is opened. A segment is some megabytes, and Arrow reads only what it needs of it."""
_LONGEST_TOPIC: Final = 150  # with number, offsets and the temporary prefix a name stays under the 255 bytes of a file system

_STRINGS: Final = ("link", *CATEGORIES)
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
SCHEMA: Final = pa.schema(
    [
        ("offset", pa.int64()),
        ("time_s", pa.float64()),
        *((name, pa.float32()) for name in NUMERIC),
        *((name, _DICTIONARY) for name in _STRINGS),
    ]
)
# Measured on 50,000 rows: splitting the bytes of floats and storing differences of offsets is smaller and faster than plain pages,
# and zstd level 1 is as small as level 3.
_WRITING: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": list(_STRINGS),
    "column_encoding": {"offset": "DELTA_BINARY_PACKED", **dict.fromkeys(("time_s", *NUMERIC), "BYTE_STREAM_SPLIT")},
    "write_statistics": False,
    "write_page_checksum": True,
}


class SegmentError(Exception):
    """A segment cannot be read as it was sealed. The message names the file, what is wrong and what to do."""

    def __init__(self, path: Path, problem: str, remedy: str = "restore it from a copy, or delete it to go on without its rows") -> None:
        super().__init__(f"{path}: {problem}; {remedy}")
        self.path, self.problem = path, problem


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """Name of a segment.

    Args:
        topic: As in file names, see `safe_topic`.
        number: The partition's.
        first: Offset of the first row; last: of the last one.
    """

    topic: str
    number: int
    first: int
    last: int

    def __str__(self) -> str:
        """Return the file name."""
        return f"{self.topic}-{self.number}-{self.first:020d}-{self.last:020d}{SUFFIX}"

    @classmethod
    def parse(cls, file_name: str) -> SegmentName:
        """Return the name in a file name. Raise ValueError if it is not a segment's."""
        match = _NAME.fullmatch(file_name)
        if match is None:
            raise ValueError(f"{file_name!r} is not a segment's name, topic-partition-first-last{SUFFIX} with offsets of 20 digits")
        name = cls(match["topic"], int(match["number"]), int(match["first"]), int(match["last"]))
        if name.first > name.last:
            raise ValueError(f"{file_name!r} ends before it begins")
        return name

    def belongs_to(self, partition: Partition) -> bool:
        return (self.topic, self.number) == (safe_topic(partition.topic), partition.number)


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed segment as retention and compaction see it. first_time_s, last_time_s: smallest and largest event time, UTC seconds."""

    name: SegmentName
    rows: int
    first_time_s: float
    last_time_s: float
    size_bytes: int


def safe_topic(topic: str) -> str:
    """Return the topic as part of a file name: Kafka's names stay as they are, others are percent-encoded, a long one ends in a hash.

    Two topics never share a name, and no name leaves the folder or is hidden.
    """
    safe = quote(topic, safe="", errors="surrogatepass").replace("~", "%7E")
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if len(safe) > _LONGEST_TOPIC:
        digest = hashlib.sha256(topic.encode(errors="surrogatepass")).hexdigest()[:32]
        safe = f"{safe[: _LONGEST_TOPIC - 33]}~{digest}"
    return safe or "~"


def write_segment(folder: Path, name: SegmentName, table: pa.Table) -> Segment:
    """Write a table of SCHEMA, in offset order, whole or not at all. Raise OSError if the disk refuses it; nothing is left behind then."""
    times = numpy_column(table["time_s"])
    first_time_s, last_time_s = float(times.min()), float(times.max())
    footer = {"dwcp.version": SCHEMA_VERSION, "dwcp.first_time_s": repr(first_time_s), "dwcp.last_time_s": repr(last_time_s)}
    with atomic_file(folder / str(name), folder / f"{TEMPORARY_PREFIX}{name}") as file:
        pq.write_table(table.replace_schema_metadata({key: str(value) for key, value in footer.items()}), file, **_WRITING)
        size_bytes = file.tell()
    sync_folder(folder)
    return Segment(name, len(table), first_time_s, last_time_s, size_bytes)


def describe(path: Path) -> Segment:
    """Return the segment that the footer describes, without reading a row. Raise SegmentError if the file is not as it was sealed."""
    with _reading(path) as file:
        return _segment(path, file)


def load(path: Path) -> pa.Table:
    """Return the rows, as a table of SCHEMA in offset order. Raise SegmentError if the file is not as it was sealed."""
    with _reading(path) as file:
        segment = _segment(path, file)
        try:
            table = file.read(use_threads=False).unify_dictionaries().combine_chunks()
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SegmentError(path, f"is damaged ({error})") from error
    required = ("offset", "time_s", *NUMERIC, "link")
    if len(table) != segment.rows or any(table[column].null_count for column in required):
        raise SegmentError(path, "is damaged (rows are missing)")
    offsets, times = numpy_column(table["offset"]), numpy_column(table["time_s"])
    if (offsets[0], offsets[-1]) != (segment.name.first, segment.name.last) or np.any(np.diff(offsets) <= 0):
        raise SegmentError(path, "holds other offsets than its name")
    if (times.min(), times.max()) != (segment.first_time_s, segment.last_time_s):
        raise SegmentError(path, "holds other times than its footer")
    return table


def dictionary_column(codes: np.ndarray[Any, Any], values: Sequence[str]) -> pa.DictionaryArray:
    """Return codes int (N,), -1 if missing, as an Arrow dictionary of only the values that occur."""
    used = np.zeros(len(values) + 1, np.bool_)
    used[codes] = True  # -1 marks the last place, which stands for "missing"
    used[-1] = False
    present = np.flatnonzero(used)
    position = np.full(len(values) + 1, -1, np.int32)
    position[present] = np.arange(len(present), dtype=np.int32)
    indices = position[codes]
    return pa.DictionaryArray.from_arrays(arrow_column(indices, indices >= 0), arrow_strings([values[code] for code in present.tolist()]))


def by_partition(names: Iterable[SegmentName]) -> dict[tuple[str, int], list[SegmentName]]:
    """Return the names of each partition in offset order."""
    groups: dict[tuple[str, int], list[SegmentName]] = {}
    for name in sorted(names):
        groups.setdefault((name.topic, name.number), []).append(name)
    return groups


def _reading(path: Path) -> pq.ParquetFile:
    try:
        open_plain(path, MOST_BYTES, follow_link=True).close()  # Arrow would wait for a pipe
        return pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise SegmentError(path, "is missing", "restore it from a copy, or go on without its rows") from error
    except OSError as error:
        raise SegmentError(path, reason_of(error)) from error
    except (pa.ArrowException, ValueError) as error:
        raise SegmentError(path, f"is not a complete Parquet file ({error})") from error


def _segment(path: Path, file: pq.ParquetFile) -> Segment:
    try:
        name = SegmentName.parse(path.name)
    except ValueError as error:
        raise SegmentError(path, str(error)) from error
    footer = file.schema_arrow.metadata or {}
    version = footer.get(b"dwcp.version", b"?").decode(errors="replace")
    if version.isdecimal() and int(version) > SCHEMA_VERSION:
        raise SegmentError(
            path, f"was written by a newer release (version {version}, this one reads {SCHEMA_VERSION})", "install that release"
        )
    try:
        times = float(footer[b"dwcp.first_time_s"]), float(footer[b"dwcp.last_time_s"])
    except (KeyError, ValueError):
        times = (np.nan, np.nan)
    if version != str(SCHEMA_VERSION) or np.isnan(times).any() or not file.schema_arrow.equals(SCHEMA):
        raise SegmentError(path, "is not a segment of a training buffer (other columns, or no version)")
    if file.metadata.num_rows < 1:
        raise SegmentError(path, "holds no rows")
    return Segment(name, file.metadata.num_rows, *times, path.stat().st_size)
