"""golden.json: sample inputs and outputs of a core graph, so that any runtime can prove that it computes the same.

    {"tolerance": {"absolute": 1e-4}, "samples": [{"input": [30 rows of 44 numbers], "output": [4 numbers]}, ...]}

Inputs and outputs are scaled, as the core graph takes and gives them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from features.definition import FEATURES, WINDOW_ROWS
from features.telemetry import TARGETS, Floats
from model.documents import DocumentError, read_document, write_document
from model.predictor import CHUNK_WINDOWS, core_session, run_core

GOLDEN_NAME: Final = "golden.json"
TOLERANCE: Final = 1e-4
"""Of a scaled output: 400 times what tf2onnx's graph differs from Keras (2.4e-7), a 10,000th of a target's spread."""


def write_golden(folder: Path, inputs: Floats, outputs: Floats) -> Path:
    """Writes golden.json. inputs: float32 (S, 30, 44), scaled; outputs: float32 (S, 4), scaled, of the network that was exported.

    Raises ValueError for other shapes, for no samples or too many (1 to 64), or where a number is not finite.
    """
    _require(inputs, outputs)
    samples = [{"input": window.tolist(), "output": output.tolist()} for window, output in zip(inputs, outputs, strict=True)]
    path = folder / GOLDEN_NAME
    write_document(path, {"tolerance": {"absolute": TOLERANCE}, "samples": samples})
    return path


def read_golden(folder: Path) -> tuple[Floats, Floats]:
    """Inputs float32 (S, 30, 44) and outputs float32 (S, 4) of golden.json. Raises DocumentError where it is not as described."""
    document = read_document(folder / GOLDEN_NAME)
    try:
        tolerance = float(document["tolerance"]["absolute"])
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            inputs = np.array([sample["input"] for sample in document["samples"]], np.float32)
            outputs = np.array([sample["output"] for sample in document["samples"]], np.float32)
        _require(inputs, outputs)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DocumentError(f"{GOLDEN_NAME} does not hold samples of windows and outputs ({error})") from error
    if not 0 <= tolerance <= TOLERANCE:
        raise DocumentError(f"{GOLDEN_NAME} asks for a tolerance of {tolerance}, at most {TOLERANCE} proves something")
    return inputs, outputs


def check_golden(folder: Path, core: Path) -> list[str]:
    """Problems of the core graph against golden.json: empty when every output is within TOLERANCE."""
    try:
        inputs, expected = read_golden(folder)
        outputs = run_core(core_session(core.read_bytes()), inputs)
    except (DocumentError, OSError) as error:
        return [str(error)]
    except Exception as error:  # noqa: BLE001  # the runtime raises a dozen types of its own, with no common base
        return [f"{core.name} cannot be run ({error})"]
    difference = np.abs(outputs - expected).max(axis=1)
    wrong = np.flatnonzero(~(difference <= TOLERANCE))  # this way round, a NaN is wrong
    if not len(wrong):
        return []
    return [
        f"{core.name} differs from {GOLDEN_NAME} in {len(wrong)} of {len(expected)} samples, first in sample {wrong[0]} by "
        f"{difference[wrong[0]]:.2g} (tolerance {TOLERANCE})"
    ]


def _require(inputs: Floats, outputs: Floats) -> None:
    count = len(inputs)
    if not 1 <= count <= CHUNK_WINDOWS or inputs.shape != (count, WINDOW_ROWS, len(FEATURES)) or outputs.shape != (count, len(TARGETS)):
        wanted = f"(S, {WINDOW_ROWS}, {len(FEATURES)}) and (S, {len(TARGETS)}), S from 1 to {CHUNK_WINDOWS}"
        raise ValueError(f"inputs {inputs.shape} and outputs {outputs.shape} instead of {wanted}")
    if not np.isfinite(inputs).all() or not np.isfinite(outputs).all():
        raise ValueError("a number is not finite")
