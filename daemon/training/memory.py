"""The state of training that survives a restart: rows, failures, and the incidents that ask for a training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from drift.messages import IncidentChange

OF_RESIDUALS: Final = {"cusum", "cusum_spread", "adwin"}
"""Detectors that see forecasts of the next row."""
ASKED_MAX: Final = 1000
"""Most incidents to which the outcome of the next training is reported: the newest."""


@dataclass
class Memory:
    """Part of each checkpoint.

    Args:
        rows: accepted records of this process's state.
        rows_trained: rows at the start of the last training.
        drift_at_rows: rows at which the oldest drift opened that no training has answered; None if there is none.
        ended_s: when the last training ended, UTC seconds; None before the first.
        failed: whether the last training failed.
        asked: incidents that no training has answered, each with the rows at which it asked.
        known: incidents that have asked; each asks once.
    """

    rows: int = 0
    rows_trained: int = 0
    drift_at_rows: int | None = None
    ended_s: float | None = None
    failed: bool = False
    asked: list[list[Any]] = field(default_factory=list)
    known: list[str] = field(default_factory=list)

    def observe(self, change: IncidentChange) -> None:
        """Record an incident. A change of a region or of the fleet asks for a training if it lasts and forecasts of the next row show it.

        One bad link is not evidence about the model, and a fault of the data must not be learnt. A step that the model follows at once does
        not ask. An incident that has recovered, or has become part of the fleet's, before a training began does not ask any more.
        """
        if change.scope == "link" or change.group != "network":
            return
        shows = not change.signals or any(OF_RESIDUALS & set(signal.detectors) for signal in change.signals)  # an older one has none
        if change.kind == "closed" and change.outcome in ("recovered", "fleet"):
            self._forget(change.id)
        elif change.kind != "closed" and shows and change.id not in self.known:
            self.known = [*self.known, change.id][-ASKED_MAX:]
            self.asked = [*self.asked, [change.id, self.rows]][-ASKED_MAX:]
            if self.drift_at_rows is None:
                self.drift_at_rows = self.rows

    def _forget(self, incident: str) -> None:
        """Let an incident ask for nothing any more. Rows that a training has to wait for are not given back."""
        left = [one for one in self.asked if one[0] != incident]
        if len(left) < len(self.asked) and self.drift_at_rows is not None:
            oldest = min((asked_at for _, asked_at in left), default=None)
            self.drift_at_rows = None if oldest is None else max(oldest, self.drift_at_rows)
        self.asked = left

    def trained(self, now_s: float, rows: int, answered: Collection[str]) -> None:
        """Record a training that has ended with a result. Incidents that opened since it started still ask for one.

        Args:
            now_s: UTC seconds.
            rows: rows at its start.
            answered: the incidents that had asked for it.
        """
        self.ended_s, self.failed, self.rows_trained = now_s, False, rows
        self.asked = [[incident, asked_at] for incident, asked_at in self.asked if incident not in answered]
        if self.drift_at_rows is not None and self.drift_at_rows <= rows:
            self.drift_at_rows = min((asked_at for _, asked_at in self.asked), default=None)

    def wait_for_more_rows(self, rows: int) -> None:
        """Require more rows for the next training: the same rows would fail again, and without a cool-down (replay) again and again."""
        self.rows_trained = rows
        if self.drift_at_rows is not None:
            self.drift_at_rows = max(self.drift_at_rows, rows)

    def training_failed(self, now_s: float) -> None:
        """Record a training without a result, or without a published version. now_s: UTC seconds."""
        self.failed, self.ended_s = True, now_s
