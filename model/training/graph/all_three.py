"""Raw graphs of a version from its core graph: the one that wraps it, and the quantised one."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from model.training.graph.quantise import quantise
from model.training.graph.raw import compose
from model.version.metadata import Metadata


@dataclass(frozen=True, slots=True)
class RawGraphs:
    """Contents of two ONNX files. raw: float weights. int8: quantised weights; same inputs, same outputs."""

    raw: bytes
    int8: bytes


def raw_graphs(core: bytes, metadata: Metadata) -> RawGraphs:
    """Return both raw graphs around a core. Raises ValueError if features cannot be put in front of it."""
    model = onnx.load_from_string(core)
    return RawGraphs(*(compose(graph, metadata).SerializeToString() for graph in (model, quantise(model))))
