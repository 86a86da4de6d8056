"""The Go client's tools, and versions that are trained for it: for every test that lets Go read what Python has published."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

from features.definition import RING_ROWS, WINDOW_ROWS
from features.telemetry import CATEGORIES, NUMERIC, Partition
from features.vocabulary import Interner
from model.buffer.rows import BufferRows, BufferWriter
from model.job import Job
from model.registry.versions import Registry
from model.spec.architecture import Architecture
from model.spec.job import JobSpec
from model.spec.settings import TrainingSettings
from model.spec.verdict import GatePolicy
from model.version.raw_windows import RawWindows
from testkit.paths import ROOT

CLIENT = ROOT / "clients" / "go"
LINKS, ROWS = 3, 300
START_S = 1_795_000_000.0
SETTINGS = TrainingSettings(epochs=1, batch_size=32, windows_min=64, epoch_windows_max=64, nice=0)
LEVELS = {
    "throughput_mbps": 400.0, "rtt_ms": 30.0, "packet_loss": 0.02, "jitter_ms": 4.0, "congestion_window": 60.0, "queue_depth": 7.0,
    "retransmits": 2.0, "bytes_tx": 1e6, "bytes_rx": 3e6,
}  # fmt: skip
TEXTS: dict[str, list[Any]] = {
    "region": ["eu-1", "us-1"], "az": ["a", 7, 1.5], "link_type": ["fibre", "lte"], "dwcp_mode": ["adaptive"],
    "network_tier": ["gold", "naïve"], "transport_type": ["rdma", "tcp"],
}  # fmt: skip


def go_command() -> list[str]:
    """Return the go tool. Skips where it or the C compiler that ONNX Runtime's wrapper needs is missing; in CI that is a failure."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    missing = "Go (https://go.dev/dl)" if go is None else None if shutil.which(os.environ.get("CC", "gcc")) else "a C compiler (gcc)"
    if missing is None:
        assert go is not None
        return [go]
    reason = f"{missing} is not here, which the Go client's tests need"
    if os.environ.get("CI") == "true":  # there, a test that silently does not run is a defect
        pytest.fail(reason)
    pytest.skip(reason)


def go_environment(**variables: str | Path) -> dict[str, str]:
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    assert libraries, "the onnxruntime package has no shared library"
    own = {"ONNXRUNTIME_LIBRARY": str(libraries[-1]), "CGO_ENABLED": "1", "GOFLAGS": "-buildvcs=false -mod=readonly", "GOWORK": "off"}
    return os.environ | own | {name: str(value) for name, value in variables.items()}


def snapshot_of(folder: Path, unmeasured: str | None = None, rows: int = ROWS) -> Path:
    """Return a sealed segment: `rows` rows of each of LINKS links, one a minute; noisy waves with holes, and one column without values."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(8)
    step = np.repeat(np.arange(rows), LINKS)
    numeric = np.full((len(step), len(NUMERIC)), np.nan, np.float32)
    for name, level in LEVELS.items():
        numeric[:, NUMERIC.index(name)] = level * (1 + 0.2 * np.sin(2 * np.pi * step / 60) + 0.05 * random.normal(size=len(step)))
    numeric[random.random(numeric.shape) < 0.05] = np.nan
    if unmeasured is not None:
        numeric[:, NUMERIC.index(unmeasured)] = np.nan
    texts: list[list[str | None]] = [[str(values[at % len(values)]) for at in (step // 40).tolist()] for values in TEXTS.values()]
    interner = Interner()
    codes = interner.codes(texts)
    writer = BufferWriter(folder, Partition("telemetry", 0))
    offsets = np.arange(len(step))
    writer.append(BufferRows(offsets, START_S + 60.0 * step, numeric, codes, (offsets % LINKS).astype(np.int32)))
    taken = writer.detach([f"link-{at}" for at in range(LINKS)], interner.values)
    assert taken is not None
    writer.seal(taken)
    return folder


def publish(registry: Registry, snapshot: Path, version: str, architecture: Architecture, seed: int = 0, parent: str | None = None) -> Path:
    """Train a version with the training job in two steps, and publish it as the daemon does; return its folder."""
    spec = JobSpec(
        job_id=version, version=version, created_at_s=START_S, reason="test", snapshot=str(snapshot),
        candidate=str(registry.candidate_folder(version)), parent=None if parent is None else str(registry.folder(parent)),
        settings=msgspec.structs.replace(SETTINGS, seed=seed),
        gate=GatePolicy(min_windows=20), architecture=architecture,
    )  # fmt: skip
    registry.root.mkdir(parents=True, exist_ok=True)
    result = Job(spec, lambda _: None).run()
    assert result.status in ("candidate", "refused"), result
    return registry.publish(Path(spec.candidate), version)


def build(folder: Path) -> Path:
    """Build dwcp-predict into the folder and return its path."""
    binary = folder / "dwcp-predict"
    command = [*go_command(), "build", "-o", str(binary), "./cmd/dwcp-predict"]
    done = subprocess.run(command, cwd=CLIENT, env=go_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return binary


def records_and_window(rows: int = 45) -> tuple[list[dict[str, Any]], RawWindows]:
    """Return the records of one link, one a minute, and the window that the last forecast is made from."""
    windows = windows_like_the_snapshot(1, rows)
    records = []
    random = np.random.default_rng(3)
    values = {name: level * (1 + 0.1 * random.normal(size=rows)) for name, level in LEVELS.items()}
    for row in range(rows):
        record: dict[str, Any] = {name: float(np.float32(max(0.0, column[row]))) for name, column in values.items()}
        records.append(record | {"timestamp": START_S + 60.0 * row, "node_id": "n", "peer_id": "p"})
    for row in range(RING_ROWS):
        for name in LEVELS:
            windows.telemetry[0, row, NUMERIC.index(name)] = records[rows - RING_ROWS + row][name]
    windows.time_s[0] = [record["timestamp"] for record in records[-WINDOW_ROWS:]]
    windows.telemetry[0, :, NUMERIC.index("time_of_day") :] = np.nan
    windows.categories[0] = ""
    return records, windows


def windows_like_the_snapshot(count: int, seed: int = 0) -> RawWindows:
    """Windows around the levels that versions are trained on."""
    random = np.random.default_rng(seed)
    telemetry = np.full((count, RING_ROWS, len(NUMERIC)), np.nan, np.float32)
    for name, level in LEVELS.items():
        telemetry[:, :, NUMERIC.index(name)] = level * (1 + 0.1 * random.normal(size=(count, RING_ROWS)))
    time_s = START_S + 60.0 * np.arange(WINDOW_ROWS) + np.zeros((count, 1))
    return RawWindows(time_s, telemetry, np.full((count, WINDOW_ROWS, len(CATEGORIES)), "", object))
