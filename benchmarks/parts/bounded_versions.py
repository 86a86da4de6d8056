"""Four versions for bounded.py, made by the training job.

They are of a fleet, of a stream that measures only some targets, fine-tuned, and of a fleet with absurd numbers.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.offline import RawTable
from features.telemetry import TARGETS, Partition
from harness import answer, job_of, say
from model.buffer.rows import BufferRows, BufferWriter
from model.job import Job
from model.spec.architecture import Architecture, architecture_of
from model.spec.job import JobSpec
from model.spec.settings import TrainingSettings
from model.spec.verdict import GatePolicy
from parts.stream import write_file
from streams.files.recording import read_recording
from streams.simulator.fleet import FleetSpec, Region

FLEET, PARTIAL, TUNED, ABSURD = "v20260101_000000", "v20260102_000000", "v20260103_000000", "v20260104_000000"
SEED: Final = {FLEET: 1, PARTIAL: 2, TUNED: 1, ABSURD: 3}
UNMEASURED, STUCK = "rtt_ms", "jitter_ms"
"""Targets of the second version's stream: one never measured, one 0 in every row."""
ROWS: Final = 240
LINKS: Final = 16
UNDISTURBED: Final = "undisturbed.npz"
SETTINGS: Final = TrainingSettings(epochs=1, epoch_windows_max=512, replay_windows=256, patience=1, nice=0)


def fleet_table(rows: int, seed: int, scale: float = 1.0) -> RawTable:
    """Return the rows of a simulated fleet with holes, gaps and late records. scale: of its throughput."""
    spec = FleetSpec(seed=seed, regions=(Region("eu", 0.0), Region("us", -5.0)), links_per_region=LINKS // 2)
    with tempfile.TemporaryDirectory(prefix="dwcp-bounded-") as name:
        path = Path(name) / "fleet.ndjson"
        write_file(spec, rows, path)
        table = read_recording(path).table
    table.numeric[:, 0] *= scale
    return table


def partial(table: RawTable) -> RawTable:
    """Return the rows of a stream that does not measure the RTT, and whose jitter is always 0."""
    numeric = table.numeric.copy()
    numeric[:, TARGETS.index(UNMEASURED)], numeric[:, TARGETS.index(STUCK)] = np.nan, 0.0
    return replace(table, numeric=numeric)


def absurd(table: RawTable) -> RawTable:
    """Return the rows with the largest accepted numbers in one row, and a counter as throughput in another."""
    numeric = table.numeric.copy()
    numeric[len(table) // 3, [at for at, name in enumerate(TARGETS) if name != "packet_loss"]] = np.finfo(np.float32).max
    numeric[len(table) // 2, 0] = 1e12
    return replace(table, numeric=numeric)


def snapshot(table: RawTable, folder: Path) -> Path:
    """Write the table as a sealed segment."""
    folder.mkdir(parents=True)
    writer, offsets = BufferWriter(folder, Partition("telemetry", 0)), np.arange(len(table))
    writer.append(BufferRows(offsets, table.time_s, table.numeric, table.codes.astype(np.int16), table.link))
    taken = writer.detach(list(table.links), [list(values) for values in table.values])
    assert taken is not None
    writer.seal(taken)
    return folder


def train(root: Path, version: str, rows: Path, parent: str | None, architecture: Architecture) -> None:
    """Train one version in root/version. The job leaves it there even if its gate refuses it."""
    spec = JobSpec(
        job_id=version, version=version, created_at_s=0.0, reason="benchmark", snapshot=str(rows), candidate=str(root / version),
        parent=None if parent is None else str(root / parent), settings=SETTINGS, gate=GatePolicy(min_windows=20),
        architecture=architecture,
    )  # fmt: skip
    result = Job(spec, lambda _: None).run()
    if result.status not in ("candidate", "refused"):
        raise RuntimeError(f"{version}: {result.status}, {result.error}")
    say(f"{version}: trained on {result.rows} rows, {result.status}")


def build(root: Path, architecture: Architecture, rows: int) -> list[str]:
    """Return the names of the four versions. Those that exist in `root` are kept."""
    first = fleet_table(rows, SEED[FLEET])
    jobs = (
        (FLEET, first, None),
        (PARTIAL, partial(fleet_table(rows, SEED[PARTIAL])), None),
        (TUNED, fleet_table(2 * rows, SEED[TUNED], scale=1.5), FLEET),
        (ABSURD, absurd(fleet_table(rows, SEED[ABSURD])), None),
    )
    for version, table, parent in jobs:
        if not (root / version / "MANIFEST.json").exists():
            with tempfile.TemporaryDirectory(prefix="dwcp-bounded-") as name:
                train(root, version, snapshot(table, Path(name) / "snapshot"), parent, architecture)
    return [version for version, _, _ in jobs]


def undisturbed(root: Path, version: str, rows: int) -> dict[str, Any]:
    """Return by target the mean absolute error on undisturbed rows after the training's, with and without the bounds."""
    from features.offline import compute
    from model.training.graph.core import load_weights
    from model.training.network.assembly import INPUT_NAME, renewed
    from model.training.network.bound_layers import unbounded
    from model.version.metadata import Metadata
    from model.windows.index import build_windows, gather

    metadata, bounded = Metadata.read(root / version), load_weights(root / version)
    table = fleet_table(rows, SEED[version], scale=1.5 if version == TUNED else 1.0)
    if version == PARTIAL:
        table = partial(table)
    features = compute(table, metadata.vocabulary)
    index = build_windows(features, table)
    index = index.select(table.time_s[index.target_row] > (metadata.trained_until_s or 0.0))
    free = renewed(bounded, architecture_of(metadata.extra["architecture"]))
    free.get_layer("input_bounds").set_weights([np.array([[-3e38], [3e38]], np.float32).repeat(44, axis=1)])
    windows = metadata.inputs.transform(gather(features.features, index.end))
    actual, errors = table.numeric[index.target_row, : len(TARGETS)], {}
    for name, model in (("bounded", bounded), ("unbounded", unbounded(free))):
        assert model.input.name == INPUT_NAME
        made = metadata.outputs.inverse(model.predict(windows, batch_size=256, verbose=0))
        errors[name] = [float(np.nanmean(np.abs(made - actual)[:, at])) for at in np.flatnonzero(metadata.measured)]
    return {"windows": len(index), **errors}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def run(job: dict[str, Any]) -> dict[str, Any]:
    root = Path(job["root"])
    architecture = architecture_of(job.get("architecture", {}))
    versions = build(root, architecture, job["rows"])
    return {"versions": versions, "undisturbed": {version: undisturbed(root, version, 3 * job["rows"]) for version in versions}}


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
