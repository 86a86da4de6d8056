"""Forecasts through ONNX Runtime with a real LSTM graph: units, gaps, bits that do not depend on the batch, and clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.definition import FEATURES
from features.telemetry import Floats
from features.vocabulary import Vocabulary
from model.version.documents import DocumentError
from model.version.metadata import Metadata, core_name, metadata_name
from model.version.possible import possible
from model.version.predictor import CHUNK_WINDOWS, Predictor, PredictorError
from model.windows.scaler import Scaler
from testkit.paths import ROOT
from testkit.versions import core_graph, make_version

VERSION = "v20261123_101500"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_version(tmp_path_factory.mktemp("models") / VERSION, VERSION)


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(folder)


def windows_of(count: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    windows = rng.normal(50, 20, (count, 30, len(FEATURES))).astype(np.float32)
    windows[rng.random(windows.shape) < 0.2] = np.nan
    return windows


def test_a_version_says_what_it_is(predictor: Predictor) -> None:
    """A loaded version has its name, its vocabulary and the time up to which it was trained."""
    assert (predictor.version, predictor.vocabulary, predictor.trained_until_s) == (VERSION, Vocabulary.empty(), 1_795_000_000.0)


def test_forecasts_are_the_graphs_in_engineering_units(folder: Path, predictor: Predictor) -> None:
    """Scaling, gaps as 0 and unscaling around the graph, step by step with NumPy, give the same forecasts, as far as they are possible."""
    windows = windows_of(7)
    document = json.loads((folder / metadata_name(VERSION)).read_text())["scaler_params"]
    scaled = (windows - np.float32(document["X_mean"])) / np.float32(document["X_scale"])
    session = onnxruntime.InferenceSession(folder / core_name(VERSION))
    (outputs,) = session.run(["output"], {"input": np.where(np.isnan(scaled), np.float32(0), scaled)})
    expected = outputs * np.float32(document["y_scale"]) + np.float32(document["y_mean"])
    forecasts = predictor.predict(windows)
    np.testing.assert_allclose(forecasts, possible(expected), rtol=1e-5)
    assert forecasts.dtype.name == "float32"


WINDOWS = windows_of(600)


@pytest.fixture(scope="module")
def together(predictor: Predictor) -> Floats:
    return predictor.predict(WINDOWS)


@given(first=st.integers(0, 599), count=st.sampled_from([1, 1, 2, 3, 5, 8, 31, 64, 255, 256, 257, 513]))
def test_a_forecast_has_the_same_bits_in_every_batch(predictor: Predictor, together: Floats, first: int, count: int) -> None:
    """A window's forecast does not depend on which or how many others it is computed with: a replay in other batches is equal."""
    alone = predictor.predict(WINDOWS[first : first + count])
    assert alone.tobytes() == together[first : first + count].tobytes()


def test_one_window_of_the_published_size_has_the_same_bits_too(tmp_path: Path, folder: Path) -> None:
    """The same holds for layers of the published sizes, 256, 192 and 128 units."""
    (tmp_path / core_name(VERSION)).write_bytes(core_graph(hidden=(256, 192, 128)))
    (tmp_path / metadata_name(VERSION)).write_bytes((folder / metadata_name(VERSION)).read_bytes())
    predictor = Predictor.load(tmp_path)
    windows = windows_of(CHUNK_WINDOWS + 1, seed=1)
    together = predictor.predict(windows)
    for cut in (1, 2, 7, 100, CHUNK_WINDOWS):
        parts = np.concatenate([predictor.predict(windows[:cut]), predictor.predict(windows[cut:])])
        assert parts.tobytes() == together.tobytes()


def test_gaps_and_spikes_give_a_number(predictor: Predictor) -> None:
    """A window that is all gap is forecast from the means; an infinite value counts as a gap and poisons nothing."""
    windows = np.full((3, 30, len(FEATURES)), np.nan, np.float32)
    windows[1, 5, 3], windows[2, 5, 3] = np.inf, 3e38
    forecasts = predictor.predict(windows)
    assert np.isfinite(forecasts).all()
    np.testing.assert_array_equal(forecasts[0], forecasts[1])


def test_no_windows_give_no_forecasts(predictor: Predictor) -> None:
    """An empty batch is fine, another shape is named."""
    assert predictor.predict(np.empty((0, 30, 44), np.float32)).shape == (0, 4)
    with pytest.raises(ValueError, match=r"must be \(B, 30, 44\), not \(30, 44\)"):
        predictor.predict(np.zeros((30, 44), np.float32))


