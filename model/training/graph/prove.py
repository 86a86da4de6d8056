"""Proof of the raw graphs of a version: they are written once they agree with Keras on the features that the stream computes from the same
rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import keras
import numpy as np
import onnx

from features.telemetry import Flags, Floats
from model.training.graph.all_three import RawGraphs, raw_graphs
from model.training.graph.core import ExportError, declare
from model.training.network.called import called
from model.training.network.encoders import encoder_name, encoder_of
from model.version.contract import CONTRACTS, Declared
from model.version.declarations import read_graphs
from model.version.documents import DocumentError
from model.version.metadata import Metadata, core_name, int8_name, raw_name
from model.version.possible import unscaled, unscaled_ahead
from model.version.predictor import read_graph
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
    """Both raw predictors, and how far they are from Keras.

    raw_difference: the largest one. int8_difference_mean, int8_difference_max: of the quantised graph; standard deviations of the target.
    graphs: the version's declaration of each of its three graphs, by kind.
    """

    raw: RawPredictor
    int8: RawPredictor
    raw_difference: float
    int8_difference_mean: float
    int8_difference_max: float
    graphs: Mapping[str, Declared]


def export_raw(model: keras.Model, folder: Path, metadata: Metadata, windows: RawWindows) -> RawExport:
    """Write the raw and the quantised graph around the core that is in the folder.

    Args:
        model: the network.
        folder: with the core graph of `export_core`.
        metadata: of the version; its graphs need not be declared yet.
        windows: real ones, at least one.

    Raises:
        ExportError: if a graph does not keep its contract, or differs from Keras by more than its tolerance; neither is written then.
    """
    version, encoder = metadata.version, encoder_name(model)
    core = read_graph(folder / core_name(version, encoder))
    graphs = raw_graphs(core, metadata)
    declared = _declared(model, core, graphs, metadata)
    try:
        raw, int8 = (
            RawPredictor.of(content, version, kind == "int8", metadata.window_rows, declared[kind])
            for kind, content in (("raw", graphs.raw), ("int8", graphs.int8))
        )
    except DocumentError as error:
        raise ExportError(f"ONNX Runtime refuses a raw graph: {error}") from error
    usual = np.flatnonzero(_usual(metadata, windows))
    judged = windows.take(usual) if len(usual) else windows
    raw_apart, int8_apart = _differences(model, metadata, judged, raw, int8)
    _require("raw graph", "largest", float(raw_apart.max()), RAW_TOLERANCE)
    _require("quantised graph", "mean", float(int8_apart.mean()), INT8_TOLERANCE)
    (folder / declared["raw"].file).write_bytes(graphs.raw)
    (folder / declared["int8"].file).write_bytes(graphs.int8)
    return RawExport(raw, int8, float(raw_apart.max()), float(int8_apart.mean()), float(int8_apart.max()), declared)


def _differences(
    model: keras.Model, metadata: Metadata, windows: RawWindows, raw: RawPredictor, int8: RawPredictor
) -> tuple[Floats, Floats]:
    """Return the differences to Keras of all forecasts, (K, 4) each, in standard deviations; those of the raw graph are relative."""
    next_row, ahead = keras_forecasts(model, metadata, windows)
    pairs = [[(found.predict_windows(windows), next_row)] for found in (raw, int8)]
    if ahead is not None:
        for each, found in zip(pairs, (raw, int8), strict=True):
            each.append((by_target(found.predict_ahead(windows)), by_target(ahead)))
    return tuple(
        np.concatenate([_apart(found, wanted, metadata, relative=relative) for found, wanted in each])
        for each, relative in zip(pairs, (True, False), strict=True)
    )  # type: ignore[return-value]


def by_target(ahead: Floats) -> Floats:
    """Return forecasts (B, H, 4, 4) as (B * H * 4, 4)."""
    return np.moveaxis(ahead, 2, -1).reshape(-1, ahead.shape[2])


def _declared(model: keras.Model, core: bytes, graphs: RawGraphs, metadata: Metadata) -> dict[str, Declared]:
    version, encoder = metadata.version, encoder_name(model)
    floats, quantised = (encoder_of(model).operators(model, quantised=quantised) for quantised in (False, True))
    parts = (
        ("core", core, core_name(version, encoder), floats),
        ("raw", graphs.raw, raw_name(version, encoder), floats),
        ("int8", graphs.int8, int8_name(version, encoder), quantised),
    )
    declared = {
        kind: declare(onnx.load_from_string(content), CONTRACTS[kind](metadata.window_rows), file, operators)
        for kind, content, file, operators in parts
    }
    try:
        return read_graphs({kind: graph.to_json() for kind, graph in declared.items()})
    except ValueError as error:
        raise ExportError(f"no reader would accept what the graphs hold beyond their contract: {error}") from error


def keras_forecasts(model: keras.Model, metadata: Metadata, windows: RawWindows) -> tuple[Floats, Floats | None]:
    """Return the network's forecasts from the features that the stream computes of these windows, in engineering units.

    float32 (B, 4), the next row; and (B, H, 4, 4), or None for a network that forecasts only the next row.
    """
    scaled = metadata.inputs.transform(features_of(windows, metadata.vocabulary))
    if len(model.inputs) == 1:
        return unscaled(called(model, scaled), metadata.outputs), None
    width = model.inputs[1].shape[-1]
    context = np.full((len(scaled), width), np.nan, np.float32) if windows.context is None else windows.context
    next_row, ahead = called(model, [scaled, context])
    return unscaled(next_row, metadata.outputs), unscaled_ahead(ahead, metadata.outputs)


def _usual(metadata: Metadata, windows: RawWindows) -> Flags:
    """Return bool (B,): windows without a spike. A spike stretches the one scale of all quantised activations, and costs float32 digits."""
    scaled = metadata.inputs.transform(features_of(windows, metadata.vocabulary))
    usual: Flags = np.abs(scaled).max(axis=(1, 2)) <= USUAL_SCALED
    return usual


def _apart(found: Floats, wanted: Floats, metadata: Metadata, *, relative: bool) -> Floats:
    """Return the differences in standard deviations of the targets; 0 if both are missing: the target was never measured in training."""
    apart: Floats = np.abs(found - wanted) / metadata.outputs.scale
    apart[np.isnan(found) & np.isnan(wanted) & ~metadata.measured] = 0.0
    if relative:
        apart /= np.maximum(np.float32(1), np.abs(np.nan_to_num(metadata.outputs.standardise(wanted))))
    return apart


def _require(graph: str, which: str, difference: float, tolerance: float) -> None:
    if not difference <= tolerance:  # NaN is over it too
        raise ExportError(f"the {graph} and Keras differ by {difference:.3g} standard deviations ({which}; at most {tolerance:g})")
