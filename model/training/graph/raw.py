"""The raw graph: telemetry as it comes in, forecasts in engineering units out. Features, codes and scaling are ONNX operators in front
of the core graph, and the units behind it; nothing here trains, and nothing needs TensorFlow.

Everything before the core is kept as (B, column, row), so that columns are joined by copying whole blocks. What `features/kernels.py`
computes in float64 is float64 here too: sums over ten rows of which one is 1e30, or a deviation of nearly equal values, are wrong in
float32. Shapes in the comments: B windows, 39 rows of history and window, 30 of the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from features.calendar import DAY_S, FIRST_WEEKDAY, HOUR_S, WEEK_DAYS
from features.columns import LARGEST, first_of
from features.definition import CHANGES, CYCLES, ENCODED, FEATURES, HISTORY_ROWS, MEAN_ROWS, SMALLEST_RTT_MS, STEMS
from features.telemetry import CALENDAR, CATEGORIES, NUMERIC, TARGETS
from features.vocabulary import Vocabulary
from model.version import contract
from model.version.contract import AHEAD, FORECAST
from model.version.metadata import Metadata
from model.version.possible import LOWEST, lowest_scaled

ML_DOMAIN: Final = "ai.onnx.ml"
ML_OPSET: Final = 2
_TYPES: Final = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT, "string": TensorProto.STRING}
_PREFIX: Final = "raw/"
_CORE_INPUT: Final = contract.CORE.inputs[0].name
_CORE_OUTPUT: Final = contract.CORE.outputs[0].name
_LONGEST: Final = max(MEAN_ROWS)
_METRICS: Final = len(TARGETS)
_COLUMN: Final = {name: at for at, name in enumerate(NUMERIC)}
_CALENDAR: Final = first_of(CALENDAR, NUMERIC)
_SUMS: Final = (
    (("bytes_tx", 1.0), ("bytes_tx", 0.0), ("bytes_tx", 0.0)),
    (("bytes_tx", 1.0), ("bytes_rx", 1.0), ("bytes_rx", 0.0)),
    (("bytes_rx", 1.0), ("bytes_rx", 0.0), ("bytes_rx", 0.0)),
    (("throughput_mbps", 1e6), ("throughput_mbps", 0.0), ("throughput_mbps", 0.0)),
    (("packet_loss", 0.4), ("queue_depth", 0.3 / 100.0), ("retransmits", 0.3 / 100.0)),
)
"""bytes_tx, bytes_total, bytes_rx, throughput in bit/s and congestion_score as weighted sums of three columns."""
_INSTANT_S: Final = 2.0**-30
"""Seconds: less than the resolution of float64 in a UTC time of this century."""
_STATISTICS: Final = (*(f"mean_{rows}" for rows in MEAN_ROWS), "", "", f"std_{_LONGEST}", "change", "ratio")
_JOINED: Final = (
    *(name if name in FEATURES and name not in CALENDAR else "" for name in NUMERIC),
    *CALENDAR, *CYCLES,
    "", "bytes_total", "congestion_score", "bytes_ratio", "network_load",
    *(f"{stem}_{name}" for stem in STEMS for name in _STATISTICS),
    *ENCODED,
)  # fmt: skip
"""Columns from which the features are selected, in the order in which they are joined."""


def compose(core: Any, metadata: Metadata) -> Any:
    """Return the raw graph around a core graph as a new onnx.ModelProto; `core` is left as it is.

    Further outputs of the core, and inputs with a default value, are those of the raw graph too.

    Args:
        core: onnx.ModelProto, float or quantised.
        metadata: scalers, vocabulary and version of the core.

    Raises:
        ValueError: if the core lacks "input" or "output", or already has names that begin like the ones given here.
    """
    model = onnx.ModelProto()
    model.CopyFrom(core)
    graph, of_core, of_raw = model.graph, contract.core(metadata.window_rows), contract.raw(metadata.window_rows)
    inputs, outputs = ({value.name: value for value in values} for values in (graph.input, graph.output))
    if not (inputs.keys() >= {_CORE_INPUT} and outputs.keys() >= {_CORE_OUTPUT}):
        raise ValueError(f"the core graph does not go from {_CORE_INPUT!r} to {_CORE_OUTPUT!r}")
    if any(name.startswith(_PREFIX) for node in graph.node for name in (*node.input, *node.output)):
        raise ValueError(f"the core graph has names that begin with {_PREFIX!r}, as those of the feature graph do")
    before = _Nodes(metadata.window_rows)
    _scale(before, _features(before, metadata.vocabulary), metadata)
    after = _Nodes(metadata.window_rows, first_constant=len(before.constants))
    _unscale(after, _CORE_OUTPUT, FORECAST, metadata, (len(TARGETS),))
    if AHEAD in outputs:
        _rename(graph, AHEAD, scaled := f"{_PREFIX}ahead_of_core")
        _unscale(after, scaled, AHEAD, metadata, (len(TARGETS), 1))
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    of_core_alone = {port.name for port in (*of_core.inputs, *of_core.outputs)}
    for values, ports, others in ((graph.input, of_raw.inputs, inputs), (graph.output, of_raw.outputs, outputs)):
        values.extend(helper.make_tensor_value_info(port.name, _TYPES[port.dtype], port.shape) for port in ports)
        values.extend(value for name, value in others.items() if name not in of_core_alone)
    _import_operators(model)
    helper.set_model_props(model, {"version": metadata.version})
    return model


def _unscale(nodes: _Nodes, scaled: str, name: str, metadata: Metadata, shape: tuple[int, ...]) -> None:
    """Put a forecast in the targets' units under a name: see `model.version.possible.unscaled`. shape: in which targets broadcast."""
    scale, mean, lowest = (part.reshape(shape) for part in (metadata.outputs.scale, metadata.outputs.mean, lowest_scaled(metadata.outputs)))
    apart = nodes.put("Mul", [scaled, nodes.floats(scale)], f"{name}_scaled")
    whole = nodes.put("Add", [apart, nodes.floats(mean)], f"{name}_open")
    held = nodes.put("LessOrEqual", [scaled, nodes.floats(lowest)], f"{name}_held")
    nodes.put("Where", [held, nodes.floats(LOWEST), whole], name, whole_name=True)


