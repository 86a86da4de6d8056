"""Sends subscribers dead letters, incidents, trainings, versions and choices. Each is logged and counted as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from daemon.clock import Clock
from daemon.events.alerts import choice_event, drift_event, model_event, retraining_event, summary
from daemon.events.sinks import Sinks
from daemon.ingest.ingested import RejectedRecord
from daemon.ingest.live_model import Models
from daemon.operator.observer import Observer
from daemon.training.outcomes import Outcome
from daemon.training.publisher import PROBLEMS
from drift.messages import IncidentChange
from model.registry.versions import Registry
from model.version.manifest import IMPORTED, read_manifest
from streams.records.dead_letters import MAX_KEPT_BYTES, dead_letter


@dataclass
class Announced:
    """Record of the announcements, kept over restarts.

    Args:
        announced: the last version.
        choice: number of the last choice of a person.
    """

    announced: str | None = None
    choice: int = 0


class Announcer:
    """Sends events. They are durable before the next checkpoint is (see Sinks.flush)."""

    def __init__(
        self, sinks: Sinks, registry: Registry, observer: Observer, clock: Clock, source: str, memory: Announced | None = None
    ) -> None:  # fmt: skip
        """Start with what was announced before. source: the CloudEvents source of all events."""
        self.memory = memory or Announced()
        self.sinks, self._registry, self._observer, self._clock, self._source = sinks, registry, observer, clock, source
        self._dead_letter_bytes = 0

    def dead_letters(self, rejected: Sequence[RejectedRecord]) -> None:
        """Send refused records to the dead letters, and log the first of each kind."""
        logged: set[tuple[object, str]] = set()
        for record, partition, shift in rejected:
            self.sinks.dead_letters.send(dead_letter(record, partition, self._source, self._clock.wall_s(), shift))
            self._dead_letter_bytes += min(len(record.value or b""), MAX_KEPT_BYTES)
            if (partition, record.kind) not in logged:
                logged.add((partition, record.kind))
                where = {"partition": str(partition), "offset": record.offset - shift, "line": record.line}
                self._observer.emit("record_rejected", kind=record.kind, reason=record.reason, **where)

    def dead_letter_bytes(self) -> int:
        """Return the bytes of refused records since no dead letter was pending."""
        if not self.sinks.dead_letters.pending():
            self._dead_letter_bytes = 0
        return self._dead_letter_bytes

    def incidents(self, changes: Iterable[IncidentChange]) -> None:
        """Send alerts. The journal has to know of them first (see Decisions.before_alerts)."""
        for change in changes:
            self.sinks.alerts.send(drift_event(change, self._source))
            self._observer.alerts.labels(change.kind, change.scope, change.group).inc()
            self._observer.emit(
                f"drift_{change.kind}", scope=change.scope, group=change.group, region=change.region, incident=change.id,
                summary=summary(change), event_time_s=change.time_s,
            )  # fmt: skip

    def trainings(self, outcomes: Iterable[Outcome], now_s: float) -> None:
        """Send the outcomes of trainings that incidents have asked for, and announce published versions. now_s: UTC seconds."""
        for outcome in outcomes:
            for incident in outcome.incidents:
                self.sinks.alerts.send(retraining_event(incident, outcome.answer, outcome.version, self._source, now_s))
            if outcome.answer == "published":
                self.version(outcome.version)

    def version(self, version: str) -> None:
        """Announce a published version, at least once, with an id that follows from the version.

        A version that cannot be read any more is announced at the next start, if it is whole then.
        """
        try:
            manifest = asdict(read_manifest(self._registry.folder(version)))
            live = self._registry.live.named() == version
            self.sinks.models.send(model_event(version, self._source, self._clock.wall_s(), manifest, live))
        except PROBLEMS as error:
            self._observer.emit("publication_failed", version=version, problem=f"it is not announced: {error}")
        else:
            self.memory.announced = version

    def missed(self, models: Models) -> None:
        """Announce a version after a kill between its publication and its announcement; never one that cannot be used."""
        version = models.current()
        if version is not None and version != self.memory.announced and models.predictor(version) is not None:
            self.version(version)

    def follow(self, models: Models) -> None:
        """Switch to the version that a publication, another member or a person has made live, and announce a person's choice."""
        live = models.follow()
        if live is not None and live.version != self.memory.announced and self._is_imported(live.version):
            self.version(live.version)
        choice = models.choice
        if choice is not None and choice.number > self.memory.choice:
            self.memory.choice = choice.number
            self.sinks.models.send(choice_event(choice, self._source))
            self._observer.emit(f"model_{choice.kind}", version=choice.version, number=choice.number)

    def _is_imported(self, version: str) -> bool:
        """Return whether a person has brought the version in: then nobody has announced it yet."""
        try:
            return read_manifest(self._registry.folder(version)).reason == IMPORTED
        except PROBLEMS:
            return False
