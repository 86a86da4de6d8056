"""Export of a trained network: the core ONNX graph, proven against Keras, and the weights that a fine-tuning continues from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

from features.telemetry import Flags, Floats
from model.registry.plain_file import open_plain
from model.training.graph.simplify import simplify
from model.training.network.ahead import BLEND
from model.training.network.assembly import OUTPUT_NAME, inference_clone
from model.training.network.bound_layers import forecast_targets, unbounded
from model.training.network.called import called
from model.training.network.encoders import encoder_name, encoder_of
from model.version.contract import AHEAD, CONTEXT, CORE, Contract, Declared, Graph, core, problems
from model.version.documents import DocumentError
from model.version.metadata import core_name
from model.version.predictor import CHUNK_WINDOWS, NOTHING, core_session, run_outputs

OPSET: Final = 13
"""Operator set that every runtime of the last years reads; tf2onnx supports up to 18."""
WEIGHTS_NAME: Final = "best_model.keras"
MOST_WEIGHTS_BYTES: Final = 256 * 2**20
PARITY_TOLERANCE: Final = 1e-5
"""Largest accepted difference between Keras and ONNX Runtime, scaled units, relative where a forecast is over 1. Measured: 2.4e-7."""
RANDOM_WINDOWS: Final = 64
MOST_CHECKER_CHARACTERS: Final = 300
"""Length at which the checker's message, which may quote a whole node, is cut."""
_INPUT_NAME: Final = CORE.inputs[0].name


class ExportError(Exception):
    """The exported graph does not compute what the network does, or is not in its fast form. The message names what differs."""


def export_core(model: keras.Model, folder: Path, version: str, windows: Floats, context: Floats | None = None) -> float:
    """Write the core graph, scaled windows (batch, 30, 44) to scaled forecasts (batch, 4) and those ahead, and prove it.

    Args:
        model: the network.
        folder: where the graph is written, as `core_name` names it.
        version: name of the version.
        windows: float32 (B, 30, 44), scaled, real ones; random ones are added.
        context: float32 (B, C), of these windows; None for a network without several horizons.

    Returns:
        The largest difference to Keras; see PARITY_TOLERANCE.

    Raises:
        ExportError: if the graph does not keep its contract or the forecasts differ; nothing is written then.
    """
    graph = convert(model, version)
    declared = declare(graph, core(window_rows_of(model)), "", encoder_of(model).operators(model, quantised=False))
    content = graph.SerializeToString()
    difference = check_parity(model, content, windows, declared, context)
    (folder / core_name(version, encoder_name(model))).write_bytes(content)
    return difference


def convert(model: keras.Model, version: str) -> Any:
    """Return the network without dropout as an onnx.ModelProto of OPSET, which carries its version."""
    signature = tuple(tf.TensorSpec(each.shape, tf.float32, name=each.name) for each in model.inputs)
    graph, _ = tf2onnx.convert.from_keras(inference_clone(model), input_signature=signature, opset=OPSET)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"  # tf2onnx gives each a nameless size of its own
    simplify(graph)
    for width in (each.shape[-1] for each in model.inputs if each.name == CONTEXT):
        _make_context_optional(graph.graph, width)
    onnx.helper.set_model_props(graph, {"version": version})
    return graph


def _make_context_optional(graph: Any, width: int) -> None:
    """Give the input `context` a default, so that who has no context gets forecasts without it.

    A default has one row, whatever the batch. So all nodes read it broadcast to the rows of the windows, by a choice between it and itself.
    """
    whole, parts = f"{CONTEXT}_by_window", [f"{CONTEXT}_{part}" for part in ("column", "rows", "choice")]
    for node in graph.node:
        node.input[:] = [whole if name == CONTEXT else name for name in node.input]
    first_column, first_rows = f"{CONTEXT}_first_column", f"{CONTEXT}_first_rows"
    nodes = [
        onnx.helper.make_node("Gather", [_INPUT_NAME, first_column], [parts[0]], axis=2),  # (B, T)
        onnx.helper.make_node("Gather", [parts[0], first_rows], [parts[1]], axis=1),  # (B, 1)
        onnx.helper.make_node("IsNaN", [parts[1]], [parts[2]]),
        onnx.helper.make_node("Where", [parts[2], CONTEXT, CONTEXT], [whole]),  # (B, C)
    ]
    for index, node in enumerate(nodes):
        node.name = node.output[0]
        graph.node.insert(index, node)
    constants = {first_column: np.int64(0), first_rows: np.zeros(1, np.int64), CONTEXT: np.full((1, width), np.nan, np.float32)}
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items())


def window_rows_of(model: keras.Model) -> int:
    """Return T, the rows of a network's windows."""
    return int(model.inputs[0].shape[1])


def declare(model: Any, contract: Contract, file: str, operators: Mapping[str, int]) -> Declared:
    """Return the declaration of a graph that a version needs.

    Args:
        model: onnx.ModelProto.
        contract: what it must keep.
        file: name of its file.
        operators: number of operators of each type that its encoder expects.

    Raises:
        ExportError: if it is not a valid ONNX model, or does not keep its contract.
    """
    if not operators:
        raise ExportError("the encoder names no operators, so that nothing would prove its fast form; let its `operators` return them")
    graph = Graph.of_model(model)
    declared = graph.declared(contract, file, operators)
    if found := problems(graph, contract, declared) or _invalid(model):  # what lacks an operator is often invalid too: the cause first
        remedy = "if layers became loops or single operators, let the encoder's `plain` take out what keeps tf2onnx from recognising them"
        raise ExportError(f"the exported graph {'; it '.join(found)}; {remedy}")
    return declared