def _rename(graph: Any, name: str, other: str) -> None:
    """Rename a tensor in all nodes of a graph."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, found in enumerate(names):
                if found == name:
                    names[index] = other


def _import_operators(model: Any) -> None:
    """Import each operator set once, the newest that any part named: quantised graphs name some twice, and ONNX Runtime refuses that."""
    versions = {ML_DOMAIN: ML_OPSET}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        versions[domain] = max(entry.version, versions.get(domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))


@dataclass
class _Nodes:
    """Operators and constants under names of their own; each `put` returns the name of its result."""

    window_rows: int
    first_constant: int = 0
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def put(self, operator: str, inputs: Sequence[str], name: str, *, whole_name: bool = False, **attributes: Any) -> str:
        output = name if whole_name else f"{_PREFIX}{name}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{_PREFIX}{name}", **attributes))
        return output

    def constant(self, values: NDArray[Any]) -> str:
        name = f"{_PREFIX}constant_{self.first_constant + len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def floats(self, values: Any) -> str:
        return self.constant(np.asarray(values, np.float32))

    def doubles(self, values: Any) -> str:
        return self.constant(np.asarray(values, np.float64))

    def longs(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def rows(self, table: str, first: int, after: int, axis: int, name: str) -> str:
        """Return a part of a tensor along one axis."""
        return self.put("Slice", [table, self.longs(first), self.longs(after), self.longs(axis)], name)

    def split(self, table: str, sizes: Sequence[int], axis: int, name: str) -> list[str]:
        outputs = [f"{_PREFIX}{name}_{index}" for index in range(len(sizes))]
        self.nodes.append(helper.make_node("Split", [table, self.longs(*sizes)], outputs, name=f"{_PREFIX}{name}", axis=axis))
        return outputs

    def filled(self, values: str, instead: str, name: str) -> str:
        """Return the values, with `instead` where they are NaN."""
        return self.put("Where", [self.put("IsNaN", [values], f"{name}_missing"), instead, values], name)


def _features(nodes: _Nodes, vocabulary: Vocabulary) -> str:
    """Return (B, 44, 30) float32: FEATURES of the window's rows, NaN if not known."""
    columns = nodes.put("Transpose", ["telemetry"], "columns", perm=[0, 2, 1])  # (B, 11, 39)
    columns = nodes.put("Cast", [columns], "columns_double", to=TensorProto.DOUBLE)
    window = nodes.rows(columns, HISTORY_ROWS, HISTORY_ROWS + nodes.window_rows, 2, "window")  # (B, 11, 30)
    calendar = _calendar(nodes, window)
    loads = _loads(nodes, window)
    parts = [window, calendar, _cycles(nodes, calendar), *loads, _rolling(nodes, columns), _codes(nodes, vocabulary)]
    joined = nodes.put("Concat", parts, "joined", axis=1)
    floats = nodes.put("Cast", [joined], "joined_float", to=TensorProto.FLOAT)
    return nodes.put("Gather", [floats, nodes.longs(*(_JOINED.index(name) for name in FEATURES))], "features", axis=1)


