"""A recording as the table that a training reads: decoded, duplicates and late rows refused, sorted by link."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from features.offline import RawTable
from features.store import FeatureStore
from features.telemetry import TelemetryBatch
from streams.decode import decode
from streams.file_source import FileSource


def read_table(path: Path, key: Sequence[str]) -> RawTable:
    """key: the columns that tell links apart; none: one merged series. Raises SourceError where the file cannot be read."""
    source = FileSource(path)
    source.seek(source.partition, 0)
    store, batches, slots, codes = FeatureStore(key), [], [], []
    while not (polled := source.poll(0.0)).ended:
        for raw in polled.batches:
            batch = decode(raw, None).batch
            links = store.resolve(batch)
            rows = store.update(batch, links, np.zeros(len(store), np.bool_), None)
            batches.append((batch, rows.accepted))
            slots.append(rows.slots)
            codes.append(rows.codes)
    source.close()
    return _sorted(store, batches, np.concatenate(slots), np.concatenate(codes).astype(np.int32))


def _sorted(store: FeatureStore, batches: list[tuple[TelemetryBatch, np.ndarray]], slots: np.ndarray, codes: np.ndarray) -> RawTable:
    order = np.argsort(slots, kind="stable")
    return RawTable(
        links=tuple(store.links),
        link=slots[order].astype(np.int32),
        time_s=np.concatenate([batch.time_s[accepted] for batch, accepted in batches])[order],
        numeric=np.concatenate([batch.numeric[accepted] for batch, accepted in batches])[order],
        codes=codes[order],
        values=tuple(tuple(values) for values in store.interner.values),
    )
