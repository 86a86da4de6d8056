"""Forecast errors of a running daemon, or why there are none.

Each forecast was made before its row was read; persistence is scored on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daemon.ingest.ahead import Listener, Made
from features.definition import SHORT_ROWS
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
        """See daemon.ingest.ahead.Listener."""
        phases = [self._phase_of(row_s) if self._links(link) else None for row_s, link in zip(time_s.tolist(), links, strict=True)]
        for phase in {phase for phase in phases if phase is not None}:
            chosen = np.array([row_phase == phase for row_phase in phases])
            self.phases.setdefault(phase, Errors()).add(actual[chosen], forecast[chosen], persistence[chosen])

    def forecast(self, made: Made) -> None:
        """See daemon.ingest.ahead.Listener. What becomes of forecasts further ahead is counted by the daemon itself."""


@dataclass(frozen=True)
class Listeners:
    """Several listeners of the daemon's forecasts, in the place of one."""

    all: Sequence[Listener]

    def measured(
        self, partition: Partition, time_s: Doubles, links: Sequence[str], actual: Floats, forecast: Floats, persistence: Floats
    ) -> None:
        """See daemon.ingest.ahead.Listener."""
        for each in self.all:
            each.measured(partition, time_s, links, actual, forecast, persistence)

    def forecast(self, made: Made) -> None:
        """See daemon.ingest.ahead.Listener."""
        for each in self.all:
            each.forecast(made)


@dataclass(frozen=True)
class Found:
    """Facts about a replay that judged nothing.

    Args:
        consumed: records read.
        accepted: records that became rows.
        links: links with rows.
        longest_run: most rows without a gap that any link had at the end.
        merged: the file was read as one series.
        trains: versions may be trained.
        rows: rows in the training buffer.
        rows_min: rows that the first version needs.
        version: the live version at the end.
        published: versions of this replay.
        failed: problems of trainings that failed.
        refused: reasons for which candidates were refused.
        unusable: why the live version makes no forecasts.
    """

    consumed: int
    accepted: int
    links: int
    longest_run: int
    merged: bool
    trains: bool
    rows: int
    rows_min: int
    version: str | None
    published: tuple[str, ...]
    failed: tuple[str, ...]
    refused: tuple[str, ...]
    unusable: str | None


def why_nothing(found: Found) -> list[str]:
    """Return the reasons, each with what to do, the most basic one first."""
    if not found.accepted:
        return [f"none of the {found.consumed:,} records was accepted" + ("; see why they were rejected" if found.consumed else "")]
    return [*_links(found), *(_version(found) if found.version is None else _forecasts(found))]


def _links(found: Found) -> list[str]:
    if found.longest_run > SHORT_ROWS:
        return []
    many = not found.merged and found.links > 1
    links = f"each of the {found.links:,} links has" if many else "the one series has" if found.merged else "the one link has"
    todo = "; --merged reads the file as one series" if many else ""
    needed = f"a forecast needs {SHORT_ROWS} rows of its link without a gap, and one more to be judged on"
    return [f"{links} at most {_rows(found.longest_run)} without a gap in the end, and {needed}{todo}"]


def _version(found: Found) -> list[str]:
    if not found.trains:
        return ["there is no version to forecast with, and --no-train trains none: leave it out, or --keep a folder with a version"]
    if found.failed or found.refused:
        reasons = dict.fromkeys((*found.failed, *found.refused))  # a retry fails for the same reason
        return [f"there is no version: its training gave none: {reason}" for reason in reasons]
    if found.rows < found.rows_min:
        return [f"there is no version: the first is trained on {_rows(found.rows_min)} (training.rows_min), and there were {found.rows:,}"]
    return ["there is no version: the recording ended before a training could start; a longer one is needed"]


def _forecasts(found: Found) -> list[str]:
    if found.unusable is not None:
        return [found.unusable]
    if found.version in found.published:
        return [
            f"version {found.version} was live only after the last rows that it could have been judged on; a longer recording is needed"
        ]
    return [f"no forecast of version {found.version} met a row of its link that measures throughput, delay, loss or jitter"]


def _rows(count: int) -> str:
    return f"{count:,} row" + ("" if count == 1 else "s")
