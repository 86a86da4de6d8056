"""What the detectors of one watched link hold once their windows are long: the stream of `memory.py` is too short for that."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import numpy as np
from harness import answer, job_of

from drift.link import LinkDrift, WatchedRows
from features.telemetry import CATEGORIES, NUMERIC, TARGETS
from parts.daemon_memory import memory


def run(links: int, rows: int) -> dict[str, Any]:
    """Bytes a link after `rows` residuals of each, white noise as a good model leaves it."""
    rng = np.random.default_rng(0)
    drift, least = LinkDrift(epoch=1), np.zeros(len(TARGETS), np.float32)
    watch, codes = np.arange(links, dtype=np.int32), np.ones((links, len(CATEGORIES)), np.float32)
    before = _settled()
    for row in range(rows):
        numeric = rng.normal(size=(links, len(NUMERIC))).astype(np.float32)
        at_s, offsets, zero = np.full(links, 60.0 * row), np.full(links, row), np.zeros(links)
        made = WatchedRows(watch, numeric, numeric[:, : len(TARGETS)], codes, at_s, zero, offsets, lambda _row: ("region", "", ""))
        drift.update(made, least)
    return {"bytes_per_watched_link": (_settled() - before) / len(drift)}


def _settled() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory()["resident_bytes"]


if __name__ == "__main__":
    job = job_of(sys.argv)
    answer(run(job["links"], job["rows"]))
