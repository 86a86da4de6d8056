"""A whole recording as one table: what an offline training reads, by the rules of the stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from features.offline import RawTable
from features.store import FeatureStore
from features.telemetry import CATEGORIES, COLUMNS, DEFAULT_LINK_KEY, NUMERIC, Codes, Doubles, Floats, Ints, Longs
from streams.files.source import FileSource
from streams.records.decode import Rejected, decode

EXAMPLES: Final = 5
"""Refused records that are kept to be shown."""

_Part: TypeAlias = tuple[Ints, Doubles, Floats, Codes, Longs]
"""Of the accepted rows of one batch: link, time, numeric, codes, and where they stand (number of the file, then of the line)."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The accepted rows of a file or folder, and what became of the others.

    columns: of the telemetry record's, those that a CSV header names; all of them for JSON. rejected: refused records by kind, with
    the first few as examples. backwards: rows that stood in their file behind a later one of their link. duplicates: of a link and
    time that was there before.
    """

    table: RawTable
    columns: tuple[str, ...]
    records: int
    rejected: dict[str, int]
    examples: tuple[Rejected, ...]
    backwards: int
    duplicates: int


def read_recording(path: Path, link_key: Sequence[str] = DEFAULT_LINK_KEY) -> Recording:
    """Reads a CSV or NDJSON file, or a folder of them. link_key: as FeatureStore's; none: one merged series.

    Raises SourceError where there is nothing to read, ValueError for a link key of other columns.
    """
    store = FeatureStore(link_key, names_max=None)
    source = FileSource(path)
    (partition,) = source.poll(0.0).assigned
    source.seek(partition, 0)
    parts: list[_Part] = []
    rejected: Counter[str] = Counter()
    examples: list[Rejected] = []
    columns: tuple[str, ...] = COLUMNS
    records = duplicates = 0
    files: dict[str, int] = {}
    while not (polled := source.poll(0.0)).ended:
        for raw in polled.batches:
            records += len(raw)
            columns = raw.columns or columns
            decoded = decode(raw, None)
            rejected.update(record.kind for record in decoded.rejected)
            examples += decoded.rejected[: max(0, EXAMPLES - len(examples))]
            batch = decoded.batch
            if not len(batch):
                continue
            slots = store.resolve(batch)
            rows = store.update(batch, slots, np.zeros(len(store), np.bool_), None)
            duplicates += rows.duplicates
            places = np.array([(files.setdefault(name, len(files)) << 32) + line for name, line in raw.lines or ()], np.int64)
            place = places[batch.offsets[rows.accepted] - raw.offsets[0]]
            parts.append((rows.slots, batch.time_s[rows.accepted], batch.numeric[rows.accepted], rows.codes, place))
    source.close()
    table, backwards = _table(store, parts)
    return Recording(
        table=table,
        columns=tuple(name for name in COLUMNS if name in columns),
        records=records,
        rejected=dict(rejected),
        examples=tuple(examples),
        backwards=backwards,
        duplicates=duplicates,
    )


def _table(store: FeatureStore, parts: list[_Part]) -> tuple[RawTable, int]:
    """The rows by link, within a link in order of time; and how many of them stood behind a later one."""
    values = tuple(tuple(names) for names in store.interner.values)
    if not parts:
        parts = [
            (
                np.zeros(0, np.int32),
                np.zeros(0),
                np.zeros((0, len(NUMERIC)), np.float32),
                np.zeros((0, len(CATEGORIES)), np.int16),
                np.zeros(0, np.int64),
            )
        ]
    link, time_s, numeric, codes, place = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(link, kind="stable")
    link, place = link[order], place[order]
    backwards = int(np.count_nonzero((np.diff(link) == 0) & (np.diff(place) < 0)))
    return RawTable(tuple(store.links), link, time_s[order], numeric[order], codes[order].astype(np.int32), values), backwards
