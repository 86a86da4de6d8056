"""Rows of the training buffer: written in sealed Parquet segments, one `BufferWriter` a partition, and read as one table.

The loop's thread appends rows and detaches them; another thread seals what was detached. The checkpoint names the segments that count;
any other is deleted at the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from features.offline import RawTable
from features.telemetry import CATEGORIES, NUMERIC, Codes, Doubles, Floats, Ints, Longs, Partition
from features.vocabulary import MAX_VALUES, OVERFLOW
from model.buffer.arrow_columns import arrow_column, numpy_column
from model.buffer.segments import (
    SCHEMA,
    Segment,
    SegmentError,
    SegmentName,
    by_partition,
    describe,
    dictionary_column,
    load,
    safe_topic,
    write_segment,
)
from model.windows.names import by_worth

UNDONE_S: Final = 60.0
"""A row that is further ahead of its link's next row than this, in seconds, was stamped by a wrong clock (CLOCK_S of
daemon.ingest.journal). A smaller step back is damage: rows of a link are ingested in order."""


@dataclass(frozen=True, slots=True)
class BufferRows:
    """N accepted rows of one partition, in stream order.

    Args:
        offsets: int64 (N,), strictly ascending.
        time_s: float64 (N,), UTC seconds.
        numeric: float32 (N, 11), columns NUMERIC, NaN if not measured.
        codes: int16 or int32 (N, 6), the stream's own codes of CATEGORIES (Interner), -1 if missing.
        slots: int32 (N,), link slots.
    """

    offsets: Longs
    time_s: Doubles
    numeric: Floats
    codes: Codes | Ints
    slots: Ints


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """Rows that were detached for sealing, with the names behind their slots and codes."""

    rows: tuple[BufferRows, ...]
    links: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return sum(len(part.offsets) for part in self.rows)


@dataclass
class BufferWriter:
    """The open rows of one partition and the folder that they are sealed into."""

    folder: Path
    partition: Partition
    open_rows: int = field(default=0, init=False)
    _rows: list[BufferRows] = field(default_factory=list, init=False)
    _frozen: list[BufferRows] = field(default_factory=list, init=False)
    """Rows before those of _rows, frozen: their slots number `_names`, and their codes `_values`."""
    _names: dict[str, int] = field(default_factory=dict, init=False)
    _values: tuple[dict[str, int], ...] = field(default_factory=lambda: tuple({} for _ in CATEGORIES), init=False)

    def append(self, rows: BufferRows) -> None:
        """Add rows. The arrays are kept by reference and must not change afterwards."""
        if len(rows.offsets):
            self._rows.append(rows)
            self.open_rows += len(rows.offsets)

    def detach(self, links: Sequence[str], values: Sequence[Sequence[str]]) -> OpenSegment | None:
        """Detach the open rows. Return None if there are none.

        Both arguments may only have grown since the rows were appended. Call `freeze` before any other change of them.

        Args:
            links: Name of each slot (FeatureStore.links).
            values: The values behind the codes of each category (Interner.values).
        """
        if not self.open_rows:
            return None
        if self._frozen:
            self.freeze(links, values)
            detached = OpenSegment(tuple(self._frozen), tuple(self._names), tuple(tuple(known) for known in self._values))
        else:
            detached = OpenSegment(tuple(self._rows), tuple(links), tuple(tuple(known) for known in values))
        self._rows, self._frozen, self._names, self.open_rows = [], [], {}, 0
        self._values = tuple({} for _ in CATEGORIES)
        return detached

    def freeze(self, links: Sequence[str], values: Sequence[Sequence[str]]) -> None:
        """Freeze the names of the open rows. Call it before slots or codes get another meaning. Arguments as of `detach`."""
        self._frozen += [self._by_name(rows, links, values) for rows in self._rows]
        self._rows = []

    def _by_name(self, rows: BufferRows, links: Sequence[str], values: Sequence[Sequence[str]]) -> BufferRows:
        codes = np.empty((len(rows.codes), len(CATEGORIES)), np.int32)
        for category, (known, shared) in enumerate(zip(values, self._values, strict=True)):
            codes[:, category] = _renumbered(rows.codes[:, category], known, shared)
        return replace(rows, slots=_renumbered(rows.slots, links, self._names), codes=codes)

    def put_back(self, detached: OpenSegment) -> None:
        """Put rows that could not be sealed back before the open ones: the next `detach` returns them again."""
        self._frozen[:0] = [self._by_name(rows, detached.links, detached.values) for rows in detached.rows]
        self.open_rows += len(detached)

    def seal(self, detached: OpenSegment) -> Segment:
        """Write the rows as one durable segment. It may run on another thread: it shares no data with `append` and `detach`.

        Raises:
            OSError: The disk refuses the file. Nothing is left behind: call again, or put the rows back.
        """
        table = _table(detached)
        offsets = numpy_column(table["offset"])
        name = SegmentName(safe_topic(self.partition.topic), self.partition.number, int(offsets[0]), int(offsets[-1]))
        return write_segment(self.folder, name, table)


def _renumbered(numbers: Ints | Codes, names: Sequence[str], shared: dict[str, int]) -> Ints:
    """Return int32 (N,), the numbers of the names in `shared`, to which new names are added; -1 stays."""
    used, position = np.unique(numbers, return_inverse=True)
    new = [shared.setdefault(names[number], len(shared)) if number >= 0 else -1 for number in used.tolist()]
    return np.array(new, np.int32)[position]


def read_segments(paths: Sequence[Path], since_s: float | None = None, until_s: float | None = None) -> RawTable:
    """Return all rows of the segments as one table: links sorted by name, the rows of a link by time.

    A link that has moved to another partition (more partitions, a file replayed under two names) is one link here. Of rows at the same
    time the one of the first partition in name order stays. If a category has more values than codes, the most valuable ones
    (model.windows.names) have their own, and the others are OVERFLOW.

    Args:
        since_s: Oldest time of a row, UTC seconds; None: any.
        until_s: Newest time of a row, UTC seconds; None: any.

    Raises:
        SegmentError: A file is damaged, overlaps another one or repeats a row.
        ValueError: A file name is not a segment's.
    """
    path_of = {SegmentName.parse(path.name): path for path in paths}
    parts: list[_Part] = []
    links: dict[str, int] = {}
    values: tuple[dict[str, int], ...] = tuple({} for _ in CATEGORIES)
    for number, names in enumerate(by_partition(path_of).values()):
        for before, after in pairwise(names):
            if before.last >= after.first:
                raise SegmentError(path_of[after], f"overlaps {before}", "keep the one that the checkpoint names")
        recent = [name for name in names if since_s is None or describe(path_of[name]).last_time_s >= since_s]
        parts.extend(_part(path_of[name], number, links, values, since_s, until_s) for name in recent)
    return _limited(_sorted_table(parts, links, values))


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one file in stream order, with links and categories coded in order of first appearance."""

    path: Path
    partition: int
    time_s: Doubles
    numeric: Floats
    codes: Ints
    link: Ints


