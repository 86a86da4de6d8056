"""The raw graph: the same features as the stream computes, the same forecasts, on whatever a stream brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from features.definition import FEATURES, RING_ROWS, WINDOW_ROWS
from features.offline import RawTable, compute
from features.store import FeatureStore
from features.telemetry import CATEGORIES, NUMERIC, Doubles, Floats, TelemetryBatch
from features.vocabulary import OVERFLOW, Interner, Vocabulary
from model.training.graph.all_three import raw_graphs
from model.training.graph.quantise import quantise
from model.training.graph.raw import compose
from model.version.metadata import Metadata
from model.version.possible import unscaled
from model.version.predictor import PredictorError, core_session, run_core
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows, cut, features_of
from model.windows.scaler import Scaler
from streams.records.validate import NUMBERS, as_rows, complete
from testkit.versions import core_graph, made_up_windows, make_version

VERSION = "v20261123_101500"
VOCABULARY = Vocabulary((("eu", "us"), ("us", "a"), ("metro", "né\n"), (), ("gold",), ("udp",)))
TEXTS = ("eu", "us", "a", "metro", "né\n", "gold", "never seen", OVERFLOW)
HOUR, WEEKDAY = NUMERIC.index("time_of_day"), NUMERIC.index("day_of_week")
DAY_S = 86_400.0


@dataclass(frozen=True)
class Graphs:
    """A small network in its three forms, and a run that gives what the features come to inside the raw graph."""

    metadata: Metadata
    core: bytes
    raw: RawPredictor
    int8: RawPredictor
    inner: Any

    def core_forecasts(self, features: Floats) -> Floats:
        scaled = self.metadata.inputs.transform(features)
        return unscaled(run_core(core_session(self.core), scaled), self.metadata.outputs)


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    rng = np.random.default_rng(0)
    inputs = Scaler(rng.normal(5, 20, 44).astype(np.float32), rng.uniform(0.5, 90, 44).astype(np.float32), np.ones(44, np.bool_))
    outputs = Scaler(np.array([80, 20, 0.01, 2], np.float32), np.array([9, 3, 0.01, 1], np.float32), np.ones(4, np.bool_))
    metadata, core = Metadata(VERSION, inputs, outputs, VOCABULARY), core_graph(hidden=(12, 8))
    made = raw_graphs(core, metadata)
    shown = onnx.load_from_string(made.raw)
    shown.graph.output.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, None))
    inner = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return Graphs(metadata, core, RawPredictor.of(made.raw), RawPredictor.of(made.int8, int8=True), inner)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Doubles, Floats, list[list[str | None]]]:
    """time_s (N,), numeric (N, 11) with holes, and six columns of categories: one run of 30 to 48 rows, so that the windows' history is
    whole, partly there or missing."""
    count = draw(st.integers(WINDOW_ROWS, 48))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start_s = draw(
        st.one_of(
            st.floats(7e8, 4e9),
            st.integers(8_000, 40_000).map(lambda day: DAY_S * day - 600.0),  # over midnight
            st.integers(8_000, 24_000).map(lambda day: float(np.nextafter(DAY_S * day, 0))),  # an instant before
        )
    )
    time_s = start_s + draw(st.sampled_from([1.0, 60.0, 0.37, 1800.0])) * np.arange(count)
    numeric = rng.gamma(2.0, draw(st.sampled_from([1e-3, 20.0, 1e6])), (count, len(NUMERIC)))
    numeric[:, 2] = rng.uniform(0, 1, count)
    if draw(st.booleans()):
        numeric[:] = numeric[0]  # constants: the deviation is exactly 0
    spikes = rng.random(numeric.shape) < draw(st.sampled_from([0.0, 0.02, 0.3]))
    numeric[spikes] = rng.choice([0.0, 1e6, 1e12, 1e20, 1e30], numeric.shape)[spikes]
    numeric[:, HOUR], numeric[:, WEEKDAY] = rng.uniform(0, 24, count), rng.integers(0, 7, count)
    numeric[rng.random(numeric.shape) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))] = np.nan
    if draw(st.booleans()):
        numeric[:, HOUR:] = np.nan
    elif draw(st.booleans()):
        numeric[:, HOUR] = 24.0
    texts: list[str | None] = [None, *draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))]
    return time_s, numeric.astype(np.float32), [[texts[at] for at in rng.integers(0, len(texts), count)] for _ in CATEGORIES]


def online(time_s: Doubles, numeric: Floats, categories: list[list[str | None]]) -> Floats:
    """float32 (N - 29, 30, 44): what the daemon's store gives for the rows as its decoder hands them on."""
    numbers = np.full((len(NUMBERS), len(time_s)), np.nan)
    numbers[0], numbers[1 : 1 + len(NUMERIC)] = time_s, numeric.T
    nodes = ["n"] * len(time_s)
    batch = TelemetryBatch(np.arange(len(time_s)), time_s, as_rows(complete(numbers)), nodes, nodes, tuple(categories))
    store = FeatureStore(())
    rows = store.update(batch, store.resolve(batch), np.ones(1, np.bool_), VOCABULARY)
    assert rows.windows is not None
    return rows.windows[rows.ready]


