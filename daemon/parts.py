"""The parts of one daemon, as daemon.wiring makes them, and their state at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.clock import Clock
from daemon.events.announcer import Announcer
from daemon.events.incidents import Incidents
from daemon.ingest.group import Group
from daemon.ingest.live_model import Models
from daemon.ingest.pressure import Load, Pressure
from daemon.operator.facts import Facts
from daemon.operator.observer import Observer
from daemon.operator.readiness import Readiness
from daemon.state.keeper import Keeper
from daemon.training.cycle import Training
from daemon.training.proving import Proving
from streams.source import Polled, Source


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts that the loop calls in turn. None of them knows the loop."""

    source: Source
    group: Group
    incidents: Incidents
    announcer: Announcer
    keeper: Keeper
    training: Training
    proving: Proving
    models: Models
    pressure: Pressure
    readiness: Readiness
    observer: Observer
    clock: Clock

    @property
    def open_rows(self) -> int:
        """Rows in memory that no segment holds yet."""
        return self.group.open_rows + self.keeper.open_rows

    def load(self) -> Load:
        """Return the amounts of rows and events in memory now."""
        return Load(
            open_rows=self.open_rows,
            pending_events=self.announcer.sinks.pending(),
            dead_letter_bytes=self.announcer.dead_letter_bytes(),
            blocked=self.group.blocked,
            clock_rests=self.group.clock_watch.rests,
        )

    def facts(self, polled: Polled, *, waits: bool) -> Facts:
        """Return the facts at the end of a pass. waits: nothing is to be read."""
        source, group, keeper, training, models = self.source, self.group, self.keeper, self.training, self.models
        regions, live = self.incidents.regions, models.live
        problems = (keeper.problem, *group.problems)
        troubles = (models.problem, group.spread.trouble, *source.troubles(), *self.announcer.sinks.troubles())
        return Facts(
            now_s=self.clock.monotonic_s(),
            ingested=bool(polled.batches) and not group.blocked,
            waits=waits,
            silent_s=polled.silent_s,
            connected=source.healthy(),
            paused=self.pressure.full,
            lag=source.lag(),
            held=source.held(),
            keyless=source.keyless(),
            problems=tuple(problem for problem in problems if problem is not None),
            troubles=tuple(trouble for trouble in troubles if trouble is not None),
            checkpoint_since_s=keeper.began_s if keeper.busy else None,
            publication_since_s=training.publishing_since_s,
            open_rows=self.open_rows,
            event_time_s=group.event_time_s,
            links=group.links,
            monitored_links=group.monitored_links,
            split_links=group.spread.split,
            moved_links=group.spread.moved,
            open_incidents=regions.open_incidents,
            late_samples=regions.late,
            alerts_in_a_week=regions.opened_in_a_week,
            strictness=regions.strictness,
            trust=self.group.trust,
            live_version=live.version if live is not None else None,
            pinned_version=models.pinned,
            running=training.progress(),
            training_busy=training.busy,
            training_waits_for=training.decision.waiting_for,
        )
