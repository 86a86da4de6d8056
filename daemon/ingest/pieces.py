"""Pieces of a batch that are decoded at once."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from streams.source import RawBatch

CHUNK_ROWS: Final = 2048
"""Most records of a piece: the windows of this many monitored rows are 11 MB."""
REVIEW_RECORDS: Final = 65_536
"""Offsets between two reviews of the monitored links: hours of a small fleet, and rare enough to cost nothing with a large one."""


def pieces(raw: RawBatch) -> Iterator[RawBatch]:
    """Cut a batch after CHUNK_ROWS records, and before each record at which the monitored links are reviewed."""
    begin = 0
    while begin < len(raw):
        review = (raw.offsets[begin] // REVIEW_RECORDS + 1) * REVIEW_RECORDS
        end = min(begin + CHUNK_ROWS, bisect.bisect_left(raw.offsets, review, begin))
        yield part_of(raw, begin, end)
        begin = end


def is_review_due(next_offset: int, offset: int) -> bool:
    """Return whether the monitored links are reviewed before the record at `offset`. next_offset: after the last ingested record."""
    return offset // REVIEW_RECORDS > (next_offset - 1) // REVIEW_RECORDS


def part_of(raw: RawBatch, begin: int, end: int) -> RawBatch:
    """Return the records from `begin` to before `end`."""
    lines = raw.lines[begin:end] if raw.lines is not None else None
    written = raw.written[begin:end] if raw.written is not None else None
    return replace(raw, offsets=raw.offsets[begin:end], values=raw.values[begin:end], lines=lines, written=written)
