"""Raw windows to forecast: of a recording where one is at hand, else of the simulated fleet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from features.offline import OfflineFeatures, RawTable, compute
from features.telemetry import CATEGORIES, TelemetryBatch
from features.vocabulary import Interner, Vocabulary
from model.dataset import build_windows
from model.raw_windows import RawWindows, cut
from parts.stream import fleet, write_file
from streams.decode import decode
from streams.file_source import FileSource

RECORDING: Final = Path(__file__).resolve().parents[3] / "shared" / "data" / "dwcp_training.csv"
"""One merged series: node and peer are random in each of its rows."""
_LINKS, _ROWS = 4, 120


def measured_windows(count: int) -> tuple[str, RawTable, Vocabulary, RawWindows]:
    """Where they are from, the table, the vocabulary of its values, and `count` windows spread evenly over it."""
    if RECORDING.exists():
        return ("recorded", *_windows(read_table(RECORDING, merged=True), count))
    return ("simulated", *_windows(_simulated(), count))


def simulated_windows(count: int) -> RawWindows:
    """`count` windows of a small fleet, in turn."""
    return _windows(_simulated(), count)[2]


def read_table(path: Path, *, merged: bool) -> RawTable:
    """Every valid record of a file. merged: all of one link."""
    source = FileSource(path)
    source.seek(source.partition, None)
    batches = []
    while not (polled := source.poll(0.0)).ended:
        batches += [decode(raw, None).batch for raw in polled.batches]
    source.close()
    return _table(batches, merged)


def _simulated() -> RawTable:
    with tempfile.TemporaryDirectory(prefix="dwcp-windows-") as name:
        path = Path(name) / "fleet.ndjson"
        write_file(fleet(_LINKS), _ROWS, path)
        return read_table(path, merged=False)


def _table(batches: list[TelemetryBatch], merged: bool) -> RawTable:
    interner = Interner()
    codes = np.concatenate([interner.codes(batch.categories) for batch in batches]).astype(np.int32)
    time_s = np.concatenate([batch.time_s for batch in batches])
    names = ["" if merged else f"{node}|{peer}" for batch in batches for node, peer in zip(batch.node_id, batch.peer_id, strict=True)]
    links, link = np.unique(names, return_inverse=True)
    order = np.lexsort((time_s, link))
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(link[order]) > 0) | (np.diff(time_s[order]) > 0)
    order = order[new]
    numeric = np.concatenate([batch.numeric for batch in batches])
    values = tuple(tuple(part) for part in interner.values)
    assert len(values) == len(CATEGORIES)
    return RawTable(tuple(links.tolist()), link[order].astype(np.int32), time_s[order], numeric[order], codes[order], values)


def _windows(table: RawTable, count: int) -> tuple[RawTable, Vocabulary, RawWindows]:
    vocabulary = Vocabulary.empty().extended(table.values)
    found: OfflineFeatures = compute(table, vocabulary)
    end = build_windows(found, table).end
    return table, vocabulary, cut(table, found.run, end[np.linspace(0, len(end) - 1, count).astype(np.int64)])
