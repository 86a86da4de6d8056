"""The three graphs of a version from the one that was exported: the core itself, the raw one around it, and the quantised raw one."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from model.training.graph.quantise import quantise
from model.training.graph.raw import compose
from model.version.metadata import Metadata


@dataclass(frozen=True, slots=True)
class RawGraphs:
    """The contents of two ONNX files. raw: float weights. int8: quantised weights; same inputs, same outputs."""

    raw: bytes
    int8: bytes


def raw_graphs(core: bytes, metadata: Metadata) -> RawGraphs:
    """Raises ValueError where the core is no graph that features can be put in front of."""
    model = onnx.load_from_string(core)
    return RawGraphs(*(compose(graph, metadata).SerializeToString() for graph in (model, quantise(model))))
