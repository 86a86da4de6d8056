"""The training buffer: what the stream brought, row by row, in sealed Parquet segments that a training reads.

Per partition one `BufferWriter`. The loop's thread appends and takes; another thread seals what was taken. Which segments count is
the checkpoint's business: whatever it does not name is deleted at the next start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
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
    TEMPORARY_PREFIX,
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

GONE_PREFIX: Final = ".gone-"
"""Before the name of a segment that is about to be deleted."""


UNDONE_S: Final = 60.0
"""Seconds by which a row is at least ahead of the next one of its link if it was of a time that could not be (CLOCK_S of
daemon.ingest.journal). A row that goes back by less is damage: no link is taken out of order."""


@dataclass(frozen=True, slots=True)
class BufferRows:
    """N accepted rows of one partition, in stream order.

    offsets: int64 (N,), strictly ascending. time_s: float64 (N,), UTC seconds. numeric: float32 (N, 11), NaN where not measured.
    codes: int16 or int32 (N, 6), the stream's own codes (Interner), -1 where missing. slots: int32 (N,), link slots.
    """

    offsets: Longs
    time_s: Doubles
    numeric: Floats
    codes: Codes | Ints
    slots: Ints


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """Rows that were detached for sealing, with the dictionaries that their slots and codes point into."""

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
    _settled: list[BufferRows] = field(default_factory=list, init=False)
    """Rows that came before those of _rows; their slots number `_names`, and their codes `_values`."""
    _names: dict[str, int] = field(default_factory=dict, init=False)
    _values: tuple[dict[str, int], ...] = field(default_factory=lambda: tuple({} for _ in CATEGORIES), init=False)

    def append(self, rows: BufferRows) -> None:
        """Keeps references to the arrays, which must not change afterwards. Costs no copy and no Parquet."""
        if len(rows.offsets):
            self._rows.append(rows)
            self.open_rows += len(rows.offsets)

    def take(self, links: Sequence[str], values: Sequence[Sequence[str]]) -> OpenSegment | None:
        """Detaches the open rows; None where there are none.

        links: name of each slot (FeatureStore.links). values: the values behind the codes of each category (Interner.values). Both may only
        ever have grown since the rows were appended, or `settle` was called before they changed otherwise.
        """
        if not self.open_rows:
            return None
        if self._settled:
            self.settle(links, values)
            taken = OpenSegment(tuple(self._settled), tuple(self._names), tuple(tuple(known) for known in self._values))
        else:
            taken = OpenSegment(tuple(self._rows), tuple(links), tuple(tuple(known) for known in values))
        self._rows, self._settled, self._names, self.open_rows = [], [], {}, 0
        self._values = tuple({} for _ in CATEGORIES)
        return taken

    def settle(self, links: Sequence[str], values: Sequence[Sequence[str]]) -> None:
        """To be called before slots come to stand for other links, or codes for other values: the open rows keep those that they have.

        links, values: as `take` has them.
        """
        self._settled += [self._by_name(rows, links, values) for rows in self._rows]
        self._rows = []

    def _by_name(self, rows: BufferRows, links: Sequence[str], values: Sequence[Sequence[str]]) -> BufferRows:
        codes = np.empty((len(rows.codes), len(CATEGORIES)), np.int32)
        for category, (known, shared) in enumerate(zip(values, self._values, strict=True)):
            codes[:, category] = _renumbered(rows.codes[:, category], known, shared)
        return replace(rows, slots=_renumbered(rows.slots, links, self._names), codes=codes)

    def give_back(self, taken: OpenSegment) -> None:
        """Puts rows that could not be sealed back before the open ones: the next `take` has them again."""
        self._settled[:0] = [self._by_name(rows, taken.links, taken.values) for rows in taken.rows]
        self.open_rows += len(taken)

    def seal(self, taken: OpenSegment) -> Segment:
        """Writes the rows as one segment, durably. Touches nothing that `append` and `take` use, so it may run on another thread.

        Raises OSError (disk full, ...) and leaves no trace then: call again, or give the rows back.
        """
        table = _table(taken)
        offsets = numpy_column(table["offset"])
        name = SegmentName(safe_topic(self.partition.topic), self.partition.number, int(offsets[0]), int(offsets[-1]))
        return write_segment(self.folder, name, table)


def _renumbered(numbers: Ints | Codes, names: Sequence[str], shared: dict[str, int]) -> Ints:
    """int32 (N,): the numbers that the names have in `shared`, which grows by new ones; -1 stays."""
    used, position = np.unique(numbers, return_inverse=True)
    new = [shared.setdefault(names[number], len(shared)) if number >= 0 else -1 for number in used.tolist()]
    return np.array(new, np.int32)[position]


def drop_unnamed(folder: Path, partitions: Collection[Partition], named: Callable[[], Collection[str]]) -> list[str]:
    """Deletes segments of these partitions that nobody names, and what an interrupted sealing left. Gives the names of the files.

    named: gives the file names that any checkpoint names. It is asked twice, since another member may seal a segment and name it in the
    meantime: what goes is renamed first, and comes back if it is named by then (see `reclaim`, for a process that ends in between). So
    whoever names a segment and then finds it in its place has it for good. Raises the first OSError, after it has done what it can.
    """
    names = ((path, _segment_of(path)) for path in sorted(folder.iterdir()))
    found = [(path, name) for path, name in names if name and any(name.belongs_to(partition) for partition in partitions)]
    problems: list[OSError] = []

    def tried(call: Callable[[], object]) -> bool:
        try:
            call()
        except FileNotFoundError:  # another member was faster
            return False
        except OSError as error:
            problems.append(error)
            return False
        return True

    known = named()
    going = [(path, name) for path, name in found if path.name.startswith(GONE_PREFIX)]
    dropped = [path.name for path, _ in going]
    for path, name in found:
        if path.name.startswith(TEMPORARY_PREFIX):
            dropped += [path.name] if tried(path.unlink) else []
        elif path.name == str(name) and path.name not in known:
            gone = folder / f"{GONE_PREFIX}{name}"
            if tried(lambda path=path, gone=gone: path.rename(gone)):  # type: ignore[misc]
                going.append((gone, name))
                dropped.append(path.name)
    known = named() if going else known
    for gone, name in going:
        if str(name) in known and not (folder / str(name)).exists():
            dropped.remove(str(name) if str(name) in dropped else gone.name)
            tried(lambda gone=gone, name=name: gone.rename(folder / str(name)))  # type: ignore[misc]
        else:
            tried(gone.unlink)
    if problems:
        raise problems[0]
    return dropped


def reclaim(folder: Path, named: Collection[str]) -> None:
    """Gives segments that are named their place back where a process has ended in the middle of `drop_unnamed`."""
    for gone in folder.glob(f"{GONE_PREFIX}*"):
        name = gone.name.removeprefix(GONE_PREFIX)
        if name in named and not (folder / name).exists():
            with suppress(FileNotFoundError):
                gone.rename(folder / name)


def _segment_of(path: Path) -> SegmentName | None:
    try:
        return SegmentName.parse(path.name.removeprefix(TEMPORARY_PREFIX).removeprefix(GONE_PREFIX))
    except ValueError:
        return None


def snapshot(paths: Iterable[Path], into: Path) -> list[Path]:
    """Hard links of the segments in the new folder `into` (copies where the file system refuses links): retention and compaction
    no longer touch what a training reads. Raises SegmentError where a segment is missing, FileExistsError where `into` exists."""
    into.mkdir(parents=True)
    linked = []
    for path in paths:
        target = into / path.name
        try:
            os.link(path, target)
        except FileNotFoundError as error:
            raise SegmentError(path, "is missing", "restore it from a copy, or go on without its rows") from error
        except OSError:
            shutil.copyfile(path, target)
        linked.append(target)
    return linked


def read_segments(paths: Sequence[Path], since_s: float | None = None, until_s: float | None = None) -> RawTable:
    """All rows (at or after since_s, at or before until_s; UTC seconds), links sorted by name, the rows of a link by time, categories in
    one dictionary each.

    A link that has moved to another partition (more partitions, a file replayed twice under two names) is one link here; of rows at
    the same time the one of the first partition in name order stays. Of more values of a category than codes can tell apart those that
    are worth most (model.windows.names) are told apart, and the others are OVERFLOW. Raises SegmentError where a file is damaged, overlaps
    another one or repeats a row, ValueError where a file name is not a segment's.
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


