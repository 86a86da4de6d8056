"""Forecast errors as they happen: each forecast was made before its row was read, and persistence is scored on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.telemetry import TARGETS, Doubles, Floats, Partition


@dataclass
class Errors:
    """Sums of absolute errors per target, over rows that have measurement, forecast and persistence."""

    count: Doubles = field(default_factory=lambda: np.zeros(len(TARGETS)))
    model: Doubles = field(default_factory=lambda: np.zeros(len(TARGETS)))
    persistence: Doubles = field(default_factory=lambda: np.zeros(len(TARGETS)))
    scaled: Doubles = field(default_factory=lambda: np.zeros(len(TARGETS)))
    """Of the model, each error divided by the measurement's magnitude on that row: so that slow links count as much as fast ones."""

    def take(self, actual: Floats, forecast: Floats, persistence: Floats) -> None:
        """actual, forecast, persistence: float32 (W, 4), NaN where there is none."""
        error, naive = np.abs(actual - forecast).astype(np.float64), np.abs(actual - persistence).astype(np.float64)
        both = np.isfinite(error) & np.isfinite(naive)
        self.count += both.sum(axis=0)
        self.model += np.where(both, error, 0.0).sum(axis=0)
        self.persistence += np.where(both, naive, 0.0).sum(axis=0)
        self.scaled += np.where(both, error / np.maximum(np.abs(actual), 1e-9), 0.0).sum(axis=0)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a target; MAE in the target's unit, None where it was never measured after a forecast."""
        found = []
        for at, name in enumerate(TARGETS):
            count = int(self.count[at])
            model = self.model[at] / count if count else None
            persistence = self.persistence[at] / count if count else None
            skill = 1.0 - model / persistence if model is not None and persistence else None
            found.append({"target": name, "forecasts": count, "mae": model, "persistence_mae": persistence, "skill": skill})
        return found


class ByPhase:
    """Errors of some links in the phases of a run. Is a pipeline's Listener."""

    def __init__(self, phase_of: Callable[[float], str | None], links: Callable[[str], bool] = lambda _link: True) -> None:
        """phase_of: the phase that a row of some event time belongs to; None: not scored. links: which links count."""
        self.phases: dict[str, Errors] = {}
        self._phase_of, self._links = phase_of, links

    def measured(
        self, _partition: Partition, time_s: Doubles, links: Sequence[str], actual: Floats, forecast: Floats, persistence: Floats
    ) -> None:
        """See daemon.ingest.monitored.Listener."""
        phases = [self._phase_of(at_s) if self._links(link) else None for at_s, link in zip(time_s.tolist(), links, strict=True)]
        for phase in {phase for phase in phases if phase is not None}:
            chosen = np.array([one == phase for one in phases])
            self.phases.setdefault(phase, Errors()).take(actual[chosen], forecast[chosen], persistence[chosen])
