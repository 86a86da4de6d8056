"""Published versions with random weights, for tests that need a version and no training."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from features.telemetry import CATEGORIES, NUMERIC
from features.vocabulary import Vocabulary
from model.registry.versions import Registry
from model.version.golden import GOLDEN_NAME, CoreSamples, write_golden
from model.version.golden_raw import raw_samples
from model.version.manifest import write_manifest
from model.version.metadata import Metadata, core_name, int8_name, raw_name
from model.version.possible import unscaled
from model.version.predictor import core_session, run_core
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows, features_of
from model.windows.scaler import Scaler


def core_graph(hidden: tuple[int, ...] = (64, 48), seed: int = 0) -> bytes:
    """Make a core graph by hand.

    Args:
        hidden: units of each LSTM operator.
        seed: of the weights.

    Returns:
        The bytes of an ONNX model of opset 13: the LSTM operators, dense layers, and a linear path from the last row.
    """
    rng, weights, nodes, width = np.random.default_rng(seed), {}, [], 44

    def weight(name: str, *shape: int) -> str:
        weights[name] = (rng.normal(0, 1, shape) / np.sqrt(shape[-1])).astype(np.float32)
        return name

    nodes.append(helper.make_node("Transpose", ["input"], ["steps0"], perm=[1, 0, 2]))  # (T, B, F), as an LSTM reads it
    for layer, units in enumerate(hidden):
        inputs = [
            f"steps{layer}",
            weight(f"W{layer}", 1, 4 * units, width),
            weight(f"R{layer}", 1, 4 * units, units),
            weight(f"B{layer}", 1, 8 * units),
        ]
        nodes.append(helper.make_node("LSTM", inputs, [f"all{layer}", f"last{layer}"], hidden_size=units))
        nodes.append(helper.make_node("Squeeze", [f"all{layer}", "one"], [f"steps{layer + 1}"]))  # (T, 1, B, H) -> (T, B, H)
        width = units
    weights["one"], weights["zero"] = np.array([1]), np.array([0])
    weights["newest"] = np.array(29)
    nodes.append(helper.make_node("Squeeze", [f"last{len(hidden) - 1}", "zero"], ["state"]))
    nodes.append(helper.make_node("MatMul", ["state", weight("D", width, 32)], ["dense"]))
    nodes.append(helper.make_node("Relu", ["dense"], ["relu"]))
    nodes.append(helper.make_node("Gemm", ["relu", weight("E", 32, 4), weight("e", 4)], ["deep"]))
    nodes.append(helper.make_node("Gather", ["input", "newest"], ["row"], axis=1))
    nodes.append(helper.make_node("MatMul", ["row", weight("L", 44, 4)], ["linear"]))
    nodes.append(helper.make_node("Add", ["deep", "linear"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "core",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 30, 44])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def made_up_windows(count: int, seed: int = 0) -> RawWindows:
    """Make `count` raw windows of ordinary telemetry, one value in twenty missing."""
    rng = np.random.default_rng(seed)
    telemetry = rng.normal(50, 10, (count, 39, len(NUMERIC))).astype(np.float32)
    telemetry[:, :, NUMERIC.index("packet_loss")] = rng.uniform(0, 0.05, (count, 39))
    telemetry[:, :, NUMERIC.index("time_of_day")] = rng.uniform(0, 24, (count, 39))
    telemetry[:, :, NUMERIC.index("day_of_week")] = rng.integers(0, 7, (count, 39))
    telemetry[rng.random(telemetry.shape) < 0.05] = np.nan
    time_s = 1_795_000_000.0 + 60.0 * np.arange(30) + rng.integers(0, 10**6, (count, 1))
    texts = np.array(["", "eu-1", "us-1", "metro", "né"], object)
    return RawWindows(time_s, telemetry, texts[rng.integers(0, len(texts), (count, 30, len(CATEGORIES)))])


def _metadata(version: str, seed: int) -> Metadata:
    rng = np.random.default_rng(seed)
    inputs = Scaler(rng.normal(50, 20, 44).astype(np.float32), rng.uniform(1, 9, 44).astype(np.float32), np.ones(44, np.bool_))
    outputs = Scaler(np.array([80, 20, 0.01, 2], np.float32), np.array([9, 3, 0.01, 1], np.float32), np.ones(4, np.bool_))
    return Metadata(version, inputs, outputs, Vocabulary.empty(), trained_until_s=1_795_000_000.0)


@functools.cache
def _graphs_and_golden(seed: int) -> tuple[bytes, bytes, bytes, bytes]:
    from model.training.graph.all_three import raw_graphs  # TensorFlow

    metadata, core = _metadata("v20260101_000000", seed), core_graph(seed=seed)
    graphs, session = raw_graphs(core, metadata), core_session(core)

    def forecast(windows: Any) -> tuple[Any, None]:
        scaled = metadata.inputs.transform(features_of(windows, metadata.vocabulary))
        return unscaled(run_core(session, scaled), metadata.outputs), None

    raw, int8 = RawPredictor.of(graphs.raw), RawPredictor.of(graphs.int8, int8=True)
    samples = np.random.default_rng(seed).normal(0, 1, (8, 30, 44)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        raw_part = raw_samples(made_up_windows(16, seed), forecast, raw, int8, metadata.outputs)
        golden = write_golden(Path(name), CoreSamples(samples, run_core(session, samples)), raw_part).read_bytes()
    return core, graphs.raw, graphs.int8, golden


def make_version(folder: Path, version: str, seed: int = 0, parent: str | None = None) -> Path:
    """Fill a folder with a whole version, as an export does: three graphs, metadata, golden samples, manifest.

    Args:
        folder: made if it is missing.
        version: its name, such as v20261123_101500.
        seed: of the weights. What depends on the seed alone is made once a process.
        parent: the version that it replaced.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    *graphs, golden = _graphs_and_golden(seed)
    for name, content in zip((core_name(version), raw_name(version), int8_name(version)), graphs, strict=True):
        graph = onnx.load_from_string(content)
        onnx.helper.set_model_props(graph, {"version": version})
        (folder / name).write_bytes(graph.SerializeToString())
    (folder / GOLDEN_NAME).write_bytes(golden)
    _metadata(version, seed).write(folder)
    write_manifest(folder, version=version, parent=parent, reason="test", created_at_s=1.0, verdict=None, libraries={})
    return folder


def publish(folder: Path, version: str, seed: int = 0) -> None:
    """Make a version in folder/models and point CURRENT to it."""
    registry = Registry(folder / "models")
    registry.root.mkdir(exist_ok=True)
    registry.publish(make_version(registry.candidate_folder(version), version, seed=seed), version)
