"""The contract of a graph: required and declared ports, what is refused, and a version with a second output and an optional input."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.registry.versions import Registry
from model.spec.architecture import Ahead, Lstm
from model.training.graph import core as export
from model.training.graph.all_three import raw_graphs
from model.version.contract import CONTRACTS, CORE, RAW, Declared, Graph, Port, problems
from model.version.documents import DocumentError
from model.version.manifest import verify, write_manifest
from model.version.metadata import Metadata, metadata_name
from model.version.predictor import Predictor, PredictorError, core_session, read_graph
from model.version.raw_predictor import RawPredictor
from testkit import go_client
from testkit.paths import STATES
from testkit.versions import core_graph, make_version

NEXT_ROW = Ahead(horizons=())
"""Only the next row: the ports of several horizons are declared too, and would come beside those of these tests."""
SMALL = Lstm(lstm_units=(6,), lstm_dropout=(0.2,), dense_units=(8,), dense_dropout=(0.2,), head_units=8, ahead=NEXT_ROW)
VERSION = "v20260101_000000"
SHARE = Port("share", "float32", (1,))
SPREAD = Port("spread", "float32", ("batch", 4))
MORE = Declared("", {}, (SHARE,), (SPREAD,))
OTHER_SHAPE = replace(MORE, outputs=(Port("spread", "float32", ("batch", 5)),))


def extended(model: Any) -> Any:
    """A core graph with a second output, `spread`: the forecast times the optional input `share`, by default 1/4."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([0.25], np.float32), "share"))
    graph.input.append(helper.make_tensor_value_info("share", TensorProto.FLOAT, [1]))
    graph.node.append(helper.make_node("Mul", ["output", "share"], ["spread"]))
    graph.output.append(helper.make_tensor_value_info("spread", TensorProto.FLOAT, ["batch", 4]))
    return model


