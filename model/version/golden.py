"""golden.json: sample inputs and outputs of a version's three graphs, so that any runtime can prove that it computes the same.

    {"tolerance": {"absolute": 1e-4}, "samples": [{"input": [30 rows of 44 numbers], "output": [4 numbers or null]}, ...],
     "raw": {"tolerance": {"absolute": [4 numbers], "relative": r}, "int8_tolerance": {...},
             "samples": [{"name": text, "time_s": [30], "telemetry": [39 rows of 11], "categories": [30 rows of 6],
                          "forecast": [4 numbers or null], "int8": true}, ...]}}

Each sample of a version that forecasts several horizons also has its "context" (numbers or null) and "ahead", horizons of targets of
lower, median, upper and mean.

The first inputs and outputs are scaled, as the core graph reads and returns them. The raw ones are telemetry, null if missing, and
forecasts in the units of the targets. A forecast agrees if its difference is at most absolute + relative * |expected|.
The quantised graph is run window by window, on those with "int8" only. A null output belongs to a target that was never measured in
training: the graph returns NaN for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.definition import FEATURES, WINDOW_ROWS
from features.telemetry import TARGETS, Floats
from model.version.contract import AHEAD, Declared
from model.version.documents import DocumentError, read_document, write_document
from model.version.golden_raw import RawSamples, ahead_of, contexts_of, forecasts_of, nested_nulls, require_forecasts, with_nulls
from model.version.metadata import Metadata
from model.version.predictor import CHUNK_WINDOWS, core_session, read_graph, run_outputs
from model.version.raw_predictor import RawPredictor

GOLDEN_NAME: Final = "golden.json"
TOLERANCE: Final = 1e-4
"""Tolerance of a scaled output: 400 times the difference of tf2onnx's graph to Keras (2.4e-7), a 10,000th of a target's spread."""


@dataclass(frozen=True, eq=False, slots=True)
class CoreSamples:
    """S windows and what the core graph returns for them, scaled.

    inputs: float32 (S, 30, 44); S from 1 to 64. outputs: float32 (S, 4), NaN for a target that is not forecast.
    context: float32 (S, C), in the targets' units, and ahead: float32 (S, H, 4, 4); None for a version that forecasts only the next row.
    """

    inputs: Floats
    outputs: Floats
    context: Floats | None = None
    ahead: Floats | None = None

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "input": window.tolist(),
                "output": with_nulls(self.outputs[index]),
                **({} if self.context is None else {"context": with_nulls(self.context[index])}),
                **({} if self.ahead is None else {"ahead": nested_nulls(self.ahead[index])}),
            }
            for index, window in enumerate(self.inputs)
        ]


def write_golden(folder: Path, core: CoreSamples, raw: RawSamples) -> Path:
    """Write golden.json and return its path.

    Args:
        folder: of the version.
        core: of the network that was exported.
        raw: the raw samples.

    Raises:
        ValueError: if an array has another shape, or a number is not finite otherwise.
    """
    _require(core.inputs, core.outputs, raw.windows.time_s.shape[1])
    path = folder / GOLDEN_NAME
    write_document(path, {"tolerance": {"absolute": TOLERANCE}, "samples": core.to_json(), "raw": raw.to_json()})
    return path


def read_golden(folder: Path, window_rows: int = WINDOW_ROWS, horizons: int = 0) -> tuple[CoreSamples, RawSamples]:
    """Return the samples of golden.json. horizons: how many the version has.

    Raises:
        DocumentError: if it is not as this module describes it.
    """
    document = read_document(folder / GOLDEN_NAME)
    try:
        tolerance, samples = float(document["tolerance"]["absolute"]), document["samples"]
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            inputs = np.array([sample["input"] for sample in samples], np.float32)
            outputs = forecasts_of([sample["output"] for sample in samples])
        _require(inputs, outputs, window_rows)
        core = CoreSamples(inputs, outputs, contexts_of(samples, horizons), ahead_of(samples, horizons))
        raw = RawSamples.from_json(document["raw"], window_rows, horizons)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DocumentError(f"{GOLDEN_NAME} does not hold samples of windows and outputs ({error})") from error
    if not 0 <= tolerance <= TOLERANCE:
        raise DocumentError(f"{GOLDEN_NAME} asks for a tolerance of {tolerance}, at most {TOLERANCE} proves something")
    return core, raw


def check_golden(folder: Path, metadata: Metadata) -> list[str]:
    """Return the problems of the version's three graphs against golden.json; empty if every output is within its tolerance."""
    try:
        core, raw = read_golden(folder, metadata.window_rows, len(metadata.horizons))
        raw.require_strict(metadata.outputs)
        for forecasts in (core.outputs, raw.forecasts, *(np.moveaxis(each, 2, -1) for each in (core.ahead, raw.ahead) if each is not None)):
            require_missing(forecasts, metadata)
    except ValueError as error:
        return [str(error) if isinstance(error, DocumentError) else f"{GOLDEN_NAME}: {error}"]
    checks: Mapping[str, Callable[[bytes, Declared], str | None]] = {
        "core": lambda graph, declared: _core_problem(graph, declared, core),
        "raw": lambda graph, declared: _raw_problem(graph, declared, raw, int8=False),
        "int8": lambda graph, declared: _raw_problem(graph, declared, raw, int8=True),
    }
    problems = [_problem(folder, metadata.graph(kind), check) for kind, check in checks.items()]
    return [problem for problem in problems if problem]


