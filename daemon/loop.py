"""The main loop. `step` is one pass: records become rows, rows become incidents, and checkpoints, trainings and versions follow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from daemon.errors import DaemonError
from daemon.events.sinks import LAST_FLUSH_S
from daemon.parts import Parts
from daemon.state.snapshot import Snapshot, Written
from daemon.training.outcomes import Outcome
from drift.messages import IncidentChange
from streams.source import Polled, SourceError

POLL_S: Final = 0.25
"""Longest wait for records, seconds: how late a signal, a finished training or a due checkpoint is noticed on a quiet stream."""
STANDING_S: Final = 0.02
"""Seconds between two passes while nothing is to be read."""
LAST_CHECKPOINT_S: Final = 3.0
"""Longest wait for a hanging disk when the daemon stops, seconds. It applies twice: to a running checkpoint, and to the last one."""


class Loop:
    """Owns the order of effects. All its methods but `stop` and `reload_with` run on one thread."""

    def __init__(self, parts: Parts, *, wait_for_training: bool = False) -> None:
        """Put the parts in their order.

        Args:
            wait_for_training: the stream stands still while a training runs. In a replay a month must not pass in a minute of training.
        """
        self._parts, self._source, self._group, self._incidents = parts, parts.source, parts.group, parts.incidents
        self._announcer, self._keeper, self._training, self._models = parts.announcer, parts.keeper, parts.training, parts.models
        self._pressure, self._readiness, self._observer = parts.pressure, parts.readiness, parts.observer
        self.wait_for_training = wait_for_training
        self.on_step: Callable[[Polled], None] | None = None
        """Called after every pass: the screens of replay and demo."""
        self.stop_reason: str | None = None
        """Reason why the loop ends, or has ended."""
        self._reload: Callable[[], None] | None = None
        self._ended = False
        """True once a finite source has ended."""

    def run(self) -> None:
        """Run until `stop`, or until a finite source and its last training have ended. Then write a checkpoint of all ingested records.

        Raises:
            SourceError: the source cannot return more. Even then the last checkpoint is written and the group is left: ingested records may
                not come again, and a group that is not left holds its partitions until the session time-out.
        """
        self._observer.emit("daemon_started", source=type(self._source).__name__)
        if self._models.follow(now=True) is None and self._models.live is None:
            self._observer.emit("model_missing", needs_rows=self._training.config.policy.rows_min)
        self._training.recover()
        self._announcer.missed(self._models)
        while self.stop_reason is None:
            try:
                self.step()
            except SourceError as error:
                self.finish(str(error))
                raise
        self.finish(self.stop_reason)

    def step(self) -> None:
        """Make one pass. Alerts are in the journal before they are sent. Events are durable before the checkpoint of their records."""
        polled = self._poll()
        self._follow_assignment(polled)  # partitions come with their state and leave with it
        ingested = self._group.ingest(polled, self._incidents.regions.closed_through, reading=self._reading)
        if ingested.blocked is not None:
            self._keeper.failed(ingested.blocked)
        self._announcer.dead_letters(ingested.rejected)
        changes = self._incidents.advance(ingested, self._group)
        self._announce_incidents(changes)
        self._training.observe(ingested.rows, changes, self._group.monitored_links, self._group.behind)
        wanted = self._training.wants_checkpoint or self._pressure.fills(self._parts.load())
        written = self._keeper.step(self._snapshot, wanted=wanted)
        if written is not None:
            self._group.checkpointed(written)
        self._pressure.apply(self._parts.load())
        self._announce(self._training.step(self._group.now_s, written, decides=not self._ended))
        self._parts.proving.follow(self._group.proof, self._group.now_s)
        if self._ended and not self._training.busy:
            self.stop("the source has ended")
        self._announcer.follow(self._models)
        self._reload_if_asked()
        self._report(polled)

    def stop(self, reason: str) -> None:
        """End the loop after the current pass. Safe to call from a signal handler."""
        self.stop_reason = self.stop_reason or reason

    def reload_with(self, apply: Callable[[], None]) -> None:
        """Call `apply` at the end of the current pass. Safe to call from a signal handler."""
        self._reload = apply

    def checkpoint_now(self) -> list[Written]:
        """Write a checkpoint of everything ingested so far, and wait for it. A failure is reported.

        Returns:
            The one that was being written, and the new one; a training may start on either.
        """
        found = [self._keeper.finish(wait=True)]  # if it has failed, its rows go into the next
        if not self._keeper.busy:
            self._keeper.begin(self._snapshot())
            found.append(self._keeper.finish(wait=True))
        written = [checkpoint for checkpoint in found if checkpoint is not None]
        for checkpoint in written:
            self._group.checkpointed(checkpoint)
        return written

    def finish(self, reason: str) -> None:
        """Stop so that a next start can resume: end the training, write a checkpoint, close the connections."""
        self._readiness.stopping(reason)
        self._announcer.sinks.flush_s = LAST_FLUSH_S
        self._keeper.patience_s = LAST_CHECKPOINT_S
        self._announce(self._training.close())
        if self._ended:  # no record can come any more that belongs to an open bucket
            changes = self._incidents.end(self._group)
            self._announce_incidents(changes)
            self._training.observe(0, changes)
        try:
            self.checkpoint_now()
        except DaemonError as error:
            self._keeper.failed(error)
        self._models.close()
        self._announcer.sinks.close_with(self._source.close)
        self._keeper.close()
        self._observer.emit("daemon_stopped", rows=self._training.memory.rows)

    def _poll(self) -> Polled:
        with self._observer.stage("poll"):
            if self._standing:
                time.sleep(STANDING_S)
                return Polled()
            polled = self._source.poll(POLL_S)
        self._ended = polled.ended
        return polled

    @property
    def _standing(self) -> bool:
        """True if nothing is read: a finite source has ended, or the stream waits for a training."""
        return self._ended or (self.wait_for_training and self._training.busy)

    @property
    def _reading(self) -> bool:
        return not self._pressure.paused and not self._standing

    def _follow_assignment(self, polled: Polled) -> None:
        if polled.lost:
            self._group.drop(polled.lost)
            self._observer.emit("partition_lost", partitions=sorted(map(str, polled.lost)))
        if polled.revoked:
            for written in self.checkpoint_now():  # if it fails, the next owner goes on from the last one that was written
                self._announce(self._training.start(written, self._group.now_s))
            self._group.release(polled.revoked)
            self._observer.emit("partition_released", partitions=sorted(map(str, polled.revoked)))
        if polled.assigned:
            self._group.adopt(polled.assigned)
        for partition, offset in polled.passed.items():
            self._group.pass_over(partition, offset)

    def _announce_incidents(self, changes: list[IncidentChange]) -> None:
        if changes:
            try:
                self._group.decisions.before_alerts(self._incidents.regions.closed_through)
            except OSError as error:  # an alert that a kill might repeat in other words is better than none
                self._keeper.failed(error)
        self._announcer.incidents(changes)

    def _announce(self, outcomes: list[Outcome]) -> None:
        self._announcer.trainings(outcomes, self._group.now_s)
        if any(outcome.answer == "published" for outcome in outcomes):
            self._models.follow(now=True)

    def _snapshot(self) -> Snapshot | None:
        """Return the state that a checkpoint writes; None if no partition is owned."""
        if not len(self._group):
            return None
        memory = asdict(self._training.memory) | asdict(self._announcer.memory)
        process = {"regions": self._incidents.regions.state(), "training": memory}
        now_s, event_time_s = self._parts.clock.wall_s(), self._group.event_time_s
        return Snapshot(self._group.snapshot(), process, self._source.generation(), now_s, event_time_s)

    def _reload_if_asked(self) -> None:
        if self._reload is not None:
            apply, self._reload = self._reload, None
            self._readiness.reloading()
            apply()
            self._readiness.reloaded()

    def _report(self, polled: Polled) -> None:
        if self._readiness.is_update_due(self._parts.clock.monotonic_s()):
            self._announcer.sinks.look()
            self._group.report_spread()
            self._group.report_trust()
        if self.on_step is not None:
            self.on_step(polled)
        facts = self._parts.facts(polled, waits=self._standing)
        self._readiness.report(facts, partitions=len(self._group), records=sum(map(len, polled.batches)))
