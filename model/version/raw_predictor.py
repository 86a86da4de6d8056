"""Forecasts with a published raw graph: telemetry in, engineering units out, nothing computed outside the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from features.definition import WINDOW_ROWS
from features.telemetry import TARGETS, Doubles, Flags, Floats
from model.version.contract import AHEAD, CONTEXT, FORECAST, Declared
from model.version.documents import DocumentError
from model.version.metadata import RawMetadata
from model.version.possible import possible, possible_ahead
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

    @property
    def is_ahead(self) -> bool:
        """Whether the graph forecasts several horizons."""
        return any(output.name == AHEAD for output in self._session.get_outputs())

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

    def predict(self, time_s: Doubles, telemetry: Floats, categories: Texts, context: Floats | None = None) -> Floats:
        """Forecast the next row of each window.

        A window's forecast has the same bits whatever the other windows of the call are.

        Args:
            time_s: float64 (B, 30), see RawWindows.
            telemetry: float32 (B, 39, 11).
            categories: str objects (B, 30, 6).
            context: float32 (B, C), ignored by a graph that reads none; None: nothing is known.

        Returns:
            float32 (B, 4), TARGETS in their own units.

        Raises:
            ValueError: if an array has another shape.
        """
        arrays = np.asarray(time_s, np.float64), np.asarray(telemetry, np.float32), np.asarray(categories, object)
        require_shapes(*arrays, self.window_rows)
        return self.predict_windows(RawWindows(*arrays, None if context is None else np.asarray(context, np.float32)))

    def predict_windows(self, windows: RawWindows) -> Floats:
        """Forecast the next row of each window, float32 (B, 4): see `predict`."""
        forecasts = self._run(windows, FORECAST, (len(TARGETS),))
        return forecasts if self.measured is None else possible(forecasts, self.measured)

    def predict_ahead(self, windows: RawWindows) -> Floats:
        """Forecast every horizon of each window, float32 (B, H, 4, 4): lower, median, upper and mean. Only for a graph that `is_ahead`."""
        shape = next(output.shape[1:] for output in self._session.get_outputs() if output.name == AHEAD)
        forecasts = self._run(windows, AHEAD, tuple(shape))
        return forecasts if self.measured is None else possible_ahead(forecasts, self.measured)

    def _asked(self, windows: RawWindows) -> RawWindows:
        """Return the windows with a context only if the graph reads one. Raise ValueError if it has another width than the graph's."""
        width = next((each.shape[1] for each in self._session.get_overridable_initializers() if each.name == CONTEXT), None)
        if windows.context is None or width is None:
            return replace(windows, context=None)
        if windows.context.shape[1] != width:
            raise ValueError(f"context must be ({len(windows)}, {width}), not {windows.context.shape}")
        return windows

    def _run(self, windows: RawWindows, output: str, shape: tuple[int, ...]) -> Floats:
        """Run the graph. The float graph gets a single window twice: a batch of one uses other code, which differs in the last bit."""
        require_shapes(windows.time_s, windows.telemetry, windows.categories, self.window_rows)
        windows = self._asked(windows)
        forecasts = np.empty((len(windows), *shape), np.float32)
        step = 1 if self.int8 else CHUNK_WINDOWS
        for start in range(0, len(windows), step):
            part = windows.take(slice(start, start + step))
            feed = part.feed() if self.int8 or len(part) > 1 else part.joined(part).feed()
            forecasts[start : start + step] = self._session.run([output], feed)[0][: len(part)]
        return forecasts
