"""Memory of the detectors of one monitored link with long windows: the stream of `memory.py` is too short for them."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import numpy as np

from drift.link.rows import MonitoredRows
from drift.link.stage import LinkDrift
from features.telemetry import CATEGORIES, NUMERIC, TARGETS
from harness import answer, job_of
from parts.daemon_memory import memory


def run(links: int, rows: int) -> dict[str, Any]:
    """Return bytes a link after `rows` residuals of each: white noise, as a good model leaves it."""
    _feed(LinkDrift(epoch=1), 1, 1)  # compiles
    drift = LinkDrift(epoch=1)
    before = _settled()
    _feed(drift, links, rows)
    return {"bytes_per_watched_link": (_settled() - before) / len(drift)}


def _feed(drift: LinkDrift, links: int, rows: int) -> None:
    rng, least = np.random.default_rng(0), np.zeros(len(TARGETS), np.float32)
    watch, codes, zero = np.arange(links, dtype=np.int32), np.ones((links, len(CATEGORIES)), np.float32), np.zeros(links)
    for row in range(rows):
        numeric = rng.normal(size=(links, len(NUMERIC))).astype(np.float32)
        at_s, offsets = np.full(links, 60.0 * row), np.full(links, row)
        made = MonitoredRows(watch, numeric, numeric[:, : len(TARGETS)], codes, at_s, zero, offsets, lambda _row: ("region", "", ""))
        drift.update(made, least)


def _settled() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory()["resident_bytes"]


if __name__ == "__main__":
    job = job_of(sys.argv)
    answer(run(job["links"], job["rows"]))
