"""The contract of an encoder, over all of ENCODERS: it trains, is exported, published, quantised, continued, and read by Python and Go."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from msgspec.structs import replace

from features.definition import FEATURES
from model.registry.versions import Registry
from model.spec.architecture import ARCHITECTURES, Architecture, Lstm, Mlp, Relative, architecture_of
from model.spec.job import JobSpec, plain
from model.spec.settings import TrainingSettings
from model.training.dataset import TrainingData
from model.training.fit.loop import compile_model, next_row
from model.training.graph.core import load_weights
from model.training.network.assembly import build, renewed, silence_features
from model.training.network.bound_layers import unbounded
from model.training.network.encoders import ENCODERS, encoder_of, training_twin
from model.version.contract import CONTRACTS
from model.version.manifest import verify
from model.version.metadata import Metadata
from model.version.predictor import Predictor
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import features_of
from model.windows.index import WindowIndex
from testkit import go_client

FIRST, SECOND = "v20260101_000000", "v20260102_000000"
SMALL: dict[str, Architecture] = ARCHITECTURES | {
    "relative": Relative(or_linear=False),
    "lstm": Lstm(lstm_units=(8, 6), lstm_dropout=(0.2, 0.2), dense_units=(8,), dense_dropout=(0.2,), head_units=8),
    "mlp": Mlp(mlp_units=(12, 8), dense_units=(8,), head_units=8),
}


def test_each_encoder_has_its_architecture() -> None:
    """Whatever can be chosen is built, and the other way round."""
    assert ENCODERS.keys() == ARCHITECTURES.keys() == SMALL.keys()
    for name, architecture in ARCHITECTURES.items():
        assert architecture.encoder == name
        assert architecture_of(plain(architecture)) == architecture


@pytest.mark.parametrize("name", ENCODERS)
def test_silenced_features_are_silent(name: str) -> None:
    """A feature that was never seen vary moves no forecast, in whatever layers the encoder reads it; the others do."""
    keras.utils.set_random_seed(1)
    model = build(SMALL[name])
    rng = np.random.default_rng(1)
    model.set_weights([weight + 0.1 * rng.normal(size=weight.shape) for weight in model.get_weights()])
    network = unbounded(model)
    columns = np.arange(len(FEATURES)) % 5 == 0
    windows = rng.normal(size=(4, 30, len(FEATURES))).astype(np.float32)
    moved = windows + 3.0 * columns.astype(np.float32)
    assert np.abs(network.predict_on_batch(moved) - network.predict_on_batch(windows)).max() > 1e-3
    silence_features(model, columns)
    columns[:1] = False  # the averages of a target read its column by other names: silenced as well
    assert np.abs(network.predict_on_batch(moved) - network.predict_on_batch(windows)).max() < 1e-5


def test_a_reader_that_is_missing_is_an_error() -> None:
    """An encoder that names no layer, or another one, would leave random weights on unseen features."""
    model = build(replace(SMALL["lstm"], linear_path=False))
    for layer in model.layers:
        if layer.name == "lstm_1":
            layer.name = "other"
    with pytest.raises(ValueError, match=r"lacks a layer that reads features \(lstm_1\)"):
        silence_features(model, np.zeros(len(FEATURES), np.bool_))
    with pytest.raises(ValueError, match="none of the encoders " + ", ".join(ENCODERS)):
        encoder_of(keras.Model(model.input, model.output, name="unknown"))


@pytest.mark.parametrize("name", ENCODERS)
def test_the_twin_has_the_same_weights_and_forecasts(name: str) -> None:
    """The network that is trained in its place forecasts the same, and its weights fit back."""
    keras.utils.set_random_seed(2)
    network = unbounded(build(SMALL[name]))
    twin = training_twin(network)
    windows = np.random.default_rng(2).normal(size=(3, 30, len(FEATURES))).astype(np.float32)
    np.testing.assert_allclose(twin.predict_on_batch(windows), network.predict_on_batch(windows), atol=1e-5)
    network.set_weights(twin.get_weights())
    if twin.trainable_weights:
        compile_model(twin, next_row(no_data(), TrainingSettings(), 1e-3), 2)
        before = [np.array(weight) for weight in twin.trainable_weights]
        for _ in range(2):
            twin.train_on_batch(windows, np.ones((3, 4), np.float32))
        assert any((weight != old).any() for weight, old in zip(map(np.array, twin.trainable_weights), before, strict=True))


def no_data() -> TrainingData:
    none = WindowIndex(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return TrainingData(np.zeros((0, 44), np.float32), np.zeros((0, 4), np.float32), none, none)


def spec_of(folder: str, architecture: Architecture) -> dict[str, object]:
    return {
        "job_id": FIRST, "version": FIRST, "created_at_s": 0.0, "reason": "test", "snapshot": folder, "candidate": folder,
        "architecture": architecture,
    }  # fmt: skip


class Published:
    """For each encoder a models folder with a first version and one that was fine-tuned from it, made when a test asks for it.

    An encoder that cannot be published takes its own tests down, and those of no other.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._registries = folder, dict[str, Registry]()

    def __getitem__(self, name: str) -> Registry:
        if name not in self._registries:
            registry = Registry(self._folder / f"models_{name}")
            snapshot = go_client.snapshot_of(self._folder / f"first_{name}")
            longer = go_client.snapshot_of(self._folder / f"longer_{name}", rows=600)
            go_client.publish(registry, snapshot, FIRST, SMALL[name])
            go_client.publish(registry, longer, SECOND, SMALL[name], parent=FIRST)
            self._registries[name] = registry
        return self._registries[name]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(tmp_path_factory.mktemp("encoders"))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_version_of_each_encoder_is_whole(published: Published, name: str) -> None:
    """It verifies, names its encoder and the operators that its graphs hold, and its successor began with its weights."""
    for version, started_from in ((FIRST, "linear"), (SECOND, FIRST)):
        folder = published[name].folder(version)
        assert verify(folder) == []
        metadata = Metadata.read(folder)
        assert (metadata.encoder, metadata.extra["started_from"]) == (name, started_from)
        assert metadata.graphs.keys() == CONTRACTS.keys()
        assert all((folder / graph.file).exists() for graph in metadata.graphs.values())
        assert architecture_of(metadata.extra["architecture"]) == SMALL[name]
        renewed(load_weights(folder), SMALL[name])
        model = load_weights(folder)
        wanted = {kind: ENCODERS[name].operators(model, quantised=kind == "int8") for kind in CONTRACTS}
        assert {kind: dict(graph.operators) for kind, graph in metadata.graphs.items()} == wanted
        assert all(operators and min(operators.values()) >= 1 for operators in wanted.values()), "it would prove nothing"