def without_default(model: Any) -> Any:
    """The extended graph, whose further input has to be fed."""
    kept = [tensor for tensor in extended(model).graph.initializer if tensor.name != "share"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def reshaped(model: Any) -> Any:
    """The extended graph, whose second output says another shape."""
    extended(model).graph.output[1].type.tensor_type.shape.dim[1].dim_value = 5
    return model


@pytest.mark.parametrize("kind", CONTRACTS)
def test_published_graphs_keep_their_contract(tmp_path: Path, kind: str) -> None:
    """Both the file and ONNX Runtime's session have the ports of the contract."""
    metadata = Metadata.read(make_version(tmp_path / VERSION, VERSION))
    content = (tmp_path / VERSION / metadata.graph(kind).file).read_bytes()
    contract = CORE if kind == "core" else RAW
    found = Graph.of_model(onnx.load_from_string(content))
    assert problems(found, contract, metadata.graph(kind)) == []
    session = RawPredictor.of(content)._session if contract is RAW else core_session(content)
    described = Graph.of_session(session)
    assert (described.inputs, described.optional, described.outputs) == (found.inputs, found.optional, found.outputs)


@pytest.mark.parametrize(
    ("change", "declared", "expected"),
    [
        (lambda model: model, Declared(), []),
        (extended, MORE, []),
        (extended, Declared(), ["has the optional input 'share' float32 (1), which is not declared",
                                "has the output 'spread' float32 (batch, 4), which is not declared"]),
        (lambda model: model, MORE, ["lacks the optional input 'share' float32 (1)", "lacks the output 'spread' float32 (batch, 4)"]),
        (without_default, MORE, ["has the input 'share' float32 (1) without a default value",
                                 "lacks the optional input 'share' float32 (1)"]),
        (extended, OTHER_SHAPE,
         ["has the output 'spread' float32 (batch, 4) instead of 'spread' float32 (batch, 5)"]),
        (lambda model: model, Declared("", {"LSTM": 3, "GRU": 1}),
         ["has 1 LSTM operators instead of 3", "has 0 GRU operators instead of 1"]),
    ],
)  # fmt: skip
def test_ports_and_operators(change: Callable[[Any], Any], declared: Declared, expected: list[str]) -> None:
    """Required ports are there as they are; further ones are declared as they are; an input that readers do not know has a default."""
    model = change(onnx.load_from_string(core_graph(hidden=(6,))))
    assert problems(Graph.of_model(model), CORE, declared) == expected


def test_a_session_is_refused_by_the_same_contract() -> None:
    """The session of ONNX Runtime is compared as well: a graph that declares another shape than it has is found by that."""
    content = extended(onnx.load_from_string(core_graph(hidden=(6,)))).SerializeToString()
    assert core_session(content, declared=MORE).run(["spread"], {"input": np.ones((2, 30, 44), np.float32)})[0].shape == (2, 4)
    with pytest.raises(DocumentError, match=r"the core graph has the optional input 'share'.*; it has the output 'spread'"):
        core_session(content)
    with pytest.raises(DocumentError, match=r"float32 .batch, 4. instead of"):
        core_session(reshaped(onnx.load_from_string(core_graph(hidden=(6,)))).SerializeToString(), declared=OTHER_SHAPE)


def test_a_raw_graph_keeps_what_the_core_has_beyond_its_contract(tmp_path: Path) -> None:
    """The second output and the optional input of the core are those of the raw graph and of the quantised one."""
    folder = make_version(tmp_path / VERSION, VERSION)
    core = extended(onnx.load(folder / Metadata.read(folder).graph("core").file))
    for content in vars_of(raw_graphs(core.SerializeToString(), Metadata.read(folder))):
        found = Graph.of_model(onnx.load_from_string(content))
        assert (found.inputs, found.optional, found.outputs) == (RAW.inputs, (SHARE,), (*RAW.outputs, SPREAD))


def vars_of(graphs: Any) -> tuple[bytes, bytes]:
    return graphs.raw, graphs.int8


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A models folder with a version whose graphs have a second output and an optional input: trained, exported, proven and published."""
    folder = tmp_path_factory.mktemp("contract")
    convert = export.convert
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "convert", lambda model, version: extended(convert(model, version)))
        go_client.publish(Registry(folder / "models"), go_client.snapshot_of(folder / "snapshot"), VERSION, SMALL)
    return Registry(folder / "models")


def test_python_reads_it(published: Registry) -> None:
    """Its metadata declare both; predictors forecast as ever; who knows the output asks for it, and the input changes it."""
    folder = published.folder(VERSION)
    assert verify(folder) == []
    metadata = Metadata.read(folder)
    assert {(graph.inputs, graph.outputs) for graph in metadata.graphs.values()} == {((SHARE,), (SPREAD,))}
    assert Metadata.read(metadata.write(folder).parent).graphs == metadata.graphs
    windows = go_client.windows_like_the_snapshot(4)
    raw = RawPredictor.load(folder)
    assert raw.predict_windows(windows).shape == (4, 4)
    assert Predictor.load(folder).predict(np.zeros((2, 30, 44), np.float32)).shape == (2, 4)
    assert RawPredictor.load(folder, int8=True).predict_windows(windows).shape == (4, 4)
    (quarter,) = raw._session.run(["spread"], windows.feed())
    (whole,) = raw._session.run(["spread"], windows.feed() | {"share": np.ones(1, np.float32)})
    np.testing.assert_allclose(4 * quarter, whole, rtol=1e-6)


def go(dwcp_predict: Path, models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    records, _ = go_client.records_and_window()
    return subprocess.run(
        [dwcp_predict, "-models", models, *arguments], input="".join(json.dumps(record) + "\n" for record in records),
        env=go_client.go_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("graph", ["raw", "int8"])
def test_go_reads_it(published: Registry, graph: str, dwcp_predict: Path) -> None:
    """The client verifies the version, and forecasts what Python does."""
    _, windows = go_client.records_and_window()
    wanted = RawPredictor.load(published.folder(VERSION), int8=graph == "int8").predict_windows(windows)[0]
    done = go(dwcp_predict, published.root, "-graph", graph)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    np.testing.assert_allclose([line["throughput_mbps"], line["rtt_ms"]], wanted[:2], rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda graphs: graphs["raw"].update(outputs=[]), "has the output"),
        (lambda graphs: graphs["raw"]["outputs"].append({"name": "x", "dtype": "float32", "shape": ["batch", 4]}), "lacks the output"),
        (lambda graphs: graphs["raw"].update(file="missing.onnx"), "MANIFEST.json does not name missing.onnx"),
        (lambda graphs: graphs["raw"].update(file="../CURRENT"), "not a file name"),
        (lambda graphs: graphs["raw"].update(file=graphs["core"]["file"]), "core and raw are of one file"),
    ],
)
def test_what_is_not_as_declared_is_refused_by_both(
    published: Registry, tmp_path: Path, change: Callable[[Any], object], problem: str, dwcp_predict: Path
) -> None:
    """Undeclared, declared and not there, or another file: Python's verification and the Go client name the same thing."""
    root = tmp_path / "models"
    shutil.copytree(published.root, root)
    rewrite(root / VERSION, change)
    found = verify(root / VERSION)
    assert any(problem in each for each in found), found
    done = go(dwcp_predict, root, "-verify")
    assert done.returncode == 1
    assert problem in done.stderr


def rewrite(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / metadata_name(VERSION)
    document = json.loads(path.read_text())
    change(document["graphs"])
    path.write_text(json.dumps(document))
    write_manifest(folder, version=VERSION, parent=None, reason="test", created_at_s=1.0, verdict=None, libraries={})


@pytest.mark.parametrize(
    "graphs",
    [[], {"core": {}}, {"core": 1, "raw": 1, "int8": 1}, {"core": {"file": 1}, "raw": {}, "int8": {}}, {"raw": {"file": "a.onnx"}}],
)
def test_a_declaration_that_is_none_is_refused(tmp_path: Path, graphs: Any) -> None:
    """Anything else in its place is named, and nothing is loaded."""
    folder = make_version(tmp_path / VERSION, VERSION)
    path = folder / metadata_name(VERSION)
    path.write_text(json.dumps({**json.loads(path.read_text()), "graphs": graphs or 7}))
    with pytest.raises(DocumentError, match="graphs"):
        Metadata.read(folder)
    with pytest.raises(PredictorError, match="graphs"):
        Predictor.load(folder)


def test_versions_that_declare_nothing_are_read_as_ever(tmp_path: Path) -> None:
    """One of an earlier release: LSTM layers, the three file names, features of version 1; its weights load."""
    shutil.unpack_archive(STATES / "unbounded-model.tar.xz", tmp_path)
    folder = tmp_path / VERSION
    assert verify(folder) == []
    metadata = Metadata.read(folder)
    assert (metadata.encoder, metadata.graphs) == ("lstm", {})
    assert [metadata.graph(kind).file for kind in CONTRACTS] == [f"bandwidth_lstm_{VERSION}{part}.onnx" for part in ("", ".raw", ".int8")]
    assert Predictor.load(folder).predict(np.ones((2, 30, 44), np.float32)).shape == (2, 4)
    assert Graph.of_model(onnx.load_from_string(read_graph(folder / metadata.graph("core").file))).operators["LSTM"] == 1
    assert export.load_weights(folder).name == "bandwidth_lstm"
