"""A new version beside the one that it has replaced, on the daemon's own chain: a bad one is withdrawn, and the ledger says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from daemon.clock import StreamClock
from daemon.commands import replay
from daemon.config.load import Config
from daemon.training.ledger import entries, joined
from model.registry.versions import Registry
from model.version.manifest import write_manifest
from streams.files.source import FileSource
from streams.simulator.dataset import write_dataset
from streams.simulator.fleet import FleetSpec, Region

LATER = "v20990101_000000"
LINKS = 4
QUICK = Config(training={"architecture": "linear", "epochs": 1})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recording of 24 hours, and a folder of a replay of its first 11, with a version from its first 10."""
    folder = tmp_path_factory.mktemp("probation")
    spec = FleetSpec(seed=5, regions=(Region("eu", 0.0),), links_per_region=LINKS)
    path = write_dataset(spec, folder, "csv", 24 * 3600.0)
    _replayed(path, folder / "kept", 11 * 60 * LINKS)
    assert len(Registry(folder / "kept/models").versions()) == 1
    return path, folder / "kept"


def _replayed(path: Path, folder: Path, stop_at: float = 1e9, trains: bool = True) -> dict[str, Any]:
    config = replay.adapted(QUICK, folder, 24 * 60 * LINKS, train=trains)
    source = FileSource(path, None, max_records=200)
    return replay.run_replay(source, StreamClock(), config, True, stop_at=stop_at)


def _biased(models: Path, deviations: float) -> None:
    """Make a later version live whose forecasts are those of the live one, off by so many standard deviations."""
    registry = Registry(models)
    (before,) = registry.versions()
    shutil.copytree(models / before, models / LATER)
    for file in (models / LATER).glob(f"*{before}*"):
        file.rename(file.with_name(file.name.replace(before, LATER)))
    for file in (models / LATER).glob("*.onnx"):
        graph = onnx.load(str(file))
        (version,) = [entry for entry in graph.metadata_props if entry.key == "version"]
        version.value = LATER
        onnx.save(graph, str(file))
    (path,) = (models / LATER).glob("model_metadata_*.json")
    document = json.loads(path.read_text().replace(before, LATER))
    scalers = document["scaler_params"]
    scalers["y_mean"] = [mean + deviations * scale for mean, scale in zip(scalers["y_mean"], scalers["y_scale"], strict=True)]
    path.write_text(json.dumps(document))
    write_manifest(models / LATER, version=LATER, parent=before, reason="test", created_at_s=1.0, verdict=None, libraries={})
    (models / "CURRENT").write_text(f"{LATER}\n")


@pytest.mark.parametrize(("deviations", "live"), [(1.5, "before"), (0.0, "later")])
def test_a_version_that_is_worse_is_withdrawn(kept: tuple[Path, Path], tmp_path: Path, deviations: float, live: str) -> None:
    """Within 500 rows of its links; one that is as good stays."""
    path, folder = kept
    home = tmp_path / "kept"
    shutil.copytree(folder, home)
    (before,) = Registry(home / "models").versions()
    _biased(home / "models", deviations)
    _replayed(path, home, trains=False)
    assert Registry(home / "models").current() == {"before": before, "later": LATER}[live]
    (proof,) = [one for one in entries(sorted((home / "state").glob("ledger-*.ndjson"))) if one["kind"] == "proof"]
    assert proof["failed"] is (live == "before")
    rtt = next(one for one in proof["brought"] if one["target"] == "rtt_ms")
    assert rtt["outcomes"] <= 500 * LINKS or live == "later"
    assert (rtt["low"] > 0.0) is (live == "before")
    if live == "later":
        assert rtt["mae"] == rtt["mae_before"]


def test_the_ledger_joins_a_training_with_its_proof(kept: tuple[Path, Path]) -> None:
    _, folder = kept
    (path,) = (folder / "state").glob("ledger-*.ndjson")
    (training,) = joined(entries([path]))
    assert (training["reason"], training["status"], training["proof"]) == ("first", "candidate", None)
    assert training["cpu_s"] > 1.0
    assert training["rows"] >= 0.4 * 24 * 60 * LINKS
    torn = folder / "torn.ndjson"
    proof = {"kind": "proof", "version": training["version"], "time_s": training["time_s"] + 1.0, "failed": False}
    torn.write_bytes(path.read_bytes() + json.dumps(proof).encode() + b'\n{"kind": "train\n[]\n\xff\n{"version": 1}')
    (again,) = joined(entries([torn]))
    assert again["proof"]["failed"] is False