def raw_windows(time_s: Doubles, numeric: Floats, categories: list[list[str | None]]) -> RawWindows:
    """The same windows, cut from a table of the rows as they were measured."""
    interner, count = Interner(), len(time_s)
    codes = interner.codes(categories).astype(np.int32)
    values = tuple(tuple(part) for part in interner.values)
    table = RawTable(("n",), np.zeros(count, np.int32), time_s, numeric, codes, values)
    return cut(table, np.zeros(count, np.int64), np.arange(WINDOW_ROWS - 1, count))


def apart(found: Floats, wanted: Floats) -> float:
    """The largest difference, relative where a value is over 1."""
    assert np.isfinite(wanted).all()
    return float((np.abs(found - wanted.astype(np.float64)) / np.maximum(1.0, np.abs(wanted))).max())


@settings(max_examples=80)
@given(stream=streams())
def test_features_in_the_graph_are_those_of_the_stream(graphs: Graphs, stream: Any) -> None:
    """All 44 of every row, scaled, to the last bits of float32: holes, spikes up to 1e30, constants, the stream's start, unseen and missing
    categories, hours over midnight."""
    windows, wanted = raw_windows(*stream), graphs.metadata.inputs.transform(online(*stream))
    (found,) = graphs.inner.run(["input"], windows.feed())
    assert apart(found, wanted) <= 5e-7
    assert apart(graphs.metadata.inputs.transform(features_of(windows, VOCABULARY)), wanted) == 0.0


@settings(max_examples=40)
@given(stream=streams())
def test_forecasts_of_raw_telemetry_are_those_of_the_stream(graphs: Graphs, stream: Any) -> None:
    """Within a 10,000th of a target's standard deviation of the core graph over the stream's features."""
    outputs = graphs.metadata.outputs
    wanted = graphs.core_forecasts(online(*stream))
    found = graphs.raw.predict_windows(raw_windows(*stream))
    assert apart(outputs.standardise(found), outputs.standardise(wanted)) <= 1e-4


@pytest.mark.parametrize("missing", range(10))
def test_the_start_of_a_stream_is_a_history_of_nothing(graphs: Graphs, missing: int) -> None:
    """With `missing` rows of history all NaN, the graph forecasts as the stream does for a run that began that much later."""
    whole = made_up_windows(3, seed=missing)
    whole.telemetry[:, :missing] = np.nan
    for at in range(3):
        count = RING_ROWS - missing
        time_s = whole.time_s[at, -1] - 60.0 * np.arange(count)[::-1]
        categories: list[list[str | None]] = [
            [None] * (9 - missing) + [text or None for text in column] for column in whole.categories[at].T
        ]
        wanted = graphs.core_forecasts(online(time_s, whole.telemetry[at, missing:], categories)[-1:])
        alone = whole.take(slice(at, at + 1))
        np.testing.assert_allclose(graphs.raw.predict_windows(alone), wanted, rtol=1e-5, atol=1e-4)


def test_a_raw_forecast_does_not_depend_on_its_batch(graphs: Graphs) -> None:
    """Bit for bit, of the float graph and of the quantised one, for one window and for more than the graph runs at once."""
    windows = made_up_windows(130)
    for predictor in (graphs.raw, graphs.int8):
        together = predictor.predict_windows(windows)
        for part in (slice(0, 1), slice(5, 7), slice(129, 130), slice(1, 130)):
            assert predictor.predict_windows(windows.take(part)).tobytes() == together[part].tobytes()
        assert predictor.predict_windows(windows.take(slice(0, 0))).shape == (0, 4)


def test_the_quantised_graph_is_near(graphs: Graphs) -> None:
    """It differs by .02 standard deviations on average on windows like the trained ones, and it is another graph, not a copy."""
    windows = made_up_windows(64)
    scaled = Scaler.fit(features_of(windows, VOCABULARY).reshape(-1, len(FEATURES)))
    metadata = Metadata(VERSION, scaled, graphs.metadata.outputs, VOCABULARY)
    made = raw_graphs(graphs.core, metadata)
    found = [RawPredictor.of(graph, int8=graph is made.int8).predict_windows(windows) for graph in (made.raw, made.int8)]
    difference = np.abs(found[0] - found[1]) / metadata.outputs.scale
    assert 0 < difference.mean() <= 0.02


def test_texts_are_coded_as_the_vocabulary_codes_them(graphs: Graphs) -> None:
    """A value known in one category is unseen in another; the empty text is missing; code 0 is any other."""
    windows = made_up_windows(1)
    windows.categories[:] = ""
    texts = ["us", "us", "né\n", "gold", "gold", "", "ud", OVERFLOW]
    for row, text in enumerate(texts):
        windows.categories[0, row] = text
    (scaled,) = graphs.inner.run(["input"], windows.feed())
    first = FEATURES.index("region_encoded")
    mean, scale = (part[first : first + 6] for part in (graphs.metadata.inputs.mean, graphs.metadata.inputs.scale))
    codes = [[2, 1, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0], [0, 0, 2, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0], None, [0] * 6, [0] * 6]
    for row, code in enumerate(codes):
        wanted = np.zeros(6, np.float32) if code is None else (np.array(code, np.float32) - mean) / scale
        np.testing.assert_array_equal(scaled[0, row, first : first + 6], wanted)