def _calendar(nodes: _Nodes, window: str) -> str:
    """Return (B, 2, 30): hour and weekday as in `features/calendar.py`, computed from the time if they are missing.

    Remainders are exact. The remainder of the second division is cut off: from the weekday the time of day, from the hour nothing. In the
    last instant of a day the hour may round up to 24; the daemon's is 2e-6 below. Another operator would cost more than that is worth.
    """
    time_s = nodes.put("Unsqueeze", ["time_s", nodes.longs(1)], "time")  # (B, 1, 30)
    since_s = nodes.put("Add", [time_s, nodes.doubles([[0.0], [FIRST_WEEKDAY * DAY_S]])], "time_since_monday")
    within_s = nodes.put("Mod", [since_s, nodes.doubles([[DAY_S], [WEEK_DAYS * DAY_S]])], "time_in_day_and_week", fmod=1)
    rest_s = nodes.put("Mod", [within_s, nodes.doubles([[_INSTANT_S], [DAY_S]])], "time_left_out", fmod=1)
    whole_s = nodes.put("Sub", [within_s, rest_s], "time_counted")
    derived = nodes.put("Div", [whole_s, nodes.doubles([[HOUR_S], [DAY_S]])], "calendar_derived")
    given = nodes.rows(window, _CALENDAR, _CALENDAR + len(CALENDAR), 1, "calendar_given")
    return nodes.filled(given, derived, "calendar")


def _cycles(nodes: _Nodes, calendar: str) -> str:
    """Return (B, 4, 30): sine and cosine of the hour, then of the weekday; the cosine is the sine a quarter turn later."""
    hour, weekday, quarter = 2.0 * math.pi / 24.0, 2.0 * math.pi / WEEK_DAYS, math.pi / 2.0
    turns = nodes.doubles([[hour, 0.0], [hour, 0.0], [0.0, weekday], [0.0, weekday]])
    angles = nodes.put("MatMul", [turns, calendar], "angles")
    return nodes.put("Sin", [nodes.put("Add", [angles, nodes.doubles([[0.0], [quarter], [0.0], [quarter]])], "phases")], "cycles")


def _loads(nodes: _Nodes, window: str) -> list[str]:
    """Return bytes_tx and bytes_total (B, 2, 30), congestion_score (B, 1, 30), then bytes_ratio and network_load (B, 2, 30).

    Each is a weighted sum of three columns, or the ratio of two such sums. Columns with weight 0 are there only for the shape.
    """
    columns = nodes.constant(np.array([[_COLUMN[name] for name, _ in terms] for terms in _SUMS], np.int64))
    weights = nodes.doubles([[[weight] for _, weight in terms] for terms in _SUMS])
    terms = nodes.put("Mul", [nodes.put("Gather", [window, columns], "terms", axis=1), weights], "terms_weighted")  # (B, 5, 3, 30)
    sums = nodes.put("ReduceSum", [terms, nodes.longs(2)], "sums_of_terms", keepdims=0)
    sums = nodes.put("Add", [sums, nodes.doubles([[0.0], [0.0], [1.0], [1.0], [0.0]])], "sums_shifted")
    above, below, score = nodes.split(sums, (2, 2, 1), 1, "loads")
    return [above, score, nodes.put("Div", [above, below], "load_ratios")]


