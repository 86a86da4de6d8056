"""Contract of a published graph: the ports that every reader of a version relies on, and a version's declaration of further ones.

Required inputs and outputs are the same for all versions. Further outputs, and inputs with a default value, are accepted if the version's
metadata declare them, so that a reader that does not know them runs the graph as before. Shapes begin with the batch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from features.definition import FEATURES, HISTORY_ROWS, WINDOW_ROWS
from features.telemetry import CATEGORIES, NUMERIC, TARGETS

BATCH: Final = "batch"
FORECAST: Final = "forecast"
CONTEXT: Final = "context"
"""Optional input of a graph of several horizons, float32 (batch, 4 * (3 + H)): what the link remembers, NaN if not known."""
AHEAD: Final = "ahead"
"""Output of such a graph, float32 (batch, H, 4, 4): the forecasts of each horizon and target, in the places below."""
PLACES: Final = 4
LOWER, MEDIAN, UPPER, MEAN = range(PLACES)
"""Places in the last axis of forecasts ahead. The mean is what sums and squared errors want: where loss is mostly 0, its median is 0."""
FORBIDDEN: Final = frozenset({"Loop", "Scan", "If"})
"""Operators to which the export converts layers that it does not recognise: 6.6 times slower, and not quantisable."""
DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets of every ONNX Runtime: ONNX itself, its text look-ups, and the runtime's quantised operators."""
FILE_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.onnx", re.ASCII)
DTYPES: Final = ("float32", "float64", "int64", "string")
"""Types of ports that every reader knows."""
UNFIXED: Final = "?"
"""A size that is not fixed."""
MOST_SHOWN: Final = 80
"""Characters of a foreign text in a message, at most."""
MOST_PROBLEMS: Final = 10
"""Problems that a message names, at most."""
_NAMES: Final = {"float": "float32", "double": "float64"}
"""NumPy's names of ONNX types that have another one there."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph. dtype: "float32", "float64", "int64" or "string". shape: BATCH first; "?" for a variable size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{cut(repr(self.name))} {cut(self.dtype)} ({cut(', '.join(map(str, self.shape)))})"


@dataclass(frozen=True, slots=True)
class Contract:
    """The ports that every graph of a kind has."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def core(window_rows: int = WINDOW_ROWS) -> Contract:
    """Return the contract of core graphs: scaled windows to scaled forecasts."""
    windows = Port("input", "float32", (BATCH, window_rows, len(FEATURES)))
    return Contract((windows,), (Port("output", "float32", (BATCH, len(TARGETS))),))


def raw(window_rows: int = WINDOW_ROWS) -> Contract:
    """Return the contract of raw graphs, float or quantised: telemetry to forecasts in the targets' units. See raw_windows.py."""
    inputs = (
        Port("time_s", "float64", (BATCH, window_rows)),
        Port("telemetry", "float32", (BATCH, HISTORY_ROWS + window_rows, len(NUMERIC))),
        Port("categories", "string", (BATCH, window_rows, len(CATEGORIES))),
    )
    return Contract(inputs, (Port(FORECAST, "float32", (BATCH, len(TARGETS))),))