def _table(segment: OpenSegment) -> pa.Table:
    slots = np.concatenate([part.slots for part in segment.rows])
    numeric = np.concatenate([part.numeric for part in segment.rows])
    codes = np.concatenate([part.codes for part in segment.rows])
    columns: list[object] = [
        np.concatenate([part.offsets for part in segment.rows]),
        np.concatenate([part.time_s for part in segment.rows]),
    ]
    columns.extend(np.ascontiguousarray(numeric[:, column]) for column in range(len(NUMERIC)))
    columns.append(dictionary_column(slots, segment.links))
    columns.extend(dictionary_column(codes[:, category], known) for category, known in enumerate(segment.values))
    return pa.Table.from_arrays([arrow_column(column) if isinstance(column, np.ndarray) else column for column in columns], schema=SCHEMA)


def _part(
    path: Path, partition: int, links: dict[str, int], values: tuple[dict[str, int], ...], since_s: float | None, until_s: float | None
) -> _Part:  # fmt: skip
    table = load(path)
    time_s = table["time_s"].to_numpy()
    in_time = (time_s >= (-np.inf if since_s is None else since_s)) & (time_s <= (np.inf if until_s is None else until_s))
    if not in_time.all():
        table = table.filter(pa.array(in_time)).combine_chunks()
    numeric = np.empty((len(table), len(NUMERIC)), np.float32)
    for column, name in enumerate(NUMERIC):
        numeric[:, column] = table[name].to_numpy()
    codes = np.empty((len(table), len(CATEGORIES)), np.int32)
    for category, (name, known) in enumerate(zip(CATEGORIES, values, strict=True)):
        codes[:, category] = _coded(table[name], known)
    return _Part(path, partition, table["time_s"].to_numpy(), numeric, codes, _coded(table["link"], links))


