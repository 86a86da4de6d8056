"""Forecasts with a published version through ONNX Runtime: unscaled windows in, engineering units out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from features.definition import FEATURES, WINDOW_ROWS
from features.memory import CONTEXT_ROWS
from features.telemetry import TARGETS, Floats
from features.vocabulary import Vocabulary
from model.version import contract
from model.version.contract import AHEAD, CONTEXT, PLACES, Declared
from model.version.documents import DocumentError, read_plain
from model.version.metadata import Metadata, OtherFeaturesError
from model.version.possible import possible, possible_ahead, unscaled, unscaled_ahead

CHUNK_WINDOWS: Final = 64
"""Rows of one run of the graph: throughput is flat from here on (measured), and a run takes 0.33 MB for each."""
OUTPUT: Final = contract.CORE.outputs[0].name
NOTHING: Final = Declared()
"""Declaration of a graph that is not in a version yet: only the ports of its contract."""
MOST_GRAPH_BYTES: Final = 256 * 2**20
"""Limit of a graph, bytes: seventy times a core graph. A raw graph with the largest possible vocabulary has a fifth of it."""


class PredictorError(Exception):
    """A version cannot be used for forecasts. The message names the folder, what is wrong and what to do.

    other_features: True if it was trained on features that this release does not compute, so that it cannot be continued either.
    """

    def __init__(self, folder: Path, problem: str, other_features: bool = False) -> None:
        remedy = "check it with `dwcp-learner models verify`, or go back with `dwcp-learner models rollback`"
        super().__init__(f"{folder}: {problem}; {remedy}")
        self.folder, self.other_features = folder, other_features


@dataclass(frozen=True, eq=False)
class Predictor:
    """One version, ready to forecast. It never changes: a new version is another Predictor, put in its place."""

    metadata: Metadata
    _session: Any

    @classmethod
    def load(cls, folder: Path, threads: int = 1, digests: Mapping[str, str] | None = None) -> Predictor:
        """Load metadata and core graph of the one version in the folder.

        Args:
            folder: of the version.
            threads: of one run; two gain nothing over one (measured).
            digests: SHA-256 by file name, of a manifest that was verified, so that only verified files are loaded; None: any content.

        Raises:
            PredictorError: if a file is missing or unreadable, the features are not those that this release computes, or the graph does
                not keep its contract.
        """
        try:
            metadata = Metadata.read(folder, digests)
            if metadata.window_rows != WINDOW_ROWS:
                raise DocumentError(f"{metadata.version} has windows of {metadata.window_rows} rows, this release of {WINDOW_ROWS}")
            declared = metadata.graph("core")
            graph = read_graph(folder / declared.file)
            if digests is not None and hashlib.sha256(graph).hexdigest() != digests.get(declared.file):
                raise DocumentError(f"{declared.file} has changed since it was verified")
            session = core_session(graph, threads, declared=declared)
        except (DocumentError, OSError) as error:
            raise PredictorError(folder, str(error), isinstance(error, OtherFeaturesError)) from error
        return cls(metadata, session)

    @property
    def version(self) -> str:
        return self.metadata.version

    @property
    def vocabulary(self) -> Vocabulary:
        """Codes that this version's windows must be made with."""
        return self.metadata.vocabulary

    @property
    def trained_until_s(self) -> float | None:
        """UTC seconds of the newest row that it was trained on."""
        return self.metadata.trained_until_s

    @property
    def horizons(self) -> tuple[int, ...]:
        """Rows ahead that it forecasts, ascending from 1; empty for a version that forecasts only the next row."""
        return self.metadata.horizons

    def predict(self, windows: Floats, context: Floats | None = None) -> Floats:
        """Forecast the next row of each window.

        A window's forecast has the same bits whatever the other windows of the call are, and however many.

        Args:
            windows: float32 (B, 30, 44), unscaled, NaN if not measured.
            context: float32 (B, 3 + H, 4), what the links remember (see `features.memory`), NaN if not known; None: nothing is.

        Returns:
            float32 (B, 4), TARGETS in engineering units. A target that was never measured in training is NaN; the others are possible:
            not under 0, and no loss over 1.

        Raises:
            ValueError: if the windows or the context have another shape.
        """
        (forecasts,) = self._run(windows, context, (OUTPUT,))
        return possible(unscaled(forecasts, self.metadata.outputs), self.metadata.measured)

    def predict_both(self, windows: Floats, context: Floats | None = None) -> tuple[Floats, Floats]:
        """Return what `predict` and `predict_ahead` return, by one run of the graph; without horizons the latter is (B, 0, 4, 4)."""
        if not self.horizons:
            return self.predict(windows, context), np.zeros((len(windows), 0, len(TARGETS), PLACES), np.float32)
        next_row, ahead = self._run(windows, context, (OUTPUT, AHEAD))
        outputs, measured = self.metadata.outputs, self.metadata.measured
        return possible(unscaled(next_row, outputs), measured), possible_ahead(unscaled_ahead(ahead, outputs), measured)

    def predict_ahead(self, windows: Floats, context: Floats | None = None) -> Floats:
        """Forecast every horizon of each window, with its interval.

        Args:
            windows: as of `predict`.
            context: as of `predict`.

        Returns:
            float32 (B, H, 4, 4), TARGETS in engineering units: lower, median, upper and mean, for each of `horizons`. The median of the
            first horizon is what `predict` returns.

        Raises:
            ValueError: if the version forecasts only the next row, or the windows or the context have another shape.
        """
        if not self.horizons:
            raise ValueError(f"{self.version} forecasts only the next row")
        (forecasts,) = self._run(windows, context, (AHEAD,))
        return possible_ahead(unscaled_ahead(forecasts, self.metadata.outputs), self.metadata.measured)

    def _run(self, windows: Floats, context: Floats | None, outputs: tuple[str, ...]) -> list[Floats]:
        """Return the outputs of the graph for all windows, scaled."""
        if windows.ndim != 3 or windows.shape[1:] != (WINDOW_ROWS, len(FEATURES)):
            raise ValueError(f"windows must be (B, {WINDOW_ROWS}, {len(FEATURES)}), not {windows.shape}")
        wanted = (len(windows), CONTEXT_ROWS + len(self.horizons), len(TARGETS))
        if context is not None and self.horizons and context.shape != wanted:
            raise ValueError(f"context must be {wanted}, not {context.shape}")
        rows = None if context is None or not self.horizons else context.reshape(len(windows), wanted[1] * wanted[2])
        shapes = {OUTPUT: (len(TARGETS),), AHEAD: (len(self.horizons), len(TARGETS), PLACES)}
        found = [[np.zeros((0, *shapes[name]), np.float32) for name in outputs]]  # an LSTM of no windows ends the process
        for start in range(0, len(windows), CHUNK_WINDOWS):
            part = slice(start, start + CHUNK_WINDOWS)
            scaled = self.metadata.inputs.transform(np.asarray(windows[part], np.float32))
            found.append(run_outputs(self._session, scaled, None if rows is None else rows[part], outputs))
        return [np.concatenate(each) for each in zip(*found, strict=True)]


