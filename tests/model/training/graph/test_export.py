"""The exported graph: LSTM operators, names, the same numbers as Keras, and a refusal where one of them fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import tf2onnx
from msgspec.structs import replace as resized
from onnx import helper, numpy_helper

from features.telemetry import Floats
from features.vocabulary import Vocabulary
from model.spec.architecture import Architecture, Lstm
from model.training.graph import core as export
from model.training.graph import prove as model_export_raw
from model.training.graph.all_three import RawGraphs, raw_graphs
from model.training.graph.core import ExportError, check_parity, convert, declare, export_core, load_weights, save_weights
from model.training.graph.prove import export_raw, keras_forecasts
from model.training.graph.quantise import quantise
from model.training.graph.simplify import simplify
from model.training.network.assembly import build, inference_clone, initialise_linear_path
from model.version.contract import CORE
from model.version.metadata import Metadata, core_name
from model.version.predictor import core_session, run_core
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows, features_of
from model.windows.scaler import Scaler
from testkit.versions import core_graph, made_up_windows

SMALL = Lstm(lstm_units=(6, 5), lstm_dropout=(0.3, 0.2), dense_units=(8,), dense_dropout=(0.3,), head_units=8)
VERSION = "v20260102_030405"


def windows_of(count: int) -> Floats:
    """Windows with what real ones have: zeros for what is missing, and a spike."""
    windows = np.random.default_rng(3).normal(size=(count, 30, 44)).astype(np.float32)
    windows[::2, :, 5] = 0.0
    windows[-1, -1, 0] = 1e6
    return windows


def trained(architecture: Architecture) -> keras.Model:
    """A network whose every part has other than its first weights, batch normalisation too; the same one every time.

    Only vectors (a variance is one) are moved in one direction: matrices moved so amplify the last bit until runtimes differ by 1e-5.
    """
    keras.utils.set_random_seed(4)
    model = build(architecture)
    random = np.random.default_rng(4)
    moves = (0.05 * random.normal(size=weight.shape) for weight in model.get_weights())
    model.set_weights(
        [weight + (np.abs(move) if move.ndim == 1 else move) for weight, move in zip(model.get_weights(), moves, strict=True)]
    )
    return model


def test_full_size_export_has_three_lstms_and_keras_numbers(tmp_path: Path) -> None:
    """The published architecture, with its recurrent dropout, becomes three LSTM operators of opset 13 within 1e-5 of Keras."""
    difference = export_core(trained(Lstm()), tmp_path, VERSION, windows_of(40))
    assert difference <= 1e-5
    graph = onnx.load(tmp_path / f"bandwidth_lstm_{VERSION}.onnx")
    operators = [node.op_type for node in graph.graph.node]
    assert operators.count("LSTM") == 3
    assert not {"Loop", "Scan"} & set(operators)
    assert not {"Shape", "Expand", "ReduceProd"} & set(operators), "operators that only compute shapes cost as much as those that work"
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] == 13
    shapes = [
        (value.name, [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim])
        for value in (*graph.graph.input, *graph.graph.output)
    ]
    assert shapes == [("input", ["batch", 30, 44]), ("output", ["batch", 4])]
    assert [(entry.key, entry.value) for entry in graph.metadata_props] == [("version", VERSION)]


def test_a_network_without_linear_path_exports_with_the_same_names(tmp_path: Path) -> None:
    """Switching the linear path off changes nothing for whoever runs the graph."""
    export_core(trained(resized(SMALL, linear_path=False)), tmp_path, VERSION, windows_of(4))
    graph = onnx.load(tmp_path / f"bandwidth_lstm_{VERSION}.onnx")
    assert [graph.graph.input[0].name, graph.graph.output[0].name] == ["input", "output"]


def test_only_the_last_layers_stay_float_in_the_quantised_graph() -> None:
    """The forecast's own layers, by their place and not by their size: inner layers of as many units as there are targets are quantised."""
    sizes = resized(SMALL, lstm_units=(6, 4), dense_units=(4,), head_units=4)
    quantised = quantise(convert(build(sizes), VERSION))
    floats = [node.name.split("/")[1] for node in quantised.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert sorted(floats) == ["linear_path_1", "nonlinear_output_1"]
    assert sum(node.op_type == "MatMulInteger" for node in quantised.graph.node) == 3


def test_a_graph_with_loops_is_refused() -> None:
    """Exporting the training network itself, recurrent dropout and all, gives loops: the check says so and names the way out."""
    model = build(SMALL)
    signature = (tf.TensorSpec((None, 30, 44), tf.float32, name="input"),)
    graph, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=13)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ExportError, match=r"has 0 LSTM operators instead of 2; it has the operators Loop.*recognising them"):
        declare(graph, CORE, "core.onnx", {"LSTM": 2})


