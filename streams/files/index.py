"""An index of the records of a telemetry file or folder, in the order of their timestamps."""

from __future__ import annotations

import hashlib
import mmap
import zlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

import numpy as np

from features.columns import EARLIEST_S
from features.telemetry import Doubles, Ints, Longs, Partition
from streams.files.mapped_file import BLOCK_BYTES, map_file
from streams.files.times import read_times
from streams.records.csv_form import read_header
from streams.source import ONLY_LOG, Log, RawBatch, SourceError

Form = Literal["json", "csv"]
_FORMS: Final[dict[str, Form]] = {".csv": "csv", ".ndjson": "json", ".jsonl": "json", ".json": "json"}
GROUND_TRUTH_NAME: Final = "ground_truth.json"
"""File that a simulation writes beside its telemetry. In a folder of telemetry it is skipped."""
LONGEST_LINE_BYTES: Final = 64 << 20  # 64 times the longest record: a file with a longer line is not telemetry
POLL_BYTES: Final = 32 << 20
"""Largest size of the records of one poll, unless the first alone is larger. 5,000 usual records are 2 MB, 5,000 of the longest 320 GB."""
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """One file and its R records.

    Args:
        path: The file.
        form: How its records are encoded.
        columns: Header of a CSV file.
        data: The bytes of the file, unpacked.
        start: int64 (R,), where each record begins, bytes.
        size: int32 (R,), bytes.
        line: int32 (R,), line number, from 1.
    """

    path: Path
    form: Form
    columns: tuple[str, ...]
    data: mmap.mmap
    start: Longs
    size: Ints
    line: Ints


class IndexedFiles:
    """The N records of one or more files, in the order of their timestamps. The index has 28 bytes a record.

    Records of equal times keep the order of the files' names and of the lines. A record without a readable timestamp stays behind its
    predecessor in the file. The position of a record in this order is its offset.
    """

    def __init__(self, path: Path) -> None:
        """Read a file or the files of a folder once.

        Raises:
            SourceError: There is nothing to read, or a file is not telemetry.
        """
        paths = _telemetry_files(path)
        indexed = [pair for file in paths if (pair := _index_file(file, skip_empty=len(paths) > 1))]
        if not indexed:
            raise SourceError(f"{path}: every telemetry file in this folder is empty")
        self._files = [file for file, _ in indexed]
        self._first = np.cumsum([0, *(len(file.start) for file in self._files)])
        times = np.concatenate([_in_place(time_s) for _, time_s in indexed])
        self._order = np.argsort(times, kind="stable").astype(np.int32)
        self._time_s: Doubles = times[self._order]
        self._next = 0
        self.log = self._log_before = ONLY_LOG
        if len(self._order):
            file, record = self._record(0)
            self.log = Log(topic_id=_digest(",".join(file.columns).encode() + b"\n" + record))
            self._log_before = Log(topic_id=_digest(record))  # of state that an older release wrote

    def seek(self, offset: int, log: Log = ONLY_LOG) -> None:
        """Let the next record be the one at an offset.

        The files are recognised by their first record with its columns, the record before `offset`, and the number of records. More
        records at the end are no change.

        Raises:
            SourceError: The files are not those in which `offset` was counted.
        """
        put_back = "put the old files back, or start with an empty state directory"
        if offset and log.topic_id and log.topic_id != self.log.topic_id and log != self._log_before:
            raise SourceError(
                f"the replay cannot go on at record {offset}: the first record, or its columns, are not those that it began with, so these "
                f"are other files; {put_back}"
            )
        if not 0 <= offset <= len(self._order):
            raise SourceError(
                f"the replay cannot go on at record {offset}: there are {len(self._order)} records, so the files have changed since the "
                f"checkpoint; {put_back}"
            )
        if offset and log.leader_epoch not in (-1, zlib.crc32(self._record(offset - 1)[1])):
            raise SourceError(
                f"the replay cannot go on at record {offset}: the record before it has changed, so the files have changed since the "
                f"checkpoint; {put_back}"
            )
        self._next = offset

    def fill(self, count: int, timeout_s: float) -> None:
        """Do nothing: all records are at hand."""

    def ended(self) -> bool:
        """Return whether the last record was read."""
        return self._next == len(self._order)

    def remaining(self) -> int:
        """Return how many records are still to come."""
        return len(self._order) - self._next

    def times(self, count: int) -> Doubles:
        """Return when the next records were recorded, at most `count` of them: float64, ascending, UTC seconds."""
        return self._time_s[self._next : self._next + count]

    def next_batches(self, partition: Partition, count: int) -> list[RawBatch]:
        """Return the next `count` records, or the first of them up to POLL_BYTES, as a batch for each change of the form.

        Raises:
            SourceError: A file has become shorter.
        """
        start = self._next
        rows = self._order[start : start + count]
        owners = np.searchsorted(self._first, rows, side="right") - 1
        sizes = np.zeros(len(rows), np.int64)
        for owner in np.unique(owners).tolist():
            sizes[owners == owner] = self._files[owner].size[rows[owners == owner] - self._first[owner]]
        fitting = within_poll(sizes)
        rows, owners = rows[:fitting], owners[:fitting]
        values: list[bytes] = [b""] * len(rows)
        lines: list[tuple[str, int]] = [("", 0)] * len(rows)
        for owner in np.unique(owners).tolist():
            file = self._files[owner]
            if file.data.size() < len(file.data):  # reading the missing pages would kill the process
                raise SourceError(f"{file.path} has become shorter during the replay: replay a copy of it")
            mine = np.flatnonzero(owners == owner)
            local = rows[mine] - self._first[owner]
            begins, ends = file.start[local], file.start[local] + file.size[local]
            for index, begin, end, line in zip(mine.tolist(), begins.tolist(), ends.tolist(), file.line[local].tolist(), strict=True):
                values[index] = file.data[begin:end]
                lines[index] = (file.path.name, line)
        batches, position = [], 0
        for (form, columns), run in groupby(owners.tolist(), key=lambda owner: (self._files[owner].form, self._files[owner].columns)):
            end = position + sum(1 for _ in run)
            offsets = range(start + position, start + end)
            batches.append(RawBatch(partition, offsets, values[position:end], form, columns, lines[position:end], self.log))
            position = end
        self._next += position
        return batches

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.data.close()

    def _record(self, offset: int) -> tuple[IndexedFile, bytes]:
        row = self._order[offset]
        owner = int(np.searchsorted(self._first, row, side="right")) - 1
        file, local = self._files[owner], row - self._first[owner]
        return file, file.data[file.start[local] : file.start[local] + file.size[local]]