@pytest.mark.parametrize("name", ENCODERS)
def test_its_graphs_forecast_the_same(published: Published, name: str) -> None:
    """Core and raw graph agree on the same telemetry, and the quantised one is near."""
    folder = published[name].folder(SECOND)
    predictor, windows = Predictor.load(folder), go_client.windows_like_the_snapshot(48)
    wanted = predictor.predict(features_of(windows, predictor.vocabulary))
    np.testing.assert_allclose(RawPredictor.load(folder).predict_windows(windows), wanted, rtol=1e-3, atol=1e-3)
    apart = np.abs(RawPredictor.load(folder, int8=True).predict_windows(windows) - wanted) / predictor.metadata.outputs.scale
    assert apart.mean() < 0.1


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("graph", ["raw", "int8"])
def test_go_reads_it(published: Published, name: str, graph: str, dwcp_predict: Path) -> None:
    """The Go client verifies the version and forecasts what Python does."""
    records, windows = go_client.records_and_window()
    wanted = RawPredictor.load(published[name].folder(SECOND), int8=graph == "int8").predict_windows(windows)[0]
    done = subprocess.run(
        [dwcp_predict, "-models", published[name].root, "-graph", graph], input="".join(json.dumps(record) + "\n" for record in records),
        env=os.environ | go_client.go_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["version"] == SECOND
    found = [line[target] for target in ("throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms")]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_another_encoder_starts_as_a_first_version(published: Published, tmp_path: Path) -> None:
    """A parent of another architecture lends no weights, and is judged against."""
    registry = published["mlp"]
    longer = go_client.snapshot_of(tmp_path / "snapshot", rows=700)
    folder = go_client.publish(registry, longer, "v20260103_000000", SMALL["linear"], parent=SECOND)
    metadata = Metadata.read(folder)
    assert (metadata.encoder, metadata.extra["started_from"]) == ("linear", "linear")
    assert registry.current() == "v20260103_000000"


def test_jobs_of_earlier_releases_mean_an_lstm(tmp_path: Path) -> None:
    """Their architecture has no tag; an unknown encoder or size is named."""
    spec = JobSpec(**spec_of(str(tmp_path), SMALL["lstm"]))
    document = json.loads(spec.to_json())
    assert document["architecture"].pop("encoder") == "lstm"
    assert JobSpec.from_json(json.dumps(document).encode()) == spec
    for change, problem in (({"encoder": "no-such"}, "'no-such'"), ({"lstm_unit": [1]}, "lstm_unit"), ({"encoder": "mlp"}, "lstm_")):
        with pytest.raises(ValueError, match=problem):
            JobSpec.from_json(json.dumps({**document, "architecture": document["architecture"] | change}).encode())
