"""The context of a graph of several horizons need not be fed, whatever the number of windows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest

from features.vocabulary import Vocabulary
from model.spec.architecture import Ahead, Linear
from model.training.graph.all_three import raw_graphs
from model.training.graph.core import convert
from model.training.network.assembly import build
from model.training.network.relative import COLUMNS, RELATIVE
from model.version.contract import AHEAD, CONTEXT, CORE, Graph
from model.version.metadata import Metadata
from model.version.predictor import run_outputs
from model.windows.scaler import Scaler
from testkit.versions import made_up_windows

VERSION = "v20260102_030405"
HORIZONS = (1, 5, 15)
WIDTH = 4 * (3 + len(HORIZONS))


@pytest.fixture(scope="module")
def graphs() -> dict[str, bytes]:
    """Core, raw and quantised graph of a small network whose every part has other than its first weights."""
    keras.utils.set_random_seed(4)
    model = build(Linear(ahead=Ahead(horizons=HORIZONS, units=(8,), members=2)))
    random = np.random.default_rng(4)
    for layer in model.layers:
        if layer.name not in (RELATIVE, COLUMNS):
            layer.set_weights([weight + 0.05 * random.normal(size=weight.shape) for weight in layer.get_weights()])
    columns = model.get_layer(COLUMNS)
    columns.set_weights([np.stack([np.zeros(columns.unit.shape[1]), np.ones(columns.unit.shape[1])])])
    core = convert(model, VERSION).SerializeToString()
    outputs = Scaler(np.array([80, 20, 0.01, 2], np.float32), np.array([9, 3, 0.01, 1], np.float32), np.ones(4, np.bool_))
    inputs = Scaler(np.full(44, 20, np.float32), np.full(44, 9, np.float32), np.ones(44, np.bool_))
    raw = raw_graphs(core, Metadata(VERSION, inputs, outputs, Vocabulary.empty()))
    return {"core": core, "raw": raw.raw, "int8": raw.int8}


def session_of(graph: bytes) -> Any:
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_a_graph_without_a_context_forecasts_as_with_one_that_is_not_known(graphs: dict[str, bytes], count: int) -> None:
    """Bit for bit, in batches of every size; and a context that is known changes the forecasts."""
    random = np.random.default_rng(count)
    unknown, context = np.full((count, WIDTH), np.nan, np.float32), random.uniform(1, 90, (count, WIDTH)).astype(np.float32)
    feeds = {"core": {"input": random.normal(size=(count, 30, 44)).astype(np.float32)}, "raw": made_up_windows(count).feed()}
    for kind, graph in graphs.items():
        session, feed = session_of(graph), feeds["core" if kind == "core" else "raw"]
        outputs = [AHEAD, "output" if kind == "core" else "forecast"]
        without, same, other = (session.run(outputs, feed | more) for more in ({}, {CONTEXT: unknown}, {CONTEXT: context}))
        for found, wanted, changed in zip(without, same, other, strict=True):
            assert len(found) == count
            assert np.isfinite(found).all()
            np.testing.assert_array_equal(found, wanted)
            assert (found != changed).any(), kind


def test_the_context_is_the_only_optional_input(graphs: dict[str, bytes]) -> None:
    """Its default has one row. The constants that broadcast it are not inputs."""
    session = session_of(graphs["core"])
    described = Graph.of_session(session)
    assert [port.name for port in described.inputs] == [CORE.inputs[0].name]
    assert [(port.name, port.shape) for port in described.optional] == [(CONTEXT, ("batch", WIDTH))]
    forecasts = run_outputs(session, np.zeros((3, 30, 44), np.float32), None, ("output", AHEAD))
    assert [each.shape for each in forecasts] == [(3, 4), (3, len(HORIZONS), 4, 4)]
