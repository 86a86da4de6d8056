"""A whole recording as one table, by the rules of the stream: the input of an offline training."""

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
"""Number of refused records that are kept to be shown."""

_Part: TypeAlias = tuple[Ints, Doubles, Floats, Codes, Longs]
"""Link, time, numeric, codes and place (number of the file, then of the line) of the accepted rows of one batch."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The accepted rows of a file or folder, and the reasons for the others.

    Args:
        table: The accepted rows.
        columns: Columns that a CSV header names; all of them for JSON.
        records: How many records there are.
        rejected: How many records were refused, by kind.
        examples: The first of them, at most EXAMPLES.
        backwards: How many rows stood in their file behind a later one of their link.
        duplicates: How many rows have the link and the time of another.
    """

    table: RawTable
    columns: tuple[str, ...]
    records: int
    rejected: dict[str, int]
    examples: tuple[Rejected, ...]
    backwards: int
    duplicates: int


def read_recording(path: Path, link_key: Sequence[str] = DEFAULT_LINK_KEY) -> Recording:
    """Read a CSV or NDJSON file, or a folder of them.

    Args:
        path: The file or folder.
        link_key: Columns that identify a link. With none, all is one merged series.

    Raises:
        SourceError: There is nothing to read.
        ValueError: The link key has an unknown column.
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
    """Return the rows by link, within a link by time, and how many of them stood behind a later one."""
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
