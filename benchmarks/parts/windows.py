"""Raw windows to forecast: from a recording if there is one, else from the simulated fleet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from features.offline import OfflineFeatures, RawTable, compute
from features.vocabulary import Vocabulary
from model.version.raw_windows import RawWindows, cut
from model.windows.index import build_windows
from parts.stream import fleet, write_file
from streams.files.recording import read_recording

RECORDING: Final = Path(__file__).resolve().parents[3] / "shared" / "data" / "dwcp_training.csv"
"""A recording that is read as one series: node and peer are random in each of its rows."""
_LINKS, _ROWS = 4, 120


def measured_windows(count: int) -> tuple[str, RawTable, Vocabulary, RawWindows]:
    """Return origin, table, vocabulary of its values, and `count` windows spread evenly over it."""
    if RECORDING.exists():
        return ("recorded", *_windows(read_recording(RECORDING, ()).table, count))
    return ("simulated", *_windows(_simulated(), count))


def simulated_windows(count: int, rows: int = _ROWS) -> RawWindows:
    """Return `count` windows of a small fleet, spread evenly over its rows, one a minute."""
    return _windows(_simulated(rows), count)[2]


def _simulated(rows: int = _ROWS) -> RawTable:
    with tempfile.TemporaryDirectory(prefix="dwcp-windows-") as name:
        path = Path(name) / "fleet.ndjson"
        write_file(fleet(_LINKS), rows, path)
        return read_recording(path).table


def _windows(table: RawTable, count: int) -> tuple[RawTable, Vocabulary, RawWindows]:
    vocabulary = Vocabulary.empty().extended(table.values)
    found: OfflineFeatures = compute(table, vocabulary)
    end = build_windows(found, table).end
    return table, vocabulary, cut(table, found.run, end[np.linspace(0, len(end) - 1, count).astype(np.int64)])
