"""The raw graphs of a version, written once they are proven: against Keras, on the features that the stream gives for the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import keras
import numpy as np
import onnx

from features.telemetry import Flags, Floats
from model.training.graph.all_three import RawGraphs, raw_graphs
from model.training.graph.core import ExportError
from model.version.documents import DocumentError
from model.version.metadata import Metadata, core_name, int8_name, raw_name
from model.version.predictor import CHUNK_WINDOWS, read_graph
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows, features_of

RAW_TOLERANCE: Final = 1e-4
"""Largest accepted difference to Keras in standard deviations of the target, relative where a forecast is over 1. Measured: 1e-6."""
INT8_TOLERANCE: Final = 0.02
"""Mean accepted difference of the quantised graph, in standard deviations of the target."""


USUAL_SCALED: Final = 50.0
"""Largest scaled feature of a window that the graphs are judged on: one spike in the telemetry must not cost a training."""


@dataclass(frozen=True, eq=False, slots=True)
class RawExport:
    """Both predictors, and how far they are from Keras: raw_difference is the largest, the other two are mean and largest."""

    raw: RawPredictor
    int8: RawPredictor
    raw_difference: float
    int8_difference_mean: float
    int8_difference_max: float


def export_raw(model: keras.Model, folder: Path, metadata: Metadata, windows: RawWindows) -> RawExport:
    """Writes the raw and the quantised graph around the core that is in the folder.

    windows: real ones, at least one. Raises ExportError, and writes neither, where a graph differs from Keras by more than its tolerance
    or lacks its LSTM operators.
    """
    version = metadata.version
    graphs = raw_graphs(read_graph(folder / core_name(version)), metadata)
    layers = sum(isinstance(layer, keras.layers.LSTM) for layer in model.layers)
    _require_operators(graphs, layers)
    try:
        raw, int8 = (
            RawPredictor.of(graph, version, int8, metadata.window_rows) for graph, int8 in ((graphs.raw, False), (graphs.int8, True))
        )
    except DocumentError as error:
        raise ExportError(f"ONNX Runtime refuses a raw graph: {error}") from error
    usual = np.flatnonzero(_usual(metadata, windows))
    judged = windows.take(usual) if len(usual) else windows
    wanted = keras_forecasts(model, metadata, judged)
    raw_apart = _apart(raw.predict_windows(judged), wanted, metadata, relative=True)
    int8_apart = _apart(int8.predict_windows(judged), wanted, metadata, relative=False)
    _require("raw graph", "largest", float(raw_apart.max()), RAW_TOLERANCE)
    _require("quantised graph", "mean", float(int8_apart.mean()), INT8_TOLERANCE)
    (folder / raw_name(version)).write_bytes(graphs.raw)
    (folder / int8_name(version)).write_bytes(graphs.int8)
    return RawExport(raw, int8, float(raw_apart.max()), float(int8_apart.mean()), float(int8_apart.max()))


def keras_forecasts(model: keras.Model, metadata: Metadata, windows: RawWindows) -> Floats:
    """float32 (B, 4), engineering units: what the network forecasts from the features that the stream computes of these windows."""
    scaled = metadata.inputs.transform(features_of(windows, metadata.vocabulary))
    return metadata.outputs.inverse(model.predict(scaled, batch_size=CHUNK_WINDOWS, verbose=0))


def _usual(metadata: Metadata, windows: RawWindows) -> Flags:
    """bool (B,): windows without a spike, which takes the one scale of all quantised activations with it, and float32's digits too."""
    scaled = metadata.inputs.transform(features_of(windows, metadata.vocabulary))
    usual: Flags = np.abs(scaled).max(axis=(1, 2)) <= USUAL_SCALED
    return usual


def _apart(found: Floats, wanted: Floats, metadata: Metadata, *, relative: bool) -> Floats:
    """In standard deviations of the targets; 0 where both are missing, for the target was never measured in training."""
    apart: Floats = np.abs(found - wanted) / metadata.outputs.scale
    apart[np.isnan(found) & np.isnan(wanted) & ~metadata.measured] = 0.0
    if relative:
        apart /= np.maximum(np.float32(1), np.abs(np.nan_to_num(metadata.outputs.standardise(wanted))))
    return apart


def _require(graph: str, which: str, difference: float, tolerance: float) -> None:
    if not difference <= tolerance:  # NaN is over it too
        raise ExportError(f"the {graph} and Keras differ by {difference:.3g} standard deviations ({which}; at most {tolerance:g})")


def _require_operators(graphs: RawGraphs, layers: int) -> None:
    for content, operator in ((graphs.raw, "LSTM"), (graphs.int8, "DynamicQuantizeLSTM")):
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        found = sum(node.op_type == operator for node in model.graph.node)
        if found != layers:
            raise ExportError(f"a raw graph has {found} {operator} operators for {layers} LSTM layers")