CORE: Final = core()
RAW: Final = raw()
CONTRACTS: Final = {"core": core, "raw": raw, "int8": raw}
"""Contracts by the kind of a graph, as metadata name it."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A version's declaration of one of its graphs.

    file: its name in the version's folder. operators: least number of operators of each type.
    inputs: those beyond the contract's, each with a default value in the graph. outputs: those beyond the contract's.
    """

    file: str = ""
    operators: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the metadata."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph as far as a contract is concerned.

    inputs: those without a default value. optional: those with one.
    operators: how many of each type; None: not known. domains: sets that the operators are of. external: weights lie in another file.
    """

    inputs: tuple[Port, ...]
    optional: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: Mapping[str, int] | None = None
    domains: frozenset[str] = frozenset()
    external: bool = False

    @classmethod
    def of_session(cls, session: Any) -> Graph:
        """Describe the graph of an ONNX Runtime session, whose operators are not known."""

        def ports(nodes: Iterable[Any]) -> tuple[Port, ...]:
            return tuple(_port(node.name, node.type.removeprefix("tensor(").removesuffix(")"), node.shape) for node in nodes)

        return cls(ports(session.get_inputs()), ports(session.get_overridable_initializers()), ports(session.get_outputs()))

    @classmethod
    def of_model(cls, model: Any) -> Graph:
        """Describe an onnx.ModelProto."""
        from onnx import TensorProto  # here, because ingest needs it only when a version arrives: 0.1 s and 11 MB

        def port(value: Any) -> Port:
            tensor = value.type.tensor_type
            shape = [size.dim_param or size.dim_value for size in tensor.shape.dim]
            return _port(value.name, TensorProto.DataType.Name(tensor.elem_type).lower(), shape)

        graph = model.graph
        nodes = [*graph.node, *(node for function in model.functions for node in function.node)]
        defaults = {tensor.name for tensor in graph.initializer}
        return cls(
            tuple(port(value) for value in graph.input if value.name not in defaults),
            tuple(port(value) for value in graph.input if value.name in defaults),
            tuple(port(value) for value in graph.output),
            Counter(node.op_type for node in nodes),
            frozenset(node.domain for node in nodes),
            any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer),
        )

    def declared(self, contract: Contract, file: str, operators: Mapping[str, int]) -> Declared:
        """Return the declaration of this graph: its ports beyond the contract's."""
        known = {port.name for port in (*contract.inputs, *contract.outputs)}
        inputs, outputs = (tuple(port for port in ports if port.name not in known) for ports in (self.optional, self.outputs))
        return Declared(file, operators, inputs, outputs)


def problems(graph: Graph, contract: Contract | None, declared: Declared) -> list[str]:
    """Return why a graph does not keep its contract, each as the rest of a sentence that begins with the graph's name; empty if it does.

    However wrong it is, there are few of them and they are short.

    Args:
        graph: the graph in the file.
        contract: the ports that it must have; None: a kind that this release does not know, whose ports are not checked.
        declared: the version's declaration of it.
    """
    found = []
    if contract is not None:
        with_default = {port.name for port in declared.inputs}
        found += [f"has the input {port} without a default value" for port in graph.inputs if port.name in with_default]
        found += _port_problems("input", contract.inputs, (port for port in graph.inputs if port.name not in with_default))
        found += _port_problems("optional input", declared.inputs, graph.optional)
        found += _port_problems("output", (*contract.outputs, *declared.outputs), graph.outputs)
    if graph.operators is not None:
        for operator, count in declared.operators.items():
            if (present := graph.operators.get(operator, 0)) < count:
                found.append(f"has {present} {operator} operators instead of {count}")
        if control := sorted(FORBIDDEN.intersection(graph.operators)):
            found.append(f"has the operators {', '.join(control)}, which a published graph never has")
    if unknown := sorted(graph.domains - DOMAINS):
        found.append(f"has operators of the sets {cut(', '.join(map(repr, unknown)))}, which no plain ONNX Runtime has")
    if graph.external:
        found.append("keeps weights outside the file")
    return first(found, "has {} more problems")


def cut(text: str, most: int = MOST_SHOWN) -> str:
    """Return a text for a message, with its middle left out if it is longer than `most`."""
    return text if len(text) <= most else f"{text[: most - 20]}…{text[-19:]}"


def first(problems: list[str], more: str) -> list[str]:
    """Return the first problems, and instead of those over MOST_PROBLEMS how many more there are, in `more`."""
    over = len(problems) - MOST_PROBLEMS
    return problems if over <= 0 else [*problems[:MOST_PROBLEMS], more.format(f"{over:,}")]


def _port_problems(what: str, needed: Iterable[Port], present: Iterable[Port]) -> list[str]:
    wanted, found = ({port.name: port for port in ports} for ports in (needed, present))
    return [
        *(f"lacks the {what} {port}" for name, port in wanted.items() if name not in found),
        *(f"has the {what} {found[name]} instead of {port}" for name, port in wanted.items() if name in found and found[name] != port),
        *(f"has the {what} {port}, which is not declared" for name, port in found.items() if name not in wanted),
    ]


def _port(name: str, dtype: str, shape: Iterable[Any]) -> Port:
    """Return a port. A first size that is not fixed is the batch, whatever its name in the graph."""
    sizes = tuple(size if isinstance(size, int) and size > 0 else BATCH if axis == 0 else UNFIXED for axis, size in enumerate(shape))
    return Port(name, _NAMES.get(dtype, dtype), sizes)