def test_a_layer_that_becomes_a_loop_is_refused_with_the_remedy() -> None:
    """A GRU as Keras makes it becomes a loop, and a graph that is not even in order: the refusal names the loop and the way out."""
    inputs = keras.Input((30, 44), name="input")
    model = keras.Model(inputs, keras.layers.Dense(4, name="output")(keras.layers.GRU(6)(inputs)))
    signature = (tf.TensorSpec((None, 30, 44), tf.float32, name="input"),)
    graph, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=13)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ExportError, match=r"has the operators Loop.*recognising them"):
        declare(graph, CORE, "core.onnx", {"MatMul": 1})
    with pytest.raises(ExportError, match="names no operators"):
        declare(graph, CORE, "core.onnx", {})


def test_a_graph_that_is_not_valid_is_refused() -> None:
    """Its ports and operators are right, and its nodes are not in order: what the checker says is an ExportError too."""
    graph = onnx.load_from_string(core_graph(hidden=(6,)))
    nodes = list(reversed(graph.graph.node))
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    with pytest.raises(ExportError, match=r"exported graph is not a valid ONNX model \(.*recognising them"):
        declare(graph, CORE, "core.onnx", {"LSTM": 1})


def test_a_graph_with_other_names_is_refused() -> None:
    """Consumers address the graph by "input" and "output"."""
    graph = convert(build(SMALL), VERSION)
    for node in graph.graph.node:
        node.input[:] = ["windows" if name == "input" else name for name in node.input]
    graph.graph.input[0].name = "windows"
    with pytest.raises(ExportError, match=r"has the input 'windows' .* not declared"):
        declare(graph, CORE, "core.onnx", {"LSTM": 2})


def test_a_graph_with_other_numbers_is_refused_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that differs by a ten-thousandth is found, and no file is left behind."""
    model = trained(SMALL)
    other = inference_clone(model)
    other.set_weights([weight + 1e-4 for weight in other.get_weights()])
    monkeypatch.setattr(export, "convert", lambda _model, version: convert(other, version))
    with pytest.raises(ExportError, match=r"differ by .*at most 1e-05"):
        export_core(model, tmp_path, VERSION, windows_of(4))
    assert not list(tmp_path.iterdir())


def test_a_network_that_forecasts_nan_is_refused() -> None:
    """NaN in Keras and in ONNX Runtime is not agreement, and the bounds behind it do not hide it."""
    model = build(SMALL)
    initialise_linear_path(model, np.full((116, 4), np.nan, np.float32), np.zeros(4, np.float32))
    with pytest.raises(ExportError, match="not a finite number; its training has diverged"):
        check_parity(model, convert(model, VERSION).SerializeToString(), windows_of(4))


def test_only_what_is_known_to_do_nothing_is_taken_out() -> None:
    """A first state that is not 0 stays, one of zeros goes, and so does what made it; the graph computes the same as before."""
    model = onnx.load_from_string(core_graph(hidden=(6,)))
    add = model.graph.initializer.append
    for name, value in (("h", 0.5), ("c", 0.0)):
        add(numpy_helper.from_array(np.full((1, 1, 6), value, np.float32), name))
    add(numpy_helper.from_array(np.array([1, 2, 6]), "for_two"))
    lstm = next(node for node in model.graph.node if node.op_type == "LSTM")
    lstm.input.extend(["", "h2", "c2"])
    for name in ("h", "c"):
        model.graph.node.insert(0, helper.make_node("Expand", [name, "for_two"], [f"{name}2"]))
    before = core_session(model.SerializeToString())
    windows = windows_of(2)
    wanted = run_core(before, windows)
    simplify(model)
    assert list(lstm.input[4:]) == ["", "h2"]
    assert [node.op_type for node in model.graph.node].count("Expand") == 1
    np.testing.assert_array_equal(run_core(core_session(model.SerializeToString()), windows), wanted)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model, Metadata, RawWindows]:
    """A folder with a core graph, and what its raw graphs are made from."""
    folder, windows = tmp_path_factory.mktemp("raw"), made_up_windows(24)
    features, vocabulary = features_of(windows, Vocabulary.empty()), Vocabulary.empty()
    inputs = Scaler.fit(features.reshape(-1, features.shape[-1]))
    outputs = Scaler(np.array([80, 20, 0.01, 2], np.float32), np.array([9, 3, 0.01, 1], np.float32), np.ones(4, np.bool_))
    model = build(SMALL)
    export_core(model, folder, VERSION, inputs.transform(features))
    return folder, model, Metadata(VERSION, inputs, outputs, vocabulary), windows


def test_raw_graphs_are_proven_against_keras(exported: tuple[Path, keras.Model, Metadata, RawWindows]) -> None:
    """Within a 10,000th of a standard deviation of Keras over the stream's features, the quantised one within .02 on average."""
    folder, model, metadata, windows = exported
    found = export_raw(model, folder, metadata, windows)
    assert found.raw_difference <= 1e-4
    assert found.int8_difference_mean <= 0.02
    assert found.int8_difference_mean <= found.int8_difference_max
    loaded = RawPredictor.load(_with_metadata(folder, metadata)).predict_windows(windows)
    np.testing.assert_allclose(loaded, keras_forecasts(model, metadata, windows)[0], rtol=1e-4, atol=1e-5)


