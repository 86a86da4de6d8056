"""What the detectors of one watched link hold once their windows are long: the stream of `memory.py` is too short for that."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import numpy as np
from harness import answer, job_of

from drift.link import LinkDrift
from features.telemetry import TARGETS
from parts.daemon_memory import memory


def run(links: int, rows: int) -> dict[str, Any]:
    """Bytes a link after `rows` residuals of each, white noise as a good model leaves it."""
    rng = np.random.default_rng(0)
    drift, least = LinkDrift(epoch=1), np.zeros(len(TARGETS), np.float32)
    names = [("region", f"link-{link}", "metro") for link in range(links)]
    before = _settled()
    for row in range(rows):
        residual = rng.normal(size=(links, len(TARGETS))).astype(np.float32)
        drift.update(range(links), residual, least, np.full(links, 60.0 * row), np.full(links, row), names)
    return {"bytes_per_watched_link": (_settled() - before) / len(drift)}


def _settled() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory()["resident_bytes"]


if __name__ == "__main__":
    job = job_of(sys.argv)
    answer(run(job["links"], job["rows"]))
