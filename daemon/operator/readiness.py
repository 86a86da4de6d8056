"""The daemon's report of each pass to the service manager, the metrics and the log of long states; and when it is ready."""

from __future__ import annotations

from typing import Final

from daemon.operator.facts import Facts
from daemon.operator.gauges import show, status_line
from daemon.operator.health import Health
from daemon.operator.long_states import LongStates, long_states
from daemon.operator.notify import Notifier
from daemon.operator.observer import Observer

GAUGES_S: Final = 1.0
"""Seconds between two updates of the gauges."""


class Readiness:
    """Reports to the service manager, the metrics and the log. Only progress feeds the watchdog (see daemon.operator.health)."""

    def __init__(self, health: Health, notifier: Notifier, observer: Observer) -> None:
        self.health = health
        self._notifier, self._observer = notifier, observer
        self._ready = False
        """True once the daemon was ready."""
        self._reasons: list[str] = []
        """Reasons why it was not ready at the last update; empty if it was ready, or has never been."""
        self._shown_s = -1e9
        self._long_states = LongStates()

    def is_update_due(self, now_s: float) -> bool:
        """Return whether the next report updates the gauges. now_s: monotonic seconds."""
        return now_s - self._shown_s >= GAUGES_S

    def report(self, facts: Facts, *, partitions: int, records: int) -> None:
        """Report one pass.

        Args:
            partitions: number of partitions that are owned.
            records: number of records that the pass has read.
        """
        if self.health.note(facts):
            self._notifier.alive()
        if self.is_update_due(facts.now_s):
            self._shown_s = facts.now_s
            self._update(facts)
        if not self._ready and facts.connected:
            self._ready = True
            self._notifier.ready()
            self._observer.emit("daemon_ready", partitions=partitions, records=records)

    def reloading(self) -> None:
        """Report that a reload begins. READY=1 ends a reload, and also a start: so nothing is sent before the daemon is ready."""
        if self._ready:
            self._notifier.reloading()

    def reloaded(self) -> None:
        """Report that a reload has ended."""
        if self._ready:
            self._notifier.ready()

    def stopping(self, reason: str) -> None:
        """Report that the daemon ends."""
        self._notifier.stopping()
        self._observer.emit("daemon_stopping", reason=reason)

    def _update(self, facts: Facts) -> None:
        show(facts, self._observer)
        not_ready = self.health.not_ready()
        self._notifier.status(status_line(facts, ready=not not_ready))
        for event, fields in long_states(facts, self._long_states):
            self._observer.emit(event, **fields)
        reasons = not_ready if self._ready else []  # before it was ready once, it cannot become not ready
        if bool(reasons) != bool(self._reasons):
            self._observer.emit("daemon_not_ready" if reasons else "daemon_ready_again", reasons=reasons)
        self._reasons = reasons
