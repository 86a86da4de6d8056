"""A training by hand on windows of another length: every file is made for it, and the daemon says that it takes no such version."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as resized

from features.offline import RawTable
from features.telemetry import CATEGORIES, NUMERIC
from model.run import run
from model.spec.architecture import Lstm
from model.spec.job import JobSpec
from model.spec.run import FINISHED, RunSpec
from model.spec.settings import TrainingSettings
from model.version.golden import read_golden
from model.version.manifest import verify
from model.version.predictor import Predictor, PredictorError
from model.version.raw_predictor import RawPredictor

ROWS = 500
VERSION = "v20260101_000000"
SMALL = Lstm(lstm_units=(4,), lstm_dropout=(0.0,), recurrent_dropout=0.0, dense_units=(4,), dense_dropout=(0.0,), head_units=4)


def recorded() -> RawTable:
    """One link, a row a minute, of which throughput and RTT are measured."""
    random = np.random.default_rng(4)
    numeric = np.full((ROWS, len(NUMERIC)), np.nan, np.float32)
    numeric[:, 0] = 100.0 + np.cumsum(random.normal(size=ROWS))
    numeric[:, 1] = 20.0 + random.exponential(size=ROWS)
    numeric[:, NUMERIC.index("time_of_day")] = np.arange(ROWS) / 60.0 % 24.0
    numeric[:, NUMERIC.index("day_of_week")] = 2.0
    codes = np.zeros((ROWS, len(CATEGORIES)), np.int32)
    return RawTable(("a|b|",), np.zeros(ROWS, np.int32), 1.7e9 + 60.0 * np.arange(ROWS), numeric, codes, tuple(("x",) for _ in CATEGORIES))


@pytest.mark.parametrize("rows", [10, 45])
def test_every_file_is_of_that_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Graphs, golden samples and metadata agree, and verify; the raw graph forecasts what the golden samples say."""
    monkeypatch.setattr("model.run.read_segments", lambda _paths: recorded())
    quality = {
        "rows": ROWS, "links": 1, "from_s": 1.7e9, "until_s": 1.7e9, "gaps": 0, "missing_ratio": {}, "windows": {}, "findings": [],
    }  # fmt: skip
    spec = RunSpec(
        version=VERSION, created_at_s=1.7e9, source="recording", snapshot=str(tmp_path), folder=str(tmp_path / "out"), data_quality=quality,
        settings=TrainingSettings(epochs=1, batch_size=32, nice=0), architecture=resized(SMALL, window_rows=rows),
    )  # fmt: skip
    assert run(spec, lambda _event: None, lambda: False) == FINISHED
    folder = tmp_path / "out"
    assert verify(folder) == []
    assert json.loads((folder / f"model_metadata_{VERSION}.json").read_text())["window_rows"] == rows
    core, raw = read_golden(folder, rows)
    assert core.inputs.shape[1:] == (rows, 44)
    assert not raw.wrong(RawPredictor.load(folder).predict_windows(raw.windows), False).any()
    with pytest.raises(PredictorError, match=f"windows of {rows} rows, this release of 30"):
        Predictor.load(folder)


def test_limits() -> None:
    """Shorter and longer windows are refused, and a daemon's training takes no others than its own."""
    for rows in (1, 9, 241):
        with pytest.raises(ValueError, match="10 to 240 rows"):
            resized(SMALL, window_rows=rows)
    with pytest.raises(ValueError, match="windows of 30 rows, not 45"):
        JobSpec(
            job_id="job", version=VERSION, created_at_s=0.0, reason="test", snapshot="snapshot", candidate="candidate",
            architecture=resized(SMALL, window_rows=45),
        )  # fmt: skip