def _rolling(nodes: _Nodes, columns: str) -> str:
    """Return (B, 4 * 8, 30): for each metric the statistics of _STATISTICS, over the rows with a value."""
    metrics = nodes.rows(columns, 0, _METRICS, 1, "metrics")  # (B, 4, 39)
    reach = nodes.constant(np.arange(nodes.window_rows)[None, :] + np.arange(_LONGEST)[:, None])
    runs = nodes.put("Gather", [metrics, reach], "runs", axis=2)  # (B, 4, 10, 30), oldest first
    missing = nodes.put("IsNaN", [runs], "runs_missing")
    zero = nodes.doubles(0.0)
    lengths = nodes.doubles([[float(back < length) for back in reversed(range(_LONGEST))] for length in MEAN_ROWS])
    sums = nodes.put("MatMul", [lengths, nodes.put("Where", [missing, zero, runs], "runs_or_0")], "sums")  # (B, 4, 3, 30)
    counts = nodes.put("MatMul", [lengths, nodes.put("Where", [missing, zero, nodes.doubles(1.0)], "runs_measured")], "counts")
    means = nodes.put("Div", [sums, counts], "means")  # 0 / 0 is NaN: nothing was measured
    apart = nodes.put("Sub", [runs, nodes.rows(means, len(MEAN_ROWS) - 1, len(MEAN_ROWS), 2, "longest_mean")], "apart")
    length = nodes.put("ReduceL2", [nodes.put("Where", [missing, zero, apart], "apart_or_0")], "apart_length", axes=[2], keepdims=1)
    deviations = nodes.put("Div", [length, nodes.put("Sqrt", [counts], "roots_of_counts")], "deviations")  # the last of three is one
    now = nodes.rows(runs, _LONGEST - 1, _LONGEST, 2, "now")
    change = nodes.put("Sub", [now, nodes.rows(runs, _LONGEST - 2, _LONGEST - 1, 2, "before")], "change")
    most = nodes.put("Where", [missing, nodes.doubles(LARGEST), runs], "runs_or_most")
    least = nodes.put("ReduceMin", [most], "least", axes=[2], keepdims=1)
    ratio = nodes.put("Div", [now, nodes.put("Max", [least, nodes.doubles(SMALLEST_RTT_MS)], "least_over_0")], "ratio_to_least")
    joined = nodes.put("Concat", [means, deviations, change, ratio], "statistics_by_metric", axis=2)  # (B, 4, 8, 30)
    return nodes.put("Reshape", [joined, nodes.longs(0, _METRICS * len(_STATISTICS), nodes.window_rows)], "statistics")


def _codes(nodes: _Nodes, vocabulary: Vocabulary) -> str:
    """Return (B, 6, 30): codes of the categories, 0 for a value that is not in the vocabulary, NaN for the empty one.

    One look-up serves all six: each different text has a number, and a table has the code of that number in each category.
    """
    code_of = [{value: code for code, value in enumerate(values, start=1)} for values in vocabulary.values]
    texts = sorted({value for values in vocabulary.values for value in values if value})
    table = np.zeros((len(CATEGORIES), 2 + len(texts)))  # other, missing, then the texts
    table[:, 1] = np.nan
    for row, known in zip(table, code_of, strict=True):
        row[2:] = [known.get(text, 0) for text in texts]
    number = nodes.put(
        "LabelEncoder", ["categories"], "texts", domain=ML_DOMAIN,
        keys_strings=["", *texts], values_int64s=list(range(1, 2 + len(texts))), default_int64=0,
    )  # fmt: skip
    place = nodes.put("Add", [number, nodes.longs(*(table.shape[1] * index for index in range(len(CATEGORIES))))], "text_places")
    codes = nodes.put("Gather", [nodes.doubles(table.ravel()), place], "codes_by_row", axis=0)  # (B, 30, 6)
    return nodes.put("Transpose", [codes], "codes", perm=[0, 2, 1])


def _scale(nodes: _Nodes, features: str, metadata: Metadata) -> None:
    """Put the core's input, (B, 30, 44) float32: scaled, 0 where a feature is not known or not finite.

    A change against a missing value is 0 before it is scaled. Here the scaled value of that 0 is used instead.
    """
    mean, scale = metadata.inputs.mean[:, None], metadata.inputs.scale[:, None]
    changes = np.array([[name in CHANGES] for name in FEATURES])
    instead = np.where(changes, (np.float32(0) - mean) / scale, np.float32(0))
    apart = nodes.put("Sub", [features, nodes.floats(mean)], "features_apart")
    scaled = nodes.put("Div", [apart, nodes.floats(scale)], "features_unbounded")
    finite = nodes.put("LessOrEqual", [nodes.put("Abs", [scaled], "features_size"), nodes.floats(LARGEST)], "features_finite")
    known = nodes.put("Where", [finite, scaled, nodes.floats(instead)], "features_scaled")
    nodes.put("Transpose", [known], _CORE_INPUT, whole_name=True, perm=[0, 2, 1])