def read_graph(path: Path) -> bytes:
    """Return the bytes of an ONNX file. Raises DocumentError if it is not a regular file, or larger than any published graph."""
    return read_plain(path, MOST_GRAPH_BYTES)


def core_session(graph: bytes, threads: int = 1, window_rows: int = WINDOW_ROWS, declared: Declared = NOTHING) -> Any:
    """Return an ONNX Runtime session of a core graph.

    Args:
        graph: content of the ONNX file.
        threads: of one run.
        window_rows: rows of a window.
        declared: the version's declaration of the graph.

    Raises:
        DocumentError: if it cannot be loaded or does not keep its contract.
    """
    return _session(graph, threads, "core", contract.core(window_rows), declared)


def raw_session(graph: bytes, threads: int = 1, window_rows: int = WINDOW_ROWS, declared: Declared = NOTHING) -> Any:
    """Return the session of a raw graph, float or quantised. Arguments and errors as of `core_session`."""
    return _session(graph, threads, "raw", contract.raw(window_rows), declared)


def _session(graph: bytes, threads: int, kind: str, needed: contract.Contract, declared: Declared) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest run for ever, and is no faster (measured)
    options.log_severity_level = 4  # its errors are raised; on standard error they would appear twice
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a dozen types of its own, with no common base
        raise DocumentError(f"the {kind} graph cannot be loaded ({error})") from error
    if found := contract.problems(contract.Graph.of_session(session), needed, declared):
        raise DocumentError(f"the {kind} graph {'; it '.join(found)}")
    return session


def run_core(session: Any, scaled: Floats) -> Floats:
    """Return float32 (B, 4), scaled: a core graph's forecasts of the next row, without context. See `run_outputs`."""
    return run_outputs(session, scaled, None, (OUTPUT,))[0]


def run_outputs(session: Any, scaled: Floats, context: Floats | None, outputs: Sequence[str]) -> list[Floats]:
    """Run a core graph on at most CHUNK_WINDOWS windows.

    A single window is run twice: for a batch of one the runtime uses another code path, which differs in the last bit.

    Args:
        session: of `core_session`.
        scaled: float32 (B, 30, 44).
        context: float32 (B, C), engineering units, NaN if not known; None: the graph's default, nothing is known.
        outputs: names of outputs.

    Returns:
        Those outputs, scaled: "output" is float32 (B, 4), "ahead" (B, H, 4, 4).
    """
    feed = {"input": scaled} if context is None else {"input": scaled, CONTEXT: context}
    if len(scaled) == 1:
        feed = {name: np.repeat(values, 2, axis=0) for name, values in feed.items()}
    found = session.run(list(outputs), {name: np.ascontiguousarray(values, np.float32) for name, values in feed.items()})
    return [each[: len(scaled)] for each in found]
