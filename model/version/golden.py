"""golden.json: sample inputs and outputs of a version's three graphs, so that any runtime can prove that it computes the same.

    {"tolerance": {"absolute": 1e-4}, "samples": [{"input": [30 rows of 44 numbers], "output": [4 numbers or null]}, ...],
     "raw": {"tolerance": {"absolute": [4 numbers], "relative": r}, "int8_tolerance": {...},
             "samples": [{"name": text, "time_s": [30], "telemetry": [39 rows of 11], "categories": [30 rows of 6],
                          "forecast": [4 numbers or null], "int8": true}, ...]}}

The first inputs and outputs are scaled, as the core graph reads and returns them. The raw ones are telemetry, null if missing, and
forecasts in the units of the targets. A forecast agrees if its difference is at most absolute + relative * |expected|.
The quantised graph is run window by window, on those with "int8" only. A null output belongs to a target that was never measured in
training: the graph returns NaN for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from features.definition import FEATURES, WINDOW_ROWS
from features.telemetry import TARGETS, Floats
from model.version.contract import Declared
from model.version.documents import DocumentError, read_document, write_document
from model.version.golden_raw import RawSamples, forecasts_of, require_forecasts, with_nulls
from model.version.metadata import Metadata
from model.version.predictor import CHUNK_WINDOWS, core_session, read_graph, run_core
from model.version.raw_predictor import RawPredictor

GOLDEN_NAME: Final = "golden.json"
TOLERANCE: Final = 1e-4
"""Tolerance of a scaled output: 400 times the difference of tf2onnx's graph to Keras (2.4e-7), a 10,000th of a target's spread."""


def write_golden(folder: Path, inputs: Floats, outputs: Floats, raw: RawSamples) -> Path:
    """Write golden.json and return its path.

    Args:
        folder: of the version.
        inputs: float32 (S, 30, 44), scaled; S from 1 to 64.
        outputs: float32 (S, 4), scaled, of the network that was exported; a target that it does not forecast is NaN in every output.
        raw: the raw samples.

    Raises:
        ValueError: if an array has another shape, or a number is not finite otherwise.
    """
    _require(inputs, outputs, raw.windows.time_s.shape[1])
    samples = [{"input": window.tolist(), "output": with_nulls(output)} for window, output in zip(inputs, outputs, strict=True)]
    path = folder / GOLDEN_NAME
    write_document(path, {"tolerance": {"absolute": TOLERANCE}, "samples": samples, "raw": raw.to_json()})
    return path


def read_golden(folder: Path, window_rows: int = WINDOW_ROWS) -> tuple[Floats, Floats, RawSamples]:
    """Return inputs float32 (S, 30, 44), outputs float32 (S, 4) and raw samples of golden.json.

    Raises:
        DocumentError: if it is not as this module describes it.
    """
    document = read_document(folder / GOLDEN_NAME)
    try:
        tolerance = float(document["tolerance"]["absolute"])
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            inputs = np.array([sample["input"] for sample in document["samples"]], np.float32)
            outputs = forecasts_of([sample["output"] for sample in document["samples"]])
        _require(inputs, outputs, window_rows)
        raw = RawSamples.from_json(document["raw"], window_rows)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DocumentError(f"{GOLDEN_NAME} does not hold samples of windows and outputs ({error})") from error
    if not 0 <= tolerance <= TOLERANCE:
        raise DocumentError(f"{GOLDEN_NAME} asks for a tolerance of {tolerance}, at most {TOLERANCE} proves something")
    return inputs, outputs, raw


def check_golden(folder: Path, metadata: Metadata) -> list[str]:
    """Return the problems of the version's three graphs against golden.json; empty if every output is within its tolerance."""
    try:
        inputs, expected, raw = read_golden(folder, metadata.window_rows)
        raw.require_strict(metadata.outputs)
        for forecasts in (expected, raw.forecasts):
            require_missing(forecasts, metadata)
    except ValueError as error:
        return [str(error) if isinstance(error, DocumentError) else f"{GOLDEN_NAME}: {error}"]
    checks: Mapping[str, Callable[[bytes, Declared], str | None]] = {
        "core": lambda graph, declared: _core_problem(graph, declared, inputs, expected),
        "raw": lambda graph, declared: _raw_problem(graph, declared, raw, int8=False),
        "int8": lambda graph, declared: _raw_problem(graph, declared, raw, int8=True),
    }
    problems = [_problem(folder, metadata.graph(kind), check) for kind, check in checks.items()]
    return [problem for problem in problems if problem]


def require_missing(forecasts: Floats, metadata: Metadata) -> None:
    """Raise ValueError if a target that the version forecasts is missing in the forecasts (S, 4)."""
    missing = np.isnan(forecasts).any(axis=0)
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


def _core_problem(graph: bytes, declared: Declared, inputs: Floats, expected: Floats) -> str | None:
    found = run_core(core_session(graph, window_rows=inputs.shape[1], declared=declared), inputs)
    difference = np.where(np.isnan(found) & np.isnan(expected), 0.0, np.abs(found - expected)).max(axis=1)
    wrong = np.flatnonzero(~(difference <= TOLERANCE))  # this way round, a NaN is wrong
    if not len(wrong):
        return None
    first = f"first in sample {wrong[0]} by {difference[wrong[0]]:.2g} (tolerance {TOLERANCE})"
    return f"{len(wrong)} of {len(expected)} samples, {first}"


def _raw_problem(graph: bytes, declared: Declared, raw: RawSamples, int8: bool) -> str | None:
    wanted = np.flatnonzero(raw.int8) if int8 else np.arange(len(raw.names))
    forecasts = np.array(raw.forecasts)
    predictor = RawPredictor.of(graph, int8=int8, window_rows=raw.windows.time_s.shape[1], declared=declared)
    forecasts[wanted] = predictor.predict_windows(raw.windows.take(wanted))
    wrong = np.flatnonzero(raw.wrong(forecasts, int8))
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