def _coded(column: pa.ChunkedArray, known: dict[str, int]) -> Ints:
    """Return int32 (N,), the column's codes in the shared dictionary, to which new values are added; -1 if missing."""
    if column.num_chunks == 0:
        return np.empty(0, np.int32)
    array = column.chunk(0)
    shared = np.array([known.setdefault(value, len(known)) for value in array.dictionary.to_pylist()] + [-1], np.int32)
    indices: Ints = array.indices.fill_null(-1).to_numpy()
    return shared[indices]


def _limited(table: RawTable, most: int = MAX_VALUES - 1) -> RawTable:
    """Return the table with at most `most` values of each category, and OVERFLOW for the others."""
    codes, values = table.codes, list(table.values)
    for category, names in enumerate(values):
        if len(names) <= most:
            continue
        stay = np.sort(by_worth(codes[:, category], table.link, len(names))[:most])
        position = np.full(len(names) + 1, most, np.int32)
        position[stay], position[-1] = np.arange(most, dtype=np.int32), -1
        codes[:, category] = position[codes[:, category]]
        values[category] = (*(names[code] for code in stay.tolist()), OVERFLOW)
    return replace(table, codes=codes, values=tuple(values))


def _without_undone(order: Longs, link: Ints, partition: Ints, time_s: Doubles) -> Longs:
    """Return the rows of `order` without those far ahead of a later one of their link: they were ingested while a clock was wrong.

    order: int64 (N,), the rows by link, those of a link by partition and in stream order.
    """
    group = np.flatnonzero((np.diff(link[order]) != 0) | (np.diff(partition[order]) != 0)) + 1
    back = np.flatnonzero((np.diff(time_s[order]) < -UNDONE_S) & (np.diff(link[order]) == 0) & (np.diff(partition[order]) == 0))
    stays = np.ones(len(order), np.bool_)
    edges = [0, *group.tolist(), len(order)]
    for number in np.unique(np.searchsorted(group, back, side="right")).tolist():
        rows = slice(edges[number], edges[number + 1])
        times = time_s[order[rows]]
        least_later = np.minimum.accumulate(times[::-1])[::-1][1:]
        stays[rows][:-1] = times[:-1] <= least_later + UNDONE_S
    return order[stays]


def _sorted_table(parts: list[_Part], links: dict[str, int], values: tuple[dict[str, int], ...]) -> RawTable:
    names = sorted(links)
    rank = np.empty(len(names), np.int32)
    rank[[links[name] for name in names]] = np.arange(len(names), dtype=np.int32)
    link = rank[np.concatenate([part.link for part in parts] or [np.empty(0, np.int32)])]
    time_s = np.concatenate([part.time_s for part in parts] or [np.empty(0)])
    lengths = [len(part.time_s) for part in parts]
    partition = np.repeat(np.array([part.partition for part in parts], np.int32), lengths)
    order = _without_undone(np.argsort(link, kind="stable"), link, partition, time_s)
    same = (np.diff(link[order]) == 0) & (np.diff(time_s[order]) <= 0)
    if np.any(same & (np.diff(partition[order]) == 0)):
        row = int(order[1:][same & (np.diff(partition[order]) == 0)][0])
        path = parts[int(np.searchsorted(np.cumsum(lengths), row, side="right"))].path
        raise SegmentError(path, f"has a row of link {names[link[row]]!r} that is not after the one before it")
    if np.any(same):
        order = np.lexsort((partition, time_s, link))
        keep = np.ones(len(order), np.bool_)
        keep[1:] = (np.diff(link[order]) != 0) | (np.diff(time_s[order]) > 0)
        order = order[keep]
    numeric = np.concatenate([part.numeric for part in parts] or [np.empty((0, len(NUMERIC)), np.float32)])
    codes = np.concatenate([part.codes for part in parts] or [np.empty((0, len(CATEGORIES)), np.int32)])
    return RawTable(
        links=tuple(names),
        link=link[order],
        time_s=time_s[order],
        numeric=numeric[order],
        codes=codes[order],
        values=tuple(tuple(known) for known in values),
    )