def require_missing(forecasts: Floats, metadata: Metadata) -> None:
    """Raise ValueError if a target that the version forecasts is missing in the forecasts (S, ..., 4)."""
    missing = np.isnan(forecasts).reshape(-1, forecasts.shape[-1]).any(axis=0)
    if (missing & metadata.measured).any():
        names = ", ".join(np.array(TARGETS)[missing & metadata.measured].tolist())
        raise ValueError(f"it has no forecasts of {names}, which the metadata name among those that are forecast")


def _problem(folder: Path, declared: Declared, check: Callable[[bytes, Declared], str | None]) -> str | None:
    try:
        graph = read_graph(folder / declared.file)
    except DocumentError as error:
        return str(error)
    try:
        found = check(graph, declared)
    except Exception as error:  # noqa: BLE001  # the runtime raises a dozen types of its own, with no common base
        return f"{declared.file} cannot be run ({error})"
    return None if found is None else f"{declared.file} differs from {GOLDEN_NAME} in {found}"


def _core_problem(graph: bytes, declared: Declared, core: CoreSamples) -> str | None:
    session = core_session(graph, window_rows=core.inputs.shape[1], declared=declared)
    names = ["output"] if core.ahead is None else ["output", AHEAD]
    found = run_outputs(session, core.inputs, core.context, names)
    expected = [core.outputs] if core.ahead is None else [core.outputs, core.ahead]
    difference = np.zeros(len(core.inputs))
    for one, other in zip(found, expected, strict=True):
        apart = np.where(np.isnan(one) & np.isnan(other), 0.0, np.abs(one - other))
        difference = np.maximum(difference, apart.reshape(len(apart), -1).max(axis=1))
    wrong = np.flatnonzero(~(difference <= TOLERANCE))  # this way round, a NaN is wrong
    if not len(wrong):
        return None
    first = f"first in sample {wrong[0]} by {difference[wrong[0]]:.2g} (tolerance {TOLERANCE})"
    return f"{len(wrong)} of {len(difference)} samples, {first}"


def _raw_problem(graph: bytes, declared: Declared, raw: RawSamples, int8: bool) -> str | None:
    wanted = np.flatnonzero(raw.int8) if int8 else np.arange(len(raw.names))
    forecasts, ahead = np.array(raw.forecasts), None if raw.ahead is None else np.array(raw.ahead)
    predictor = RawPredictor.of(graph, int8=int8, window_rows=raw.windows.time_s.shape[1], declared=declared)
    windows = raw.windows.take(wanted)
    forecasts[wanted] = predictor.predict_windows(windows)
    if ahead is not None:
        ahead[wanted] = predictor.predict_ahead(windows)
    wrong = np.flatnonzero(raw.wrong(forecasts, int8, ahead))
    if not len(wrong):
        return None
    first = f"first in {raw.names[wrong[0]]!r}: {with_nulls(forecasts[wrong[0]])} instead of {with_nulls(raw.forecasts[wrong[0]])}"
    return f"{len(wrong)} of {len(wanted)} raw samples, {first}"


def _require(inputs: Floats, outputs: Floats, window_rows: int) -> None:
    count = len(inputs)
    if not 1 <= count <= CHUNK_WINDOWS or inputs.shape != (count, window_rows, len(FEATURES)) or outputs.shape != (count, len(TARGETS)):
        wanted = f"(S, {window_rows}, {len(FEATURES)}) and (S, {len(TARGETS)}), S from 1 to {CHUNK_WINDOWS}"
        raise ValueError(f"inputs {inputs.shape} and outputs {outputs.shape} instead of {wanted}")
    if not np.isfinite(inputs).all():
        raise ValueError("a number is not finite")
    require_forecasts(outputs)