def test_every_operator_set_is_imported_once(graphs: Graphs) -> None:
    """The quantised core names some twice, which ONNX Runtime refuses in a composed graph; inputs and version are the contract's."""
    for graph in (
        compose(onnx.load_from_string(graphs.core), graphs.metadata),
        compose(quantise(onnx.load_from_string(graphs.core)), graphs.metadata),
    ):
        onnx.checker.check_model(graph)
        domains = [entry.domain for entry in graph.opset_import]
        assert len(domains) == len(set(domains))
        assert {entry.domain: entry.version for entry in graph.opset_import}[""] == 13
        assert [value.name for value in graph.graph.input] == ["time_s", "telemetry", "categories"]
        assert [value.name for value in graph.graph.output] == ["forecast"]
        assert [(entry.key, entry.value) for entry in graph.metadata_props] == [("version", VERSION)]
        assert not {"Loop", "Scan", "If"} & {node.op_type for node in graph.graph.node}


def test_a_graph_that_is_no_core_cannot_be_composed(graphs: Graphs) -> None:
    """A raw graph in the place of a core, or names that collide, are refused before anything is built."""
    core = onnx.load_from_string(graphs.core)
    with pytest.raises(ValueError, match="does not go from 'input' to 'output'"):
        compose(compose(core, graphs.metadata), graphs.metadata)
    core.graph.node[0].output[0] = "raw/columns"
    with pytest.raises(ValueError, match="names that begin with 'raw/'"):
        compose(core, graphs.metadata)


def test_quantising_is_silent_and_leaves_nothing_behind(
    graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Standard output belongs to progress, and a version's folder to its files; the core itself is not changed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    core = onnx.load_from_string(graphs.core)
    operators = [node.op_type for node in quantise(core).graph.node]
    assert operators.count("DynamicQuantizeLSTM") == 2
    assert core.SerializeToString() == onnx.load_from_string(graphs.core).SerializeToString()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def table_of(count: int) -> RawTable:
    numeric = np.ones((count, len(NUMERIC)), np.float32)
    codes = np.full((count, len(CATEGORIES)), -1, np.int32)
    return RawTable(("n",), np.zeros(count, np.int32), 60.0 * np.arange(count) + 1e9, numeric, codes, ((),) * len(CATEGORIES))


def test_windows_are_cut_within_a_run(graphs: Graphs) -> None:
    """Rows of an earlier run are no history; a window over a gap, or beyond the table, is refused by its row."""
    table = table_of(100)
    run = np.repeat([0, 1], 50)
    windows = cut(table, run, np.array([79, 85, 99]))
    assert np.isnan(windows.telemetry).all(axis=2).sum(axis=1).tolist() == [9, 3, 0]
    assert (windows.categories == "").all()
    with pytest.raises(ValueError, match="ends at row 70 is not of one run"):
        cut(table, run, np.array([99, 70]))
    for end in (28, 100):
        with pytest.raises(IndexError, match="only at 29 to 99"):
            cut(table, run, np.array([end]))
    assert np.isfinite(graphs.raw.predict_windows(windows)).all()
    assert compute(table, VOCABULARY).features[99, 0] == features_of(windows, VOCABULARY)[2, -1, 0]


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        (((2, 29), (2, 39, 11), (2, 30, 6)), r"time_s must be \(B, 30\), not \(2, 29\)"),
        (((2, 30), (2, 30, 11), (2, 30, 6)), r"telemetry must be \(2, 39, 11\), not \(2, 30, 11\)"),
        (((2, 30), (1, 39, 11), (2, 30, 6)), r"telemetry must be \(2, 39, 11\), not \(1, 39, 11\)"),
        (((2, 30), (2, 39, 11), (2, 39, 6)), r"categories must be \(2, 30, 6\), not \(2, 39, 6\)"),
        (((), (2, 39, 11), (2, 30, 6)), r"time_s must be \(B, 30\), not \(\)"),
    ],
)
def test_other_shapes_are_named(graphs: Graphs, shapes: tuple[tuple[int, ...], ...], problem: str) -> None:
    """Which array, what it has to be and what it is."""
    with pytest.raises(ValueError, match=problem):
        graphs.raw.predict(np.zeros(shapes[0]), np.zeros(shapes[1], np.float32), np.full(shapes[2], "", object))


def test_a_versions_raw_graphs_load_from_its_folder(tmp_path: Path) -> None:
    """And one that is missing or damaged is a PredictorError that names the folder."""
    folder = make_version(tmp_path / VERSION, VERSION)
    assert (RawPredictor.load(folder).version, RawPredictor.load(folder, int8=True).int8) == (VERSION, True)
    graph = folder / f"bandwidth_lstm_{VERSION}.int8.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(PredictorError, match="the raw graph cannot be loaded"):
        RawPredictor.load(folder, int8=True)
    graph.unlink()
    with pytest.raises(PredictorError, match="is missing"):
        RawPredictor.load(folder, int8=True)