def _table(taken: OpenSegment) -> pa.Table:
    slots = np.concatenate([part.slots for part in taken.rows])
    numeric = np.concatenate([part.numeric for part in taken.rows])
    codes = np.concatenate([part.codes for part in taken.rows])
    columns: list[object] = [np.concatenate([part.offsets for part in taken.rows]), np.concatenate([part.time_s for part in taken.rows])]
    columns.extend(np.ascontiguousarray(numeric[:, column]) for column in range(len(NUMERIC)))
    columns.append(dictionary_column(slots, taken.links))
    columns.extend(dictionary_column(codes[:, category], known) for category, known in enumerate(taken.values))
    return pa.Table.from_arrays([arrow_column(column) if isinstance(column, np.ndarray) else column for column in columns], schema=SCHEMA)


def _part(
    path: Path, partition: int, links: dict[str, int], values: tuple[dict[str, int], ...], since_s: float | None, until_s: float | None
) -> _Part:  # fmt: skip
    table = load(path)
    time_s = table["time_s"].to_numpy()
    kept = (time_s >= (-np.inf if since_s is None else since_s)) & (time_s <= (np.inf if until_s is None else until_s))
    if not kept.all():
        table = table.filter(pa.array(kept)).combine_chunks()
    numeric = np.empty((len(table), len(NUMERIC)), np.float32)
    for column, name in enumerate(NUMERIC):
        numeric[:, column] = table[name].to_numpy()
    codes = np.empty((len(table), len(CATEGORIES)), np.int32)
    for category, (name, known) in enumerate(zip(CATEGORIES, values, strict=True)):
        codes[:, category] = _coded(table[name], known)
    return _Part(path, partition, table["time_s"].to_numpy(), numeric, codes, _coded(table["link"], links))


