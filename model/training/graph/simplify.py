"""Removal of operators that compute only shapes from an exported graph.

At batch 1 an operator that copies eight numbers costs as much as any other, and half of the operators that tf2onnx writes only copy. A part
of the graph that does not look as expected is left as it is.
"""

from __future__ import annotations

from typing import Any, Final

from onnx import numpy_helper

_FIRST_STATES: Final = (5, 6)
"""Inputs of an LSTM operator that hold its first hidden and cell state; without them both are 0."""


def simplify(model: Any) -> None:
    """Simplify an onnx.ModelProto in place. The caller proves afterwards that the graph still computes the same."""
    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "LSTM":
            _drop_zero_states(node, maker, constants)
    for node in list(graph.node):
        if node.op_type == "MatMul":
            _unfold(node, graph, maker, constants)
    _drop_unused(graph)


def _drop_zero_states(lstm: Any, maker: dict[str, Any], constants: dict[str, Any]) -> None:
    """Remove first states that are 0 for every batch: without them the operator assumes 0."""
    for index in _FIRST_STATES:
        if index < len(lstm.input) and _is_zero(lstm.input[index], maker, constants):
            lstm.input[index] = ""
    while lstm.input and not lstm.input[-1]:
        del lstm.input[-1]


def _is_zero(name: str, maker: dict[str, Any], constants: dict[str, Any]) -> bool:
    if name in constants:
        return not numpy_helper.to_array(constants[name]).any()
    return name in maker and maker[name].op_type in ("Unsqueeze", "Expand") and _is_zero(maker[name].input[0], maker, constants)


def _unfold(product: Any, graph: Any, maker: dict[str, Any], constants: dict[str, Any]) -> None:
    """Use a product with a constant matrix as it is, if it is folded to two dimensions before and unfolded after: MatMul applies to the
    last two of any number of dimensions.
    """
    folded, result = maker.get(product.input[0]), product.output[0]
    users = [node for node in graph.node if result in node.input]
    if folded is None or folded.op_type != "Reshape" or len(users) != 1 or users[0].op_type != "Reshape" or users[0].input[0] != result:
        return
    matrix = constants.get(product.input[1])
    if matrix is None or len(matrix.dims) != 2 or any(tensor.name == result for tensor in graph.output):
        return
    if folded.input[1] in constants or users[0].input[1] in constants:
        return  # a shape that is written down is more than folding and unfolding
    product.input[0] = folded.input[0]
    product.output[0] = users[0].output[0]
    graph.node.remove(users[0])


def _drop_unused(graph: Any) -> None:
    wanted = {value.name for value in graph.output}
    while True:
        used = wanted | {name for node in graph.node for name in node.input}
        unused = [node for node in graph.node if not used.intersection(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
