"""A models folder that a full disk or a person has damaged costs a training or an announcement, and never the daemon."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.clock import StreamClock, WallClock
from daemon.events.announcer import Announcer
from daemon.events.sinks import Sinks
from daemon.ingest.entries import ModelLive
from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.operator.observer import Observer
from daemon.state.snapshot import Written
from daemon.training.child import Trainer
from daemon.training.cycle import Training
from daemon.training.publisher import Publisher
from daemon.training.schedule import WallSchedule
from daemon.training.settings import TrainingConfig
from daemon.training.triggers import TrainingPolicy
from daemon.wiring import build
from features.telemetry import COLUMNS
from model.registry.versions import Registry
from model.spec.job import JobResult
from model.spec.settings import TrainingSettings
from model.spec.verdict import GatePolicy, Verdict
from model.version.manifest import read_manifest, write_manifest
from model.version.metadata import core_name, metadata_name
from streams.files.sink import NdjsonSink
from streams.files.source import FileSource
from testkit import rig, scripted
from testkit.versions import make_version, publish
from testkit.waiting import wait_for

LIVE = "v20260101_000000"
NEW = "v20260102_000000"
NEW_S = 1_767_312_000.0
DAMAGES: dict[str, Callable[[Path], object]] = {
    "is removed": lambda models: shutil.rmtree(models / LIVE),
    "has no manifest": lambda models: (models / LIVE / "MANIFEST.json").unlink(),
    "has a damaged manifest": lambda models: (models / LIVE / "MANIFEST.json").write_text("{"),
    "has a damaged graph": lambda models: (models / LIVE / core_name(LIVE)).write_bytes(b"garbage"),
    "is not named by CURRENT": lambda models: (models / "CURRENT").write_bytes(b"\x00garbage"),
    "cannot be read from CURRENT": lambda models: ((models / "CURRENT").unlink(), (models / "CURRENT").mkdir()),
}


class Rig:
    """A Training over real parts and a live version, with a child that gives a candidate that was prepared."""

    def __init__(self, folder: Path, publish: Callable[..., None]) -> None:
        publish(folder, LIVE)
        self.folder, self.models = folder, folder / "models"
        self.reported: list[tuple[str, dict[str, Any]]] = []
        observer = Observer(lambda event, fields: self.reported.append((event, fields)))
        models = Models(Registry(self.models), Journal(folder / "journal"), observer, 0.0)
        models.follow(now=True)
        config = TrainingConfig(
            policy=TrainingPolicy(10, 10, 10, 0.0), settings=TrainingSettings(), gate=GatePolicy(), gap_multiple=5.0, keep_versions=1
        )
        publisher = Publisher(models.registry, observer, time.monotonic)
        self.training = Training(config, Trainer(folder / "work", 300.0), publisher, models, WallSchedule("", None), observer)
        sinks = Sinks(*(NdjsonSink(folder / f"{name}.ndjson", 1 << 20, lambda *_: None) for name in ("alerts", "models", "dead_letters")))
        self.announcer = Announcer(sinks, models.registry, observer, WallClock(), "test")

    def names(self) -> list[str]:
        return [name for name, _ in self.reported if name not in ("model_live", "model_unusable")]

    def train(self, before_end: Callable[[], object] = lambda: None) -> None:
        """One training on a drift, from due to published or refused."""
        self.training.memory.rows, self.training.memory.drift_at_rows = 100, 0
        self.training.decide(NEW_S)
        self.training.start(Written(1, {}, (), 100, {}, 0.0), NEW_S)
        before_end()
        while self.training.busy:
            self.announcer.trainings(self.training.follow(NEW_S), NEW_S)
            time.sleep(0.02)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """make(status="candidate") gives a Rig whose next training ends so."""
    rigs: list[Rig] = []

    def build_rig(status: Any, publish: Callable[..., None] = publish) -> Rig:
        prepared = make_version(tmp_path / "prepared", NEW, seed=1, parent=LIVE)
        candidate = tmp_path / f"models/.candidate-{NEW}"
        result = JobResult(NEW, NEW, status, str(candidate), Verdict(status == "candidate", ("a reason",), 100))
        result.write(tmp_path)
        child = tmp_path / "python"
        child.write_text(f'#!/bin/sh\ncp -r "{prepared}/." "{candidate}" && cp "{tmp_path}/result.json" "$(dirname "$5")"\n')
        child.chmod(0o755)
        monkeypatch.setattr("daemon.training.command.sys.executable", str(child))
        rigs.append(Rig(tmp_path, publish))
        return rigs[-1]

    yield build_rig
    for made in rigs:
        made.training.close()


@pytest.mark.parametrize("status", ["candidate", "refused"])
def test_nothing_is_wrong(make: Any, status: str) -> None:
    """The run without a disturbance: a candidate is published, announced and the old one pruned; a refused one is kept."""
    rig = make(status)
    rig.train()
    verdict = ["model_published"] if status == "candidate" else ["model_refused"]
    assert rig.names() == ["training_due", "training_started", "training_finished", *verdict]
    assert Registry(rig.models).versions() == ([NEW] if status == "candidate" else [LIVE])
    assert Registry(rig.models).refused() == ([] if status == "candidate" else [NEW])
    assert rig.announcer.memory.announced == (NEW if status == "candidate" else None)


@pytest.mark.parametrize("change", [{"feature_version": 2}, {"features": ["throughput_mbps"]}])
def test_a_live_version_of_other_features_means_a_first_version(make: Any, change: dict[str, Any]) -> None:
    """It forecasts nothing, its successor is trained without it, as soon as a first version would be, and the log says so."""

    def other(folder: Path, version: str, seed: int = 0) -> None:
        registry = Registry(folder / "models")
        registry.root.mkdir()
        made = make_version(registry.candidate_folder(version), version, seed=seed)
        registry.publish(made, version)
        path = registry.folder(version) / metadata_name(version)
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        write_manifest(path.parent, version=version, parent=None, reason="test", created_at_s=1.0, verdict=None, libraries={})

    rig = make("candidate", publish=other)
    models = rig.training._models
    assert (models.known, models.live, models.predictor(LIVE)) == (LIVE, None, None)
    rig.training.memory.rows = 100  # no drift, no schedule: enough for a first version
    rig.training.decide(NEW_S)
    rig.training.start(Written(1, {}, (), 100, {}, 0.0), NEW_S)
    while rig.training.busy:
        rig.training.follow(NEW_S)
        time.sleep(0.02)
    assert rig.names() == ["training_due", "features_changed", "training_started", "training_finished", "model_published"]
    started = next(fields for name, fields in rig.reported if name == "training_started")
    assert (started["reason"], started["parent"]) == ("first", None)
    models.follow(now=True)
    assert models.live is not None
    assert models.live.version == NEW


def test_the_version_to_train_from_is_gone(make: Any) -> None:
    """A failed training with the way out, and after the cool-down another try."""
    rig = make("candidate")
    shutil.rmtree(rig.models / LIVE)
    rig.train()
    assert rig.names() == ["training_due", "training_failed"]
    assert f"there is no version '{LIVE}'" in rig.reported[-1][1]["problem"]
    rig.training.decide(NEW_S)
    assert rig.training.decision.start


def test_the_models_folder_cannot_be_read(make: Any) -> None:
    """A name for the new version cannot be found: a failed training."""
    rig = make("candidate")
    shutil.rmtree(rig.models)
    rig.models.write_text("a file where the folder was")
    rig.train()
    assert rig.names() == ["training_due", "training_failed"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("status", ["candidate", "refused"])
def test_the_live_version_is_damaged_during_a_training(make: Any, status: str, damage: str) -> None:
    """The candidate is published or refused all the same; what could not be done is reported."""
    rig = make(status)
    rig.train(before_end=lambda: DAMAGES[damage](rig.models))
    names = rig.names()
    assert names[:3] == ["training_due", "training_started", "training_finished"]
    assert names[3] in ("model_published", "model_refused", "publication_failed")
    assert not rig.training.busy
    assert not list(rig.models.glob(".candidate-*")), "no candidate is left behind"


def test_a_disk_that_is_full_when_a_candidate_is_refused(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is reported; that it is not kept, too."""
    rig = make("refused")
    monkeypatch.setattr("model.registry.versions.write_document", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    rig.train()
    assert rig.names()[-2:] == ["model_refused", "publication_failed"]
    assert "No space left" in rig.reported[-1][1]["problem"]
    assert not list(rig.models.glob(".candidate-*"))


@pytest.mark.parametrize("step", ["publish", "recover"])
def test_an_error_of_the_models_folder_that_nobody_has_thought_of(make: Any, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """It is reported with its kind, and costs one publication or cleaning."""
    rig = make("candidate")
    monkeypatch.setattr(f"model.registry.versions.Registry.{step}", lambda *_: (_ for _ in ()).throw(RecursionError("too deep")))
    rig.training.recover()
    rig.train()
    wait_for(lambda: not rig.training.hangs, "the end of the cleaning")
    rig.training.follow(NEW_S)
    failed = [
        fields["problem"] for name, fields in rig.reported if name == ("publication_failed" if step == "publish" else "cleaning_failed")
    ]
    assert len(failed) == 1
    assert "RecursionError: too deep" in failed[0]
    assert not list(rig.models.glob(".candidate-*"))


def test_an_old_version_that_cannot_be_deleted(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one is live all the same."""
    rig = make("candidate")
    monkeypatch.setattr("model.registry.versions.remove_version", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    rig.train()
    assert rig.names()[-2:] == ["model_published", "cleaning_failed"]
    assert rig.announcer.memory.announced == NEW


def test_a_published_version_that_cannot_be_announced(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is reported, and the version is announced at the next start."""

    monkeypatch.setattr("daemon.events.announcer.read_manifest", lambda folder: read_manifest(folder.with_name(f"{folder.name[:-1]}9")))
    rig = make("candidate")
    rig.train()
    assert rig.names()[-2:] == ["model_published", "publication_failed"]
    assert rig.announcer.memory.announced is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_daemon_starts_over_a_damaged_live_version(tmp_path: Path, damage: str) -> None:
    """It runs without state, as on a new machine: it reports the problem, and announces no version that cannot be used."""
    publish(tmp_path, LIVE)
    DAMAGES[damage](tmp_path / "models")
    telemetry = tmp_path / "telemetry.csv"
    row = {"timestamp": 1_767_571_200, "node_id": "a", "peer_id": "b", "rtt_ms": 20.0}
    telemetry.write_text(",".join(COLUMNS) + "\n" + ",".join(str(row.get(column, "")) for column in COLUMNS) + "\n")
    reported: list[str] = []
    daemon = build(rig.config(tmp_path), FileSource(telemetry), StreamClock(), Observer(lambda event, _fields: reported.append(event)))
    daemon.run()
    assert reported[-1] == "daemon_stopped"
    assert {"model_unusable", "publication_failed"} & set(reported)
    announced = [json.loads(line) for line in (tmp_path / "state/events/models.ndjson").read_text().splitlines()]
    assert announced == []


@pytest.mark.parametrize("file", ["bandwidth_lstm_{}.onnx", "model_metadata_{}.json", "MANIFEST.json"])
def test_an_altered_version_is_never_forecast_from(tmp_path: Path, file: str) -> None:
    """Without a verify key too: what is loaded is what the manifest names, and a manifest that cannot be read proves nothing."""
    version = "v20260101_000000"
    publish(tmp_path, version)
    reported: list[tuple[str, dict[str, Any]]] = []
    observer = Observer(lambda event, fields: reported.append((event, fields)))
    models = Models(Registry(tmp_path / "models"), Journal(tmp_path / "journal"), observer, 0.0)
    assert models.predictor(version) is not None
    path = tmp_path / "models" / version / file.format(version)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    again = Models(Registry(tmp_path / "models"), Journal(tmp_path / "other"), Observer(observer._listen), 0.0)
    assert again.predictor(version) is None
    assert [event for event, _ in reported] == ["model_unusable"]


class Reported(list[tuple[str, dict[str, Any]]]):
    """Events, and an Observer that they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.observer = Observer(lambda event, fields: self.append((event, fields)))

    def unusable(self) -> list[str]:
        return [fields["problem"] for event, fields in self if event == "model_unusable"]


def models_over(folder: Path, reported: Reported) -> Models:
    return Models(Registry(folder / "models"), Journal(folder / "journal"), reported.observer, 0.0)


def test_a_live_version_that_was_not_there_is_loaded_once_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is mounted late: the problem is shown while it lasts, logged once, and the folder tried again, but not at every record."""
    publish(tmp_path, LIVE)
    Journal(tmp_path / "journal").append(ModelLive(1, LIVE, {}))
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    reported = Reported()
    models = models_over(tmp_path, reported)
    monkeypatch.setattr("daemon.ingest.live_model.RETRY_S", 0.0)
    for _ in range(3):
        assert models.follow(now=True) is None
        assert models.predictor(LIVE) is None
    assert models.problem is not None
    assert f"live version {LIVE} cannot be loaded: there is no version" in models.problem
    assert "see that models.directory is there" in models.problem
    assert len(reported.unusable()) == 1
    (tmp_path / "elsewhere").rename(tmp_path / "models")
    monkeypatch.setattr("daemon.ingest.live_model.RETRY_S", 1e9)
    models.follow(now=True)
    assert models.predictor(LIVE) is None
    monkeypatch.setattr("daemon.ingest.live_model.RETRY_S", 0.0)
    models.follow(now=True)
    assert models.problem is None
    assert models.predictor(LIVE) is not None
    assert len(reported.unusable()) == 1


def test_a_version_of_current_that_was_unusable_goes_live_once_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that failed once is not a verdict on the version, and the one before stays meanwhile. Another problem is reported anew."""
    publish(tmp_path, LIVE)
    reported = Reported()
    models = models_over(tmp_path, reported)
    assert models.follow(now=True) is not None
    publish(tmp_path, NEW, seed=1)
    monkeypatch.setattr("daemon.ingest.live_model.RETRY_S", 0.0)
    for problem in ("Input/output error", "Input/output error", "Permission denied"):
        with monkeypatch.context() as patched:
            patched.setattr(
                "daemon.ingest.live_model.Predictor.load", lambda *_, problem=problem, **__: (_ for _ in ()).throw(OSError(5, problem))
            )
            assert models.follow(now=True) is None
    assert reported.unusable() == ["[Errno 5] Input/output error", "[Errno 5] Permission denied"]
    assert models.live is not None
    assert (models.live.version, models.problem) == (LIVE, None)
    live = models.follow(now=True)
    assert live is not None
    assert (live.version, live.epoch) == (NEW, 2)


def test_a_daemon_without_its_live_version_is_not_ready_until_it_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records are taken meanwhile, no forecast from before meets a later row, and forecasts go on by themselves."""
    publish(tmp_path, rig.FIRST)
    first = {partition: records[:200] for partition, records in scripted.stream().items()}
    rig.daemon_over(scripted.ScriptedSource(seed=1, records=first), rig.config(tmp_path)).run()
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    monkeypatch.setattr("daemon.ingest.live_model.RETRY_S", 0.0)
    seen: list[Any] = []

    def look(source: Any) -> None:
        ready = made.parts.readiness.health.not_ready()
        if source.polls == 20:
            seen.append((ready, made.parts.observer.registry.get_sample_value("dwcp_forecasts_total")))
            seen.append([np.isnan(pipeline.monitored._forecast).all() for pipeline in made.parts.group if pipeline.rows])
            (tmp_path / "elsewhere").rename(tmp_path / "models")
        if source.polls == 22:
            seen.append(ready)

    made = rig.daemon_over(scripted.ScriptedSource(seed=2, on_poll=look), rig.config(tmp_path))
    made.run()
    (without, forecasts), forgotten, back = seen
    assert f"live version {rig.FIRST} cannot be loaded" in " ".join(without)
    assert (forecasts, forgotten, back) == (0, [True] * len(first), [])
    assert made.parts.observer.registry.get_sample_value("dwcp_forecasts_total") > 100
    assert sum(pipeline.rows for pipeline in made.parts.group) > 3 * sum(map(len, first.values()))
