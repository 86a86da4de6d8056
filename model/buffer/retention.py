"""Retention of a training buffer: small neighbouring segments are merged, the oldest are dropped. The plans are pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import pyarrow as pa

from model.buffer.segments import Segment, SegmentName, by_partition, load, write_segment

COMPACTED_ROWS: Final = 500_000
"""Rows at which compaction stops: 15 MB a file, and small steps when retention drops from a buffer of millions of rows."""
MEASURED_SHARE: Final = 0.01
"""Share of the rows that has to be this new before others are dropped for their age."""
FAN_IN: Final = 8
"""Adjacent segments of one size class that become one. A row is rewritten once per class, so 4 times at most."""


def plan_retention(
    segments: Iterable[Segment], *, rows_max: int | None, age_max_s: float | None, now_s: float
) -> list[SegmentName]:  # fmt: skip
    """Return the segments to drop, oldest first: those that are too old, then as many as leave at most rows_max rows.

    The segment with the newest rows always stays.

    Args:
        age_max_s: A segment is too old if its newest row is older than this; None: never.
        now_s: UTC seconds on the clock of the rows' own times. Age counts from at most age_max_s / 2 after the time that MEASURED_SHARE of
            the rows have certainly reached, so that one row of the far future does not make all others old.
    """
    oldest_first = sorted(segments, key=lambda segment: (segment.last_time_s, segment.name))
    rows = sum(segment.rows for segment in oldest_first)
    oldest_s = -math.inf if age_max_s is None else min(now_s, _reached_s(oldest_first, rows) + age_max_s / 2) - age_max_s
    dropped = []
    for segment in oldest_first[:-1]:
        too_old = segment.last_time_s < oldest_s
        if too_old or (rows_max is not None and rows > rows_max):
            dropped.append(segment.name)
            rows -= segment.rows
    return dropped


def _reached_s(segments: Sequence[Segment], rows: int) -> float:
    """Return the time that MEASURED_SHARE of all rows have certainly reached, UTC seconds: no row of a segment is before its first one."""
    counted = 0
    for segment in sorted(segments, key=lambda segment: segment.first_time_s, reverse=True):
        counted += segment.rows
        if counted >= MEASURED_SHARE * rows:
            return segment.first_time_s
    return math.inf


def plan_compaction(segments: Iterable[Segment], rows_max: int = COMPACTED_ROWS) -> list[tuple[SegmentName, ...]]:
    """Return groups of FAN_IN adjacent segments of one partition to merge, of the smallest size class that has such a group."""
    rows_of = {segment.name: segment.rows for segment in segments}
    plan = []
    for names in by_partition(rows_of).values():
        classes = (rows_max // FAN_IN**power for power in (3, 2, 1))
        groups = (_adjacent_groups(names, rows_of, small_rows) for small_rows in classes)
        plan.extend(next((found for found in groups if found), []))
    return plan


def compact(folder: Path, names: Sequence[SegmentName]) -> Segment:
    """Merge segments of one partition, in offset order, into one. The parts stay until `drop_unnamed` or the caller deletes them.

    Raises:
        SegmentError: A part is damaged.
        ValueError: They are not of one partition, or overlap.
        OSError: The disk refuses the file.
    """
    for before, after in pairwise(names):
        if (before.topic, before.number) != (after.topic, after.number) or before.last >= after.first:
            raise ValueError(f"{before} and {after} do not follow one another")
    merged = SegmentName(names[0].topic, names[0].number, names[0].first, names[-1].last)
    table = pa.concat_tables([load(folder / str(name)) for name in names]).unify_dictionaries().combine_chunks()
    segment = write_segment(folder, merged, table)
    del table
    pa.default_memory_pool().release_unused()  # otherwise the daemon keeps some 90 MB of the largest merge for ever
    return segment


def _adjacent_groups(names: Sequence[SegmentName], rows_of: dict[SegmentName, int], small_rows: int) -> list[tuple[SegmentName, ...]]:
    groups: list[tuple[SegmentName, ...]] = []
    group: list[SegmentName] = []
    for name in names:
        if rows_of[name] > small_rows:
            group = []
            continue
        group.append(name)
        if len(group) == FAN_IN:
            groups.append(tuple(group))
            group = []
    return groups
