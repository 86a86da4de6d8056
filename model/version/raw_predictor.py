"""Forecasts with a published raw graph: telemetry in, engineering units out, nothing computed outside the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from features.definition import WINDOW_ROWS
from features.telemetry import TARGETS, Doubles, Flags, Floats
from model.version.contract import FORECAST, Declared
from model.version.documents import DocumentError
from model.version.metadata import RawMetadata
from model.version.possible import possible
from model.version.predictor import CHUNK_WINDOWS, NOTHING, PredictorError, raw_session, read_graph
from model.version.raw_windows import RawWindows, Texts, require_shapes


@dataclass(frozen=True, eq=False)
class RawPredictor:
    """The raw graph of one version, ready to forecast.

    int8: the quantised graph. It is run window by window: its activations have one scale over all windows of a run, so that a forecast
    would depend on the other windows.
    """

    version: str
    int8: bool
    window_rows: int
    _session: Any
    measured: Flags | None = None
    """bool (4,), the targets that the version forecasts; None: as the graph returns them."""

    @classmethod
    def load(cls, folder: Path, int8: bool = False) -> RawPredictor:
        """Load the raw graph of the one version in the folder. Raises PredictorError if it is missing, damaged or not a raw graph.

        Its features are inside the graph, so that they need not be those of this release. `Predictor` refuses such a version.
        """
        try:
            metadata = RawMetadata.read(folder)
            declared = metadata.graph("int8" if int8 else "raw")
            loaded = cls.of(read_graph(folder / declared.file), metadata.version, int8, metadata.window_rows, declared)
            return replace(loaded, measured=metadata.measured)
        except (DocumentError, OSError) as error:
            raise PredictorError(folder, str(error)) from error

    @classmethod
    def of(
        cls, graph: bytes, version: str = "", int8: bool = False, window_rows: int = WINDOW_ROWS, declared: Declared = NOTHING
    ) -> RawPredictor:
        """Return a predictor of a graph that is not in a folder yet. Raises DocumentError if it does not keep its contract."""
        return cls(version, int8, window_rows, raw_session(graph, window_rows=window_rows, declared=declared))

    def predict(self, time_s: Doubles, telemetry: Floats, categories: Texts) -> Floats:
        """Forecast the next row of each window.

        A window's forecast has the same bits whatever the other windows of the call are.

        Args:
            time_s: float64 (B, 30), see RawWindows.
            telemetry: float32 (B, 39, 11).
            categories: str objects (B, 30, 6).

        Returns:
            float32 (B, 4), TARGETS in their own units.

        Raises:
            ValueError: if an array has another shape.
        """
        arrays = np.asarray(time_s, np.float64), np.asarray(telemetry, np.float32), np.asarray(categories, object)
        require_shapes(*arrays, self.window_rows)
        windows = RawWindows(*arrays)
        forecasts = np.empty((len(windows), len(TARGETS)), np.float32)
        step = 1 if self.int8 else CHUNK_WINDOWS
        for start in range(0, len(windows), step):
            forecasts[start : start + step] = self._run(windows.take(slice(start, start + step)))
        return forecasts if self.measured is None else possible(forecasts, self.measured)

    def predict_windows(self, windows: RawWindows) -> Floats:
        """Forecast the next row of each window, float32 (B, 4): see `predict`."""
        return self.predict(windows.time_s, windows.telemetry, windows.categories)

    def _run(self, windows: RawWindows) -> Floats:
        """Run the graph. The float graph gets a single window twice: a batch of one uses other code, which differs in the last bit."""
        count = len(windows)
        feed = windows.feed() if self.int8 or count > 1 else windows.joined(windows).feed()
        forecasts: Floats = self._session.run([FORECAST], feed)[0]
        return forecasts[:count]
