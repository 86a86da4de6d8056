"""Forecast errors of a running daemon. Each forecast was made before its row was read; persistence is scored on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.telemetry import TARGETS, Doubles, Floats, Partition


@dataclass
class Errors:
    """Sums of absolute errors by target, over rows with a measurement, a forecast and a persistence forecast.

    Args:
        count: float64 (4,), rows.
        model: float64 (4,), sum of the model's errors, in the target's unit.
        persistence: float64 (4,), sum of the errors of persistence.
        scaled: float64 (4,), sum of the model's errors, each divided by the measurement: slow links count as much as fast ones.
    """

    count: Doubles = field(default_factory=lambda: np.zeros(len(TARGETS)))
    model: Doubles = field(default_factory=lambda: np.zeros(len(TARGETS)))
    persistence: Doubles = field(default_factory=lambda: np.zeros(len(TARGETS)))
    scaled: Doubles = field(default_factory=lambda: np.zeros(len(TARGETS)))

    def add(self, actual: Floats, forecast: Floats, persistence: Floats) -> None:
        """Add rows. actual, forecast, persistence: float32 (W, 4), NaN if missing."""
        error, naive = np.abs(actual - forecast).astype(np.float64), np.abs(actual - persistence).astype(np.float64)
        both = np.isfinite(error) & np.isfinite(naive)
        self.count += both.sum(axis=0)
        self.model += np.where(both, error, 0.0).sum(axis=0)
        self.persistence += np.where(both, naive, 0.0).sum(axis=0)
        self.scaled += np.where(both, error / np.maximum(np.abs(actual), 1e-9), 0.0).sum(axis=0)

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict for each target: mean absolute errors in its unit, None if no forecast was followed by a measurement."""
        found = []
        for index, name in enumerate(TARGETS):
            count = int(self.count[index])
            model = self.model[index] / count if count else None
            persistence = self.persistence[index] / count if count else None
            skill = 1.0 - model / persistence if model is not None and persistence else None
            found.append({"target": name, "forecasts": count, "mae": model, "persistence_mae": persistence, "skill": skill})
        return found


class ByPhase:
    """Errors of some links in each phase of a run. A Listener of the daemon's forecasts.

    Args:
        phase_of: returns the phase of a row by its event time in UTC seconds; None: the row is not scored.
        links: whether a link's rows are scored.
    """

    def __init__(self, phase_of: Callable[[float], str | None], links: Callable[[str], bool] = lambda _link: True) -> None:
        self.phases: dict[str, Errors] = {}
        self._phase_of, self._links = phase_of, links

    def measured(
        self, _partition: Partition, time_s: Doubles, links: Sequence[str], actual: Floats, forecast: Floats, persistence: Floats
    ) -> None:
        """See daemon.ingest.monitored.Listener."""
        phases = [self._phase_of(row_s) if self._links(link) else None for row_s, link in zip(time_s.tolist(), links, strict=True)]
        for phase in {phase for phase in phases if phase is not None}:
            chosen = np.array([row_phase == phase for row_phase in phases])
            self.phases.setdefault(phase, Errors()).add(actual[chosen], forecast[chosen], persistence[chosen])