def _invalid(model: Any) -> list[str]:
    """Return why it is not a valid ONNX model, as the rest of a sentence; empty if it is one."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        return [f"is not a valid ONNX model ({str(error).strip().partition(chr(10))[0][:MOST_CHECKER_CHARACTERS]})"]
    return []


def check_parity(
    model: keras.Model, graph: bytes, windows: Floats, declared: Declared = NOTHING, context: Floats | None = None
) -> float:  # fmt: skip
    """Return the largest difference between Keras and ONNX Runtime on `windows` (B, 30, 44), with and without context, and random ones.

    Args:
        context: float32 (B, C), of the windows; None for a network without several horizons.

    Raises:
        ExportError: if it is over PARITY_TOLERANCE, or if the network itself forecasts something that is not a number, which its bounds
            would hide.
    """
    random = np.random.default_rng(0).normal(size=(RANDOM_WINDOWS, *model.inputs[0].shape[1:])).astype(np.float32)
    windows = np.concatenate([random, windows.astype(np.float32)])
    inputs = [windows]
    if context is not None:
        unknown = np.full((RANDOM_WINDOWS, context.shape[1]), np.nan, np.float32)
        context = np.concatenate([unknown, context])
        context[RANDOM_WINDOWS::2] = np.nan
        inputs.append(context)
    try:
        session = core_session(graph, window_rows=window_rows_of(model), declared=declared)
    except DocumentError as error:
        raise ExportError(f"ONNX Runtime refuses the graph: {error}") from error
    exported = _exported(session, windows, context)
    wanted = _listed(called(model, inputs))
    before = [called(unbounded(model), windows)]
    if len(inputs) > 1:
        before.append(called(keras.Model(model.inputs, model.get_layer(BLEND).output), inputs))
    if not all(np.isfinite(each).all() for each in before):
        raise ExportError("the network forecasts something that is not a finite number; its training has diverged")
    missing = ~forecast_targets(model)
    return max(_difference(found, right, missing) for found, right in zip(exported, wanted, strict=True))


def _exported(session: Any, windows: Floats, context: Floats | None) -> list[Floats]:
    names = [OUTPUT_NAME] if context is None else [OUTPUT_NAME, AHEAD]
    parts = [slice(start, start + CHUNK_WINDOWS) for start in range(0, len(windows), CHUNK_WINDOWS)]
    found = [run_outputs(session, windows[part], None if context is None else context[part], names) for part in parts]
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def _listed(found: Any) -> list[Floats]:
    return list(found) if isinstance(found, list | tuple) else [found]


def _difference(exported: Floats, wanted: Floats, missing: Flags) -> float:
    """Return the largest difference of forecasts (B, 4) or (B, H, 4, 4). missing: bool (4,), targets that are not forecast."""
    exported, wanted = (each if each.ndim < 4 else np.moveaxis(each, 2, -1) for each in (exported.copy(), wanted.copy()))
    if not np.isnan(exported[..., missing]).all():
        raise ExportError(f"ONNX Runtime forecasts targets that were never measured in training: {np.flatnonzero(missing).tolist()}")
    exported[..., missing] = wanted[..., missing] = 0.0
    difference = np.abs(exported - wanted) / np.maximum(1.0, np.abs(wanted))
    worst = float(difference.max())
    if not worst <= PARITY_TOLERANCE:  # NaN is over it too
        place = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), difference.shape)
        raise ExportError(
            f"ONNX Runtime and Keras differ by {worst:.3g} (at most {PARITY_TOLERANCE:g}): "
            f"{exported[place]} and {wanted[place]} for target {place[-1]} of window {place[0]}"
        )
    return worst


def save_weights(model: keras.Model, folder: Path) -> Path:
    """Write best_model.keras: the network with its dropout and weights, without the optimiser's state, which no other training needs."""
    bare = keras.Model.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    path = folder / WEIGHTS_NAME
    bare.save(path)
    return path


def load_weights(folder: Path) -> keras.Model:
    """Return the network of best_model.keras in a version's folder. Raises ExportError if it is missing or damaged."""
    path = folder / WEIGHTS_NAME
    try:
        open_plain(path, MOST_WEIGHTS_BYTES).close()
        return keras.models.load_model(path, compile=False, safe_mode=True)  # no code from the file is ever run
    except Exception as error:  # errors of Keras and h5py for a damaged file have no common base
        raise ExportError(f"{path} cannot be loaded ({error}); train a first version without it") from error


def describe(model: keras.Model) -> dict[str, Any]:
    """Return the network's layers and sizes, for the metadata's model_architecture."""
    return {
        "total_parameters": int(model.count_params()),
        "trainable_parameters": int(sum(np.prod(weight.shape) for weight in model.trainable_weights)),
        "input_shape": list(model.inputs[0].shape),
        "output_shape": list(model.outputs[0].shape),
        "layers": [
            {"name": layer.name, "type": layer.__class__.__name__, "parameters": int(layer.count_params())} for layer in model.layers
        ],
    }
