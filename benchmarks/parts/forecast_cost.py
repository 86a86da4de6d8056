"""Cost of a monitored row with a model of the real size: the forecast alone, and everything in the daemon with its detectors."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.definition import FEATURES, WINDOW_ROWS
from harness import answer, job_of
from model.registry.versions import Registry
from model.version.predictor import Predictor
from parts.daemon_run import ingest
from parts.stream import fleet, write_file

BATCHES: Final = (1, 16, 256)
"""Rows of a batch. A quiet stream brings one or two monitored rows a poll; a busy one fills the graph's batch."""
NEVER_SHED: Final = 2**62


def forecast_ms(models: Path, seconds: float) -> dict[str, float]:
    """Return CPU milliseconds of a forecast by the rows of a batch."""
    version = Registry(models).current()
    assert version is not None
    predictor = Predictor.load(models / version)
    found = {}
    for batch in BATCHES:
        windows = np.random.default_rng(0).uniform(1, 100, (batch, WINDOW_ROWS, len(FEATURES))).astype(np.float32)
        predictor.predict(windows)
        began_s, made = time.process_time(), 0
        while time.process_time() - began_s < seconds:
            predictor.predict(windows)
            made += batch
        found[f"in_batches_of_{batch}"] = 1e3 * (time.process_time() - began_s) / made
    return found


def watched_row_ms(models: Path, links: int, rows: int) -> dict[str, Any]:
    """Return CPU milliseconds of a monitored link's row in total: every link of the fleet is monitored, no forecast is shed."""
    with tempfile.TemporaryDirectory(prefix="dwcp-watched-") as name:
        path = Path(name) / "watched.ndjson"
        written = write_file(fleet(links), rows, path)
        ran = ingest({"file": str(path), "models": str(models), "records": written.records, "shed_above_lag": NEVER_SHED})
    return {"cpu_ms": 1e3 * ran["cpu_s"] / ran["forecasts"], "forecasts": ran["forecasts"], "stage_s": ran["stage_s"]}


if __name__ == "__main__":
    job = job_of(sys.argv)
    folder = Path(job["models"])
    row = watched_row_ms(folder, job["links"], job["rows"])
    answer({"forecast_ms": forecast_ms(folder, job["seconds"]), "watched_row": row})
