"""The state of training that survives a restart: rows, failures, and the incidents that ask for a training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from drift.messages import IncidentChange

OF_RESIDUALS: Final = {"cusum", "cusum_spread", "adwin"}
"""Detectors that see forecasts of the next row."""
SETTLED_SHARE: Final = 0.02
"""Share of the monitored links, one at least, whose own new levels together ask for a training. A region has its incidents for that."""
UNPAID_MOST: Final = 4
"""Trainings without a better version in succession after which the wait for the next one grows no more: it is 16 times as long."""
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
        settled: incidents of single links whose new level has lasted, since the start of the last training.
        behind_at_rows: rows at which the live version was found to be worse than what is published; None if it is not.
        proved: the last version whose probation has ended.
        unpaid: trainings for that reason in succession that gave no better version.
    """

    rows: int = 0
    rows_trained: int = 0
    drift_at_rows: int | None = None
    ended_s: float | None = None
    failed: bool = False
    asked: list[list[Any]] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    behind_at_rows: int | None = None
    unpaid: int = 0
    proved: str | None = None

    def observe(self, change: IncidentChange, monitored: int = 1) -> None:
        """Record an incident. A change of a region or of the fleet asks for a training if it lasts and forecasts of the next row show it.

        A fault of the data must not be learnt. A step that the model follows at once does not ask. An incident that has recovered, or has
        become part of the fleet's, before a training began does not ask any more. One bad link is not evidence about the model; incidents
        of single links ask once SETTLED_SHARE of the links have settled at a new level, so that a fleet of one link asks as well.

        Args:
            change: of an incident.
            monitored: number of monitored links.
        """
        if change.group != "network":
            return
        if change.scope == "link":
            if change.kind == "closed" and change.outcome == "settled" and change.id not in (*self.known, *self.settled):
                self.settled = [*self.settled, change.id][-ASKED_MAX:]
                if len(self.settled) >= SETTLED_SHARE * monitored:
                    for incident in self.settled:
                        self._ask(incident)
                    self.settled = []
            return
        shows = not change.signals or any(OF_RESIDUALS & set(signal.detectors) for signal in change.signals)  # an older one has none
        if change.kind == "closed" and change.outcome in ("recovered", "fleet"):
            self._forget(change.id)
        elif change.kind != "closed" and shows and change.id not in self.known:
            self._ask(change.id)

    def observe_behind(self, *, behind: bool) -> bool:
        """Record whether the live version is worse than what is published. Return True if that is new."""
        if not behind:
            self.behind_at_rows = None
        elif self.behind_at_rows is None:
            self.behind_at_rows = self.rows
            return True
        return False

    def _ask(self, incident: str) -> None:
        self.known = [*self.known, incident][-ASKED_MAX:]
        self.asked = [*self.asked, [incident, self.rows]][-ASKED_MAX:]
        if self.drift_at_rows is None:
            self.drift_at_rows = self.rows

    def _forget(self, incident: str) -> None:
        """Let an incident ask for nothing any more. Rows that a training has to wait for are not given back."""
        left = [one for one in self.asked if one[0] != incident]
        if len(left) < len(self.asked) and self.drift_at_rows is not None:
            oldest = min((asked_at for _, asked_at in left), default=None)
            self.drift_at_rows = None if oldest is None else max(oldest, self.drift_at_rows)
        self.asked = left

    def trained(self, now_s: float, rows: int, answered: Collection[str], *, paid: bool) -> None:
        """Record a training that has ended with a result. Incidents that opened since it started still ask for one.

        Args:
            now_s: UTC seconds.
            rows: rows at its start.
            answered: the incidents that had asked for it.
            paid: it gave a version that is better than the live one.
        """
        self.unpaid = 0 if paid else min(self.unpaid + 1, UNPAID_MOST)
        if self.behind_at_rows is not None:
            self.behind_at_rows = max(self.behind_at_rows, rows)
        self.settled = []
        self.ended_s, self.failed, self.rows_trained = now_s, False, rows
        self.asked = [[incident, asked_at] for incident, asked_at in self.asked if incident not in answered]
        if self.drift_at_rows is not None and self.drift_at_rows <= rows:
            self.drift_at_rows = min((asked_at for _, asked_at in self.asked), default=None)

    def withdrawn(self) -> None:
        """Record that a version was worse than the one before: its rows do not come again, and the next training waits longer."""
        self.unpaid = min(self.unpaid + 1, UNPAID_MOST)
        self.behind_at_rows = None
        self.wait_for_more_rows(self.rows)

    def wait_for_more_rows(self, rows: int) -> None:
        """Require more rows for the next training: the same rows would fail again, and without a cool-down (replay) again and again."""
        self.rows_trained = rows
        if self.drift_at_rows is not None:
            self.drift_at_rows = max(self.drift_at_rows, rows)
        if self.behind_at_rows is not None:
            self.behind_at_rows = max(self.behind_at_rows, rows)

    def training_failed(self, now_s: float) -> None:
        """Record a training without a result, or without a published version. now_s: UTC seconds."""
        self.failed, self.ended_s = True, now_s