def _without(key: str) -> Callable[[dict[str, object]], object]:
    return lambda document: document.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["features"].__setitem__(7, "queue"), "first different at 7: queue instead of queue_depth"),
        (lambda d: d["features"].append("more"), "45 instead of 44, first different at 44: more instead of nothing"),
        (lambda d: d.update(features=None), "no list"),
        (lambda d: d["targets"].reverse(), "other targets"),
        (lambda d: d.update(window_rows=60), "windows of 60 rows, this release of 30"),
        (lambda d: d.update(schema=2), "newer release"),
        (lambda d: d.update(version="v20200101_000000"), "says version 'v20200101_000000'"),
        (lambda d: d.update(version=7), "says version 7"),
        (lambda d: d.update(trained_until_s="today"), "trained_until_s is not a time"),
        (lambda d: d.update(scaler_params=[]), "scaler_params not an object"),
        (lambda d: d["scaler_params"]["X_scale"].__setitem__(0, 0.0), "44 scales over 0"),
        (lambda d: d["scaler_params"]["X_mean"].pop(), "44 finite means"),
        (lambda d: d["scaler_params"]["y_mean"].__setitem__(0, "x"), "not a number"),
        (lambda d: d["scaler_params"]["y_mean"].__setitem__(0, 1e300), "finite means"),
        (lambda d: d["vocabularies"].pop("az"), "a vocabulary needs exactly the keys"),
        (_without("scaler_params"), "has no 'scaler_params'"),
        (_without("schema"), "has no 'schema'"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(
    tmp_path: Path, folder: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    """Metadata of other features, of a newer release, or with a number missing are refused, and the message says which."""
    document = json.loads((folder / metadata_name(VERSION)).read_text())
    change(document)
    (tmp_path / metadata_name(VERSION)).write_text(json.dumps(document))
    with pytest.raises(PredictorError) as refusal:
        Predictor.load(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert message in str(refusal.value)
    assert "dwcp-learner models" in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be loaded"), (b"\x00\xffnot an ONNX file", "cannot be loaded"), (None, "is missing")],
)
def test_graphs_that_do_not_load_are_refused(tmp_path: Path, folder: Path, content: bytes | None, message: str) -> None:
    """An empty, damaged or missing graph is a PredictorError that names the folder."""
    (tmp_path / metadata_name(VERSION)).write_bytes((folder / metadata_name(VERSION)).read_bytes())
    if content is not None:
        (tmp_path / core_name(VERSION)).write_bytes(content)
    with pytest.raises(PredictorError, match=message):
        Predictor.load(tmp_path)


def test_two_versions_in_one_folder_are_refused(tmp_path: Path, folder: Path) -> None:
    """A folder with no version or two of them is not guessed at."""
    with pytest.raises(PredictorError, match="0 files"):
        Predictor.load(tmp_path)
    for version in (VERSION, "v20261123_101501"):
        (tmp_path / metadata_name(version)).write_bytes((folder / metadata_name(VERSION)).read_bytes())
    with pytest.raises(PredictorError, match="2 files"):
        Predictor.load(tmp_path)


def test_metadata_come_back_bit_for_bit(tmp_path: Path) -> None:
    """Scalers, vocabulary, time and further entries survive the JSON exactly; a NaN never gets into it."""
    rng = np.random.default_rng(0)
    inputs = Scaler.fit(rng.normal(1e10, 1e9, (9, 44)).astype(np.float32))
    outputs = Scaler.fit(np.array([[1, 5, 0.1, np.nan], [2, 5, 0.3, np.nan]], np.float32))
    vocabulary = Vocabulary.empty().extended([["eu-1", "naïve\n"], [], ["x"], [], [], []])
    metadata = Metadata(VERSION, inputs, outputs, vocabulary, None, {"parent": "v20260101_000000"})
    metadata.write(tmp_path)
    again = Metadata.read(tmp_path)
    assert (again.version, again.vocabulary, again.trained_until_s, again.extra) == (VERSION, vocabulary, None, metadata.extra)
    for before, after in ((inputs, again.inputs), (outputs, again.outputs)):
        for part in ("mean", "scale", "fitted"):
            assert getattr(before, part).tobytes() == getattr(after, part).tobytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        Metadata(VERSION, inputs, outputs, vocabulary, float("nan")).write(tmp_path)
    (tmp_path / metadata_name(VERSION)).write_text('{"a": ' * 100_000)
    with pytest.raises(DocumentError, match="not a JSON document"):
        Metadata.read(tmp_path)


def test_the_light_half_loads_no_tensorflow() -> None:
    """Buffer, registry, gate and predictor come into a fresh interpreter without TensorFlow, Keras or tf2onnx."""
    light = (
        "buffer.retention", "buffer.segments", "judge.gate", "judge.metrics", "judge.performance", "registry.versions", "spec.architecture",
        "training.dataset", "version.contract", "version.documents", "version.golden", "version.manifest", "version.predictor",
        "version.raw_predictor", "version.signing", "windows.scaler",
    )  # fmt: skip
    imports = ", ".join(f"model.{name}" for name in light)
    code = f"import sys, {imports}; assert not {{'tensorflow', 'keras', 'tf2onnx', 'onnx'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
