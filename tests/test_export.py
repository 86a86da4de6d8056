"""The exported graph: LSTM operators, names, the same numbers as Keras, and a refusal where one of them fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import tf2onnx

from features.telemetry import Floats
from model import export
from model.export import ExportError, check_operators, check_parity, convert, export_core, load_weights, save_weights
from model.job_spec import Architecture
from model.network import build, inference_clone, initialise_linear_path

SMALL = Architecture(lstm_units=(6, 5), lstm_dropout=(0.3, 0.2), dense_units=(8,), dense_dropout=(0.3,), head_units=8)
VERSION = "v20260102_030405"


def windows_of(count: int) -> Floats:
    """Windows with what real ones have: zeros for what is missing, and a spike."""
    windows = np.random.default_rng(3).normal(size=(count, 30, 44)).astype(np.float32)
    windows[::2, :, 5] = 0.0
    windows[-1, -1, 0] = 1e6
    return windows


def trained(architecture: Architecture) -> keras.Model:
    """A network whose every part has other than its first weights, batch normalisation too."""
    model = build(architecture)
    random = np.random.default_rng(4)
    model.set_weights([weight + 0.05 * np.abs(random.normal(size=weight.shape)) for weight in model.get_weights()])
    return model


def test_full_size_export_has_three_lstms_and_keras_numbers(tmp_path: Path) -> None:
    """The published architecture, with its recurrent dropout, becomes three LSTM operators of opset 13 within 1e-5 of Keras."""
    difference = export_core(trained(Architecture()), tmp_path, VERSION, windows_of(40))
    assert difference <= 1e-5
    graph = onnx.load(tmp_path / f"bandwidth_lstm_{VERSION}.onnx")
    operators = [node.op_type for node in graph.graph.node]
    assert operators.count("LSTM") == 3
    assert not {"Loop", "Scan"} & set(operators)
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] == 13
    shapes = [
        (value.name, [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim])
        for value in (*graph.graph.input, *graph.graph.output)
    ]
    assert shapes == [("input", ["batch", 30, 44]), ("output", ["batch", 4])]
    assert [(entry.key, entry.value) for entry in graph.metadata_props] == [("version", VERSION)]


def test_a_network_without_linear_path_exports_with_the_same_names(tmp_path: Path) -> None:
    """Switching the linear path off changes nothing for whoever runs the graph."""
    export_core(trained(replace(SMALL, linear_path=False)), tmp_path, VERSION, windows_of(4))
    graph = onnx.load(tmp_path / f"bandwidth_lstm_{VERSION}.onnx")
    assert [graph.graph.input[0].name, graph.graph.output[0].name] == ["input", "output"]


def test_a_graph_with_loops_is_refused() -> None:
    """Exporting the training network itself, recurrent dropout and all, gives loops: the check says so and names the way out."""
    model = build(SMALL)
    signature = (tf.TensorSpec((None, 30, 44), tf.float32, name="input"),)
    graph, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=13)
    with pytest.raises(ExportError, match=r"0 LSTM operators for 2 LSTM layers, and Loop.*without recurrent dropout"):
        check_operators(graph, 2)


def test_a_graph_with_other_names_is_refused() -> None:
    """Consumers address the graph by "input" and "output"."""
    graph = convert(build(SMALL), VERSION)
    for node in graph.graph.node:
        node.input[:] = ["windows" if name == "input" else name for name in node.input]
    graph.graph.input[0].name = "windows"
    with pytest.raises(ExportError, match="windows"):
        check_operators(graph, 2)


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
    """NaN in Keras and in ONNX Runtime is not agreement."""
    model = build(SMALL)
    initialise_linear_path(model, np.full((116, 4), np.nan, np.float32), np.zeros(4, np.float32))
    with pytest.raises(ExportError, match="differ by nan"):
        check_parity(model, convert(model, VERSION).SerializeToString(), windows_of(4))


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
