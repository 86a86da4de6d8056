"""Strict reading of what a version's metadata declare of its graphs, by the rules that clients/go/declarations.go has as well.

The metadata may come from another machine: every text and list of them is bounded, so that no message about them is large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model.version.contract import BATCH, CONTRACTS, DTYPES, FILE_PATTERN, UNFIXED, Declared, Port, cut

MOST_PORTS: Final = 32
"""Ports of one list beyond the contract's."""
MOST_OPERATORS: Final = 64
"""Types of operators that one graph declares."""
MOST_NAME: Final = 200
"""Characters of the name of a port or an operator."""
MOST_SIZES: Final = 8
"""Axes of a port."""
MOST_COUNT: Final = 2**31 - 1


def read_graphs(document: Any) -> dict[str, Declared]:
    """Return what the `graphs` of metadata declare of each kind of graph. Raises ValueError if it is not what every reader accepts."""
    if not isinstance(document, dict) or document.keys() != CONTRACTS.keys():
        raise ValueError("graphs has to describe core, raw and int8, and nothing else")
    graphs = {kind: read_declared(document[kind], kind) for kind in CONTRACTS}
    kinds: dict[str, str] = {}
    for kind, declared in graphs.items():
        if (other := kinds.setdefault(declared.file, kind)) != kind:
            raise ValueError(f"graphs: {other} and {kind} are of one file, {declared.file!r}")
    return graphs


def read_declared(entry: Any, kind: str) -> Declared:
    """Return what one entry of `graphs` declares. Raises ValueError if it is not such an entry."""
    where = f"graphs.{kind}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not an object")
    file = entry.get("file")
    if not isinstance(file, str) or not FILE_PATTERN.fullmatch(file):
        raise ValueError(f"{where} names {cut(repr(file))}, which is not a file name of a graph")
    operators = entry.get("operators", {})
    if "operators" in entry and not _are_operators(operators):
        raise ValueError(f"{where}: operators has to name 1 to {MOST_OPERATORS} operators, and how many there are of each, 1 at least")
    inputs, outputs = (_ports(entry.get(key, []), f"{where}: {key}") for key in ("inputs", "outputs"))
    contract = CONTRACTS[kind]()
    seen = {port.name for port in (*contract.inputs, *contract.outputs)}
    for port in (*inputs, *outputs):
        if port.name in seen:
            raise ValueError(f"{where} declares the port {cut(repr(port.name))} twice, or it is one that every such graph has")
        seen.add(port.name)
    return Declared(file, operators, inputs, outputs)


def _are_operators(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and 1 <= len(found) <= MOST_OPERATORS
        and all(_is_name(name) and type(count) is int and 1 <= count <= MOST_COUNT for name, count in found.items())
    )


def _ports(found: Any, where: str) -> tuple[Port, ...]:
    if not isinstance(found, list | tuple) or len(found) > MOST_PORTS:
        raise ValueError(f"{where} is not a list of at most {MOST_PORTS} ports")
    return tuple(_port(entry, f"{where}[{index}]") for index, entry in enumerate(found))


def _port(entry: Any, where: str) -> Port:
    name, dtype, shape = (entry.get(key) if isinstance(entry, dict) else None for key in ("name", "dtype", "shape"))
    if isinstance(name, str) and isinstance(dtype, str) and isinstance(shape, list | tuple):
        sizes = tuple(shape)
        if _is_name(name) and dtype in DTYPES and len(sizes) <= MOST_SIZES and all(map(_is_size, sizes)):
            return Port(name, dtype, sizes)
    raise ValueError(f"{where} is not a port: a name, a dtype of {', '.join(DTYPES)}, and a shape of at most {MOST_SIZES} sizes")


def _is_name(found: Any) -> bool:
    return isinstance(found, str) and 1 <= len(found) <= MOST_NAME


def _is_size(found: Any) -> bool:
    return found in (BATCH, UNFIXED) if isinstance(found, str) else type(found) is int and 1 <= found <= MOST_COUNT