def within_poll(sizes: Longs) -> int:
    """Return how many of the next N records one poll returns. sizes: int64 (N,), bytes."""
    return max(1, int(np.searchsorted(np.cumsum(sizes), POLL_BYTES, side="right")))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _telemetry_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if not path.is_dir():
        raise SourceError(f"{path} is not a regular file: pipe it to standard input and give '-' as the path")
    try:
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".") and file.is_file()]
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    found = [file for file in files if _form_of(file) and file.name != GROUND_TRUTH_NAME]
    if not found:
        raise SourceError(f"{path}: no file in this folder ends in {', '.join(_FORMS)}, alone or with .gz")
    return found


def _form_of(path: Path) -> Form | None:
    return _FORMS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def _index_file(path: Path, *, skip_empty: bool) -> tuple[IndexedFile, Doubles] | None:
    """Return the file and its R times, float64, NaN if not readable; None for an empty file that may be skipped."""
    data = map_file(path)
    if data is None:
        if skip_empty:
            return None
        raise SourceError(f"{path} is empty: it needs a CSV header or one JSON object per line")
    position = len(_BOM) if data[: len(_BOM)] == _BOM else 0
    opening = data[position : position + 4096].lstrip()[:1]
    form = _form_of(path) or ("json" if opening == b"{" else "csv")
    if form == "json" and opening == b"[":
        raise SourceError(f"{path} is one JSON array: one object per line is needed (jq -c '.[]' makes that of it)")
    columns: tuple[str, ...] = ()
    first_line = 1
    if form == "csv":
        while (header := data[position : _line_end(data, position, path)]).isspace():  # blank lines, as through a pipe
            position, first_line = position + len(header), first_line + 1
        columns = read_header(header, str(path))
        position, first_line = position + len(header), first_line + 1
    parts = [(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))]
    while position < len(data):
        end = data.rfind(b"\n", position, position + BLOCK_BYTES) + 1 or _line_end(data, position, path)
        part, line_count = _index_block(data[position:end], position, first_line, columns)
        parts.append(part)
        position, first_line = end, first_line + line_count
    start, size, line, time_s = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return IndexedFile(path, form, columns, data, start, size, line), time_s


def _line_end(data: mmap.mmap, position: int, path: Path) -> int:
    """Return the position after the line that starts at `position`."""
    end = data.find(b"\n", position, position + LONGEST_LINE_BYTES)
    if end >= 0:
        return end + 1
    if len(data) - position > LONGEST_LINE_BYTES:
        raise SourceError(f"{path} has a line of more than {LONGEST_LINE_BYTES >> 20} MiB at byte {position}: it is not telemetry")
    return len(data)


def _index_block(block: bytes, position: int, first_line: int, columns: tuple[str, ...]) -> tuple[tuple[Longs, Ints, Ints, Doubles], int]:
    """Return the records of whole lines (start, size, line number and time of each), and how many lines there were.

    Args:
        block: The lines.
        position: Of the block in the file.
        first_line: Number of its first line.
        columns: The header, empty for JSON.
    """
    lines = block.removesuffix(b"\n").split(b"\n")
    size = np.fromiter(map(len, lines), np.int64, len(lines))
    start = np.concatenate([[0], np.cumsum(size[:-1] + 1)])
    last_byte = np.frombuffer(block, np.uint8)[np.maximum(start + size - 1, 0)]
    size -= (size > 0) & (last_byte == ord("\r"))
    number = np.arange(first_line, first_line + len(lines))
    filled = size > 0
    if not filled.all():
        lines = [line for line, keep in zip(lines, filled.tolist(), strict=True) if keep]
        start, size, number = start[filled], size[filled], number[filled]
    times = read_times(lines, columns)
    return (start + position, size.astype(np.int32), number.astype(np.int32), times), len(filled)


def _in_place(time_s: Doubles) -> Doubles:
    """Return times in which each unknown one repeats its predecessor, and those at the start of a file the first known one."""
    known = np.flatnonzero(~np.isnan(time_s))
    if not len(known):
        return np.full(len(time_s), EARLIEST_S)
    source = np.maximum.accumulate(np.where(np.isnan(time_s), known[0], np.arange(len(time_s))))
    filled: Doubles = time_s[source]
    return filled