def test_a_spike_refuses_no_export(exported: tuple[Path, keras.Model, Metadata, RawWindows], tmp_path: Path) -> None:
    """A window with an RTT of 1e9 in it says nothing about the graphs, and must not cost a training."""
    folder, model, metadata, windows = exported
    (tmp_path / core_name(VERSION)).write_bytes((folder / core_name(VERSION)).read_bytes())
    spiked = windows.take(np.arange(len(windows)))
    spiked.telemetry[0, -5, 1] = 1e9
    found = export_raw(model, tmp_path, metadata, spiked)
    assert found.raw_difference <= 1e-4
    assert found.int8_difference_mean <= 0.02


def _with_metadata(folder: Path, metadata: Metadata) -> Path:
    metadata.write(folder)
    return folder


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda good, other: replace(good, raw=other.raw), r"the raw graph and Keras differ by .*largest; at most 0.0001"),
        (lambda good, other: replace(good, int8=other.int8), r"the quantised graph and Keras differ by .*mean; at most 0.02"),
        (lambda good, other: replace(good, int8=other.raw), "has 0 DynamicQuantizeLSTM operators instead of 2"),
    ],
)
def test_raw_graphs_of_another_network_are_refused_and_not_written(
    exported: tuple[Path, keras.Model, Metadata, RawWindows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[RawGraphs, RawGraphs], RawGraphs],
    problem: str,
) -> None:
    """Each of the two is compared by itself; a refused export leaves neither behind."""
    _, model, metadata, windows = exported
    core = convert(model, VERSION).SerializeToString()
    (tmp_path / core_name(VERSION)).write_bytes(core)
    other = raw_graphs(convert(trained(SMALL), VERSION).SerializeToString(), metadata)
    monkeypatch.setattr(model_export_raw, "raw_graphs", lambda _core, _metadata: spoil(raw_graphs(core, metadata), other))
    with pytest.raises(ExportError, match=problem):
        export_raw(model, tmp_path, metadata, windows)
    assert [path.name for path in tmp_path.iterdir()] == [core_name(VERSION)]


def test_saved_weights_come_back_with_dropout_and_without_optimiser(tmp_path: Path) -> None:
    """A fine-tuning goes on from the same forecasts and the same dropout; the file is not blown up by the optimiser's moments."""
    model = trained(SMALL)
    model.compile(optimizer="adam", loss="mse")
    model.train_on_batch(windows_of(8), np.zeros((8, 4), np.float32))
    path = save_weights(model, tmp_path)
    loaded = load_weights(tmp_path)
    np.testing.assert_array_equal(loaded.predict_on_batch(windows_of(8)), model.predict_on_batch(windows_of(8)))
    assert [loaded.get_layer("lstm_1").dropout, loaded.get_layer("lstm_1").recurrent_dropout] == [0.3, 0.2]
    assert not loaded.compiled
    assert path.stat().st_size < 2 * 4 * model.count_params() + 100_000


@pytest.mark.parametrize("content", [None, b"", b"no zip file"])
def test_unreadable_weights_are_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    """A parent whose weights are missing or torn is named, with what to do."""
    if content is not None:
        (tmp_path / "best_model.keras").write_bytes(content)
    with pytest.raises(ExportError, match=r"best_model\.keras cannot be loaded.*first version"):
        load_weights(tmp_path)
