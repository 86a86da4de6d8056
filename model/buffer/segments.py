"""A sealed piece of the training buffer: one Parquet file whose name says topic, partition, first and last offset.

A segment is written once (temporary file, fsync, rename, fsync of the folder) and never changed. Every page carries a checksum,
and the footer repeats what the name says, so that a torn or altered file is refused and not learnt from.
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
from model.registry.plain_file import open_plain, said

SCHEMA_VERSION: Final = 1
SUFFIX: Final = ".parquet"
TEMPORARY_PREFIX: Final = ".sealing-"
_NAME = re.compile(r"(?P<topic>[^/]+)-(?P<number>\d+)-(?P<first>\d{20})-(?P<last>\d{20})\.parquet", re.ASCII)
MOST_BYTES: Final = 1 << 40
"""A segment is some megabytes, and Arrow reads no more of it than it needs."""
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
    """topic: as in file names, see `safe_topic`. number: of the partition. first, last: offsets of the first and last row."""

    topic: str
    number: int
    first: int
    last: int

    def __str__(self) -> str:
        """The file name."""
        return f"{self.topic}-{self.number}-{self.first:020d}-{self.last:020d}{SUFFIX}"

    @classmethod
    def parse(cls, file_name: str) -> SegmentName:
        """Raises ValueError where file_name is not the name of a segment."""
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
    """A sealed segment as retention and compaction see it. first_time_s, last_time_s: least and greatest event time, UTC seconds."""

    name: SegmentName
    rows: int
    first_time_s: float
    last_time_s: float
    size_bytes: int


def safe_topic(topic: str) -> str:
    """The topic as part of a file name: Kafka's names stay as they are, anything else is percent-encoded, a long one ends in a hash.

    Two topics never share a name, and no name leaves the folder or is hidden, whatever the topic holds.
    """
    safe = quote(topic, safe="", errors="surrogatepass").replace("~", "%7E")
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if len(safe) > _LONGEST_TOPIC:
        digest = hashlib.sha256(topic.encode(errors="surrogatepass")).hexdigest()[:32]
        safe = f"{safe[: _LONGEST_TOPIC - 33]}~{digest}"
    return safe or "~"


def write_segment(folder: Path, name: SegmentName, table: pa.Table) -> Segment:
    """Writes a table of SCHEMA, in offset order, whole or not at all. Raises OSError (disk full, ...) with nothing left behind."""
    times = numpy_column(table["time_s"])
    first_time_s, last_time_s = float(times.min()), float(times.max())
    footer = {"dwcp.version": SCHEMA_VERSION, "dwcp.first_time_s": repr(first_time_s), "dwcp.last_time_s": repr(last_time_s)}
    with atomic_file(folder / str(name), folder / f"{TEMPORARY_PREFIX}{name}") as file:
        pq.write_table(table.replace_schema_metadata({key: str(value) for key, value in footer.items()}), file, **_WRITING)
        size_bytes = file.tell()
    sync_folder(folder)
    return Segment(name, len(table), first_time_s, last_time_s, size_bytes)


def describe(path: Path) -> Segment:
    """What the footer says, without reading a row. Raises SegmentError."""
    with _reading(path) as file:
        return _segment(path, file)


def load(path: Path) -> pa.Table:
    """The rows of a segment, as a table of SCHEMA in offset order. Raises SegmentError where the file is not as it was sealed."""
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
        raise SegmentError(path, "holds other offsets than its name says")
    if (times.min(), times.max()) != (segment.first_time_s, segment.last_time_s):
        raise SegmentError(path, "holds other times than its footer says")
    return table


def dictionary_column(codes: np.ndarray[Any, Any], values: Sequence[str]) -> pa.DictionaryArray:
    """Codes int (N,), -1 where missing, as an Arrow dictionary of only the values that occur."""
    used = np.zeros(len(values) + 1, np.bool_)
    used[codes] = True  # -1 marks the last place, which stands for "missing"
    used[-1] = False
    present = np.flatnonzero(used)
    position = np.full(len(values) + 1, -1, np.int32)
    position[present] = np.arange(len(present), dtype=np.int32)
    indices = position[codes]
    return pa.DictionaryArray.from_arrays(arrow_column(indices, indices >= 0), arrow_strings([values[at] for at in present.tolist()]))


def by_partition(names: Iterable[SegmentName]) -> dict[tuple[str, int], list[SegmentName]]:
    """Names of each partition in offset order."""
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
        raise SegmentError(path, said(error)) from error
    except (pa.ArrowException, ValueError) as error:
        raise SegmentError(path, f"is no complete Parquet file ({error})") from error


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
        raise SegmentError(path, "is no segment of a training buffer (other columns, or no version)")
    if file.metadata.num_rows < 1:
        raise SegmentError(path, "holds no rows")
    return Segment(name, file.metadata.num_rows, *times, path.stat().st_size)