def _coded(column: pa.ChunkedArray, known: dict[str, int]) -> Ints:
    """The column's codes in the shared dictionary, which grows by its new values; -1 where missing."""
    if column.num_chunks == 0:
        return np.empty(0, np.int32)
    array = column.chunk(0)
    shared = np.array([known.setdefault(value, len(known)) for value in array.dictionary.to_pylist()] + [-1], np.int32)
    indices: Ints = array.indices.fill_null(-1).to_numpy()
    return shared[indices]


def _limited(table: RawTable, most: int = MAX_VALUES - 1) -> RawTable:
    """The same with at most so many values of each category, and OVERFLOW."""
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
    """Leaves out rows that lie far after one of their link that came later: they were taken while a clock was wrong, and undone.

    order: int64 (N,), the rows by link, those of a link by partition and in stream order.
    """
    group = np.flatnonzero((np.diff(link[order]) != 0) | (np.diff(partition[order]) != 0)) + 1
    back = np.flatnonzero((np.diff(time_s[order]) < -UNDONE_S) & (np.diff(link[order]) == 0) & (np.diff(partition[order]) == 0))
    stays = np.ones(len(order), np.bool_)
    for begin in {int(group[at - 1]) if at else 0 for at in np.searchsorted(group, back, side="right").tolist()}:
        at = int(np.searchsorted(group, begin, side="right"))
        rows = slice(begin, int(group[at]) if at < len(group) else len(order))
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
        kept = np.ones(len(order), np.bool_)
        kept[1:] = (np.diff(link[order]) != 0) | (np.diff(time_s[order]) > 0)
        order = order[kept]
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
