"""The main loop. `step` is the whole story: everything else is what its verbs do.

Poll, decode, features, residuals, drift, forecasts, buffer (these six in `Pipeline.take`), region drift, alerts; then, if due: checkpoint,
training, publication.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from daemon.clock import Clock
from daemon.clock_watch import ClockWatch
from daemon.errors import DaemonError, FencedError
from daemon.events.alerts import choice_event, drift_event, model_event, retraining_event, summary
from daemon.events.sinks import LAST_FLUSH_S, Sinks
from daemon.ingest.group import Partitions
from daemon.ingest.live_model import Models
from daemon.ingest.room import NAMED_MAX
from daemon.operator.facts import Facts
from daemon.operator.gauges import show, status_line
from daemon.operator.health import Health
from daemon.operator.long_states import LongStates, long_states
from daemon.operator.notify import Notifier
from daemon.operator.observer import Observer
from daemon.state.keeper import Checkpointer
from daemon.state.snapshot import Snapshot, Written
from daemon.training.cycle import Training
from drift.messages import IncidentChange
from drift.region.buckets import BUCKET_S
from drift.region.stage import RegionDrift
from features.telemetry import Partition
from model.version.manifest import read_manifest
from streams.records.dead_letters import MAX_KEPT_BYTES, dead_letter
from streams.records.decode import Rejected
from streams.source import Polled, RawBatch, Source, SourceError

POLL_S: Final = 0.25
"""Longest wait for records: how late a signal, a finished training or a due checkpoint is noticed on a quiet stream."""
RETRY_S: Final = 5.0
"""After a checkpoint that failed: a disk does not get free space in less."""
GAUGES_S: Final = 1.0
LAST_CHECKPOINT_S: Final = 3.0
"""When the daemon stops: a disk that hangs may take so long twice (a checkpoint that runs, and the last one) before it is given up."""
PENDING_EVENTS_MAX: Final = 100_000
"""Unacknowledged alerts and dead letters at which the source is paused: memory is bounded, and none is dropped."""
PENDING_BYTES_MAX: Final = 256 << 20
"""Of refused records in dead letters: so much is reached with 500 of half a megabyte, long before the number is."""


@dataclass
class LoopSettings:
    """checkpoint_interval_s: between checkpoints. open_rows_max: unsealed rows at which the source is paused. wait_for_training: the
    stream stands still while a training runs (replay: a month must not pass in a minute of training)."""

    checkpoint_interval_s: float
    open_rows_max: int
    wait_for_training: bool = False


class Loop:
    """Owns the order of things. All its methods but `stop` and `reload_with` run on one thread."""

    def __init__(
        self,
        source: Source,
        sinks: Sinks,
        partitions: Partitions,
        regions: RegionDrift,
        checkpointer: Checkpointer,
        models: Models,
        training: Training,
        observer: Observer,
        notifier: Notifier,
        health: Health,
        clock: Clock,
        clock_watch: ClockWatch,
        settings: LoopSettings,
        name: str,
    ) -> None:
        """name: the CloudEvents source of all events."""
        self.clock_watch = clock_watch
        self.source, self.sinks, self.partitions, self.regions = source, sinks, partitions, regions
        self.checkpointer, self.models, self.training = checkpointer, models, training
        self.observer, self.notifier, self.health = observer, notifier, health
        self.clock, self.settings, self.name = clock, settings, name
        self.problems: dict[str, str] = {}
        """Why the daemon is not ready, by subject."""
        self.on_step: Callable[[Polled], None] | None = None
        """Looks in after every pass: the screens of replay and demo."""
        self.stop_reason: str | None = None
        """Why it ends, or has ended."""
        self._reload: Callable[[], None] | None = None
        self._ended = self._paused = self._full = self._refused = self._ready = False
        self._buried_bytes = 0
        """Of refused records since no dead letter was pending."""
        self._unready: list[str] = []
        self._gauged_s = -1e9
        self._long_states = LongStates()
        self._checkpoint_due_s = time.monotonic() + settings.checkpoint_interval_s

    def run(self) -> None:
        """Until `stop`, or until a finite source has ended and its last training with it. Leaves a checkpoint of all it has taken.

        Raises SourceError where the source can give no more, and leaves all in the same order: what was taken may not come again, and a
        group that is not left keeps its partitions from the next start until the session time-out.
        """
        self.observer.tell("daemon_started", source=type(self.source).__name__)
        if self.models.follow(now=True) is None and self.models.live is None:
            self.observer.tell("model_missing", needs_rows=self.training.config.policy.rows_min)
        self.training.recover()
        self.announce_missed()
        while self.stop_reason is None:
            try:
                self.step()
            except SourceError as error:
                self.finish(str(error))
                raise
        self.finish(self.stop_reason)

    def step(self) -> None:
        """One pass."""
        polled = self.poll()
        self.follow_assignment(polled)
        self.take(polled)
        self.judge_regions()
        self.checkpoint_if_due()
        self.train_if_due()
        self.follow_models()
        self.reload_if_asked()
        self.report_progress(polled)

    def stop(self, reason: str) -> None:
        """Ends the loop after the current pass. Safe to call from a signal handler."""
        self.stop_reason = self.stop_reason or reason

    def reload_with(self, apply: Callable[[], None]) -> None:
        """Calls `apply` at the end of the current pass. Safe to call from a signal handler."""
        self._reload = apply

    def poll(self) -> Polled:
        with self.observer.stage("poll"):
            if self._standing:
                time.sleep(0.02)
                return Polled()
            return self.source.poll(POLL_S)

    @property
    def _standing(self) -> bool:
        """Whether nothing is read: a finite source has ended, or the stream waits for a training."""
        return self._ended or (self.settings.wait_for_training and self.training.busy)

    def follow_assignment(self, polled: Polled) -> None:
        """Partitions come with their state and go with it."""
        if polled.lost:
            self.observer.tell("partition_lost", partitions=sorted(map(str, polled.lost)))
            self.partitions.give_up(polled.lost)
            self.clock_watch.give_up(polled.lost)
        if polled.revoked:
            try:
                self.checkpoint_now()
            except (OSError, FencedError) as error:  # the next owner goes on from the last one that became true
                self.checkpoint_failed(error)
            self.source.release(polled.revoked)
            self.partitions.give_up(polled.revoked)
            self.clock_watch.give_up(polled.revoked)
            self.observer.tell("partition_released", partitions=sorted(map(str, polled.revoked)))
        if polled.assigned:
            self.partitions.take_up(polled.assigned, self.source)
        for partition, offset in polled.passed.items():
            self.partitions.pass_over(partition, offset)

    def take(self, polled: Polled) -> None:
        """Records through their partition's pipeline; what it refuses goes to the dead letters."""
        sought_back: set[Partition] = set()
        self.clock_watch.look(polled, self.source.lag())
        for raw in polled.batches:
            if raw.partition in sought_back:
                continue  # it comes again, after what was not taken before it
            now_s, confirmed = self.clock.latest_record_s(), self.clock.confirmed
            taken = self.partitions.take(raw, now_s, self.regions, confirmed=confirmed)
            self.regions.observe(taken.alarms, taken.seen, taken.late)
            self.bury(raw, taken.rejected)
            self.training.took(taken.rows)
            if taken.refused is not None:
                self._refused = True
                self.checkpoint_failed(taken.refused)
            if taken.refused is not None or taken.waits:
                self.partitions.seek_back(raw, self.source)
                sought_back.add(raw.partition)
            if not taken.waits:
                self.clock_watch.took(raw.partition)
        self.undo_run_away()
        self._ended = self._ended or polled.ended
        self.partitions.notice_idle(reading=self.source.healthy() and not self._paused and not self._standing)
        self.partitions.shed(self.source.lag())

    def undo_run_away(self) -> None:
        """Reports what had come further than time can be, and takes the region stage back with it."""
        for undone in self.partitions.undone():
            self.observer.time_undone.inc()
            self.observer.tell(
                "event_time_undone", partition=str(undone.partition), from_s=undone.from_s, to_s=undone.to_s,
                links=len(undone.links), first_links=list(undone.links[:3]), remedy="see that the clocks of these links are right",
            )  # fmt: skip
        if self.regions.go_back(self.partitions.begun_through_s, self.partitions.limit_s):  # with the last partition that knows better
            self.observer.tell("buckets_undone", closed_through_s=self.regions.closed_through * BUCKET_S)

    def bury(self, raw: RawBatch, rejected: list[Rejected]) -> None:
        for record in rejected:
            self.sinks.dead_letters.send(dead_letter(record, raw.partition, self.name, time.time(), raw.log.shift))
            self._buried_bytes += min(len(record.value or b""), MAX_KEPT_BYTES)
        for kind in {record.kind for record in rejected}:
            first = next(record for record in rejected if record.kind == kind)
            where = {"partition": str(raw.partition), "offset": first.offset - raw.log.shift, "line": first.line}
            self.observer.tell("record_rejected", kind=kind, reason=first.reason, **where)

    def judge_regions(self) -> None:
        """Closes the buckets that every partition has passed, and tells what changed."""
        known = self.regions.forgotten
        with self.observer.stage("regions"):
            changes = self.regions.advance(self.partitions.watermark_s)
        if forgotten := self.regions.forgotten - known:
            self.observer.regions_forgotten.inc(forgotten)
            links = self.regions.forgotten_links
            most, remedy = dict(links.most_common(NAMED_MAX)), "find out why those links send ever new names of regions"
            self.observer.tell("regions_forgotten", regions=forgotten, senders=len(links), most_from=most, remedy=remedy)
        for change in changes:
            self.alert(change)

    def alert(self, change: IncidentChange) -> None:
        try:
            self.partitions.told(self.regions.closed_through)
        except OSError as error:  # better an alert that a kill might repeat in other words than none
            self.checkpoint_failed(error)
        self.sinks.alerts.send(drift_event(change, self.name))
        self.observer.alerts.labels(change.kind, change.scope, change.group).inc()
        self.observer.tell(
            f"drift_{change.kind}", scope=change.scope, group=change.group, region=change.region, incident=change.id,
            summary=summary(change), event_time_s=change.time_s,
        )  # fmt: skip
        self.training.heard(change)

    def checkpoint_if_due(self) -> None:
        """Starts a checkpoint when its time has come or a training waits for it; takes note of one that has become true."""
        try:
            if (written := self.checkpointer.finished()) is not None:
                self.checkpoint_written(written)
        except (OSError, FencedError) as error:
            self.checkpoint_failed(error)
        now_s = time.monotonic()
        wanted = (self.training.wants_checkpoint or self._filling) and "checkpoint" not in self.problems
        if not self.checkpointer.busy and len(self.partitions) and (now_s >= self._checkpoint_due_s or wanted):
            with self.observer.stage("snapshot"):
                self.checkpointer.begin(self.snapshot())
            self._checkpoint_due_s = now_s + self.settings.checkpoint_interval_s
        self.pause_or_resume()

    def checkpoint_now(self) -> None:
        """A checkpoint of everything taken so far, before this returns. Raises what kept it from becoming true."""
        try:
            if (written := self.checkpointer.finished(wait=True)) is not None:
                self.checkpoint_written(written)
        except (OSError, FencedError) as error:
            self.checkpoint_failed(error)  # its rows are back with their writers, and go into the next
        if len(self.partitions) and not self.checkpointer.busy:
            self.checkpointer.begin(self.snapshot())
            written = self.checkpointer.finished(wait=True)
            assert written is not None  # it was begun and awaited
            self.checkpoint_written(written)

    def snapshot(self) -> Snapshot:
        process = {"regions": self.regions.state(), "training": asdict(self.training.memory)}
        generation, event_time_s = self.source.generation(), self.partitions.event_time_s
        return Snapshot(self.partitions.snapshot(), process, generation, time.time(), event_time_s)

    def checkpoint_written(self, written: Written) -> None:
        self.source.commit(written.offsets)
        self.partitions.drop_decisions(written.journal)
        self.problems.pop("checkpoint", None)
        self._refused = False
        self.observer.buffer_rows.set(written.rows)
        self.observer.checkpoint_s.observe(written.seconds)
        self.observer.checkpoint_time.set_to_current_time()
        self.training.start(written, self.clock.now_s(self.partitions.event_time_s))

    def checkpoint_failed(self, error: Exception) -> None:
        remedy = "free space on the disk of the state directory, or mend its permissions; it is tried again"
        if isinstance(error, FencedError):
            remedy = "none: this member was out of its group for a while, and gives up what others have taken as soon as it hears so"
        if isinstance(error, TimeoutError):
            remedy = self.sinks.remedy(error)
        self.problems["checkpoint"] = f"the state cannot be written: {error}; {remedy}"
        self._checkpoint_due_s = time.monotonic() + RETRY_S
        self.observer.tell("checkpoint_failed", problem=str(error), remedy=remedy)

    @property
    def open_rows(self) -> int:
        """Rows in memory that no segment holds yet."""
        return self.partitions.open_rows + self.checkpointer.open_rows

    def pause_or_resume(self) -> None:
        """Back-pressure: what cannot be sealed or sent must not fill the memory."""
        if not self.sinks.dead_letters.pending():
            self._buried_bytes = 0
        full = self.open_rows >= self.settings.open_rows_max or self.sinks.pending() >= PENDING_EVENTS_MAX
        full = full or self._flooded or self._refused
        if full != self._full:
            if full:
                self.observer.tell("source_paused", open_rows=self.open_rows, pending_events=self.sinks.pending())
            else:
                self.observer.tell("source_resumed")
        self._full, pauses = full, full or self.clock_watch.rests
        if pauses and not self._paused:
            self.source.pause()
        elif self._paused and not pauses:
            self.source.resume()
        self._paused = pauses

    @property
    def _flooded(self) -> bool:
        return self._buried_bytes >= PENDING_BYTES_MAX

    @property
    def _filling(self) -> bool:
        """Whether the memory fills up with what a checkpoint writes: dead letters, or half of the open rows that there may be. The other
        half comes while it writes, so that a stream that catches up does not stand still until the next one is due."""
        return self._flooded or 2 * self.open_rows >= self.settings.open_rows_max

    def train_if_due(self) -> None:
        """Decides, starts and follows trainings; a finished stream waits for the last one."""
        now_s = self.clock.now_s(self.partitions.event_time_s)
        self.training.follow(now_s)
        if not self._ended:
            self.training.decide(now_s)
        elif not self.training.busy:
            self.stop("the source has ended")

    def answer(self, incident: str, answer: str, version: str) -> None:
        """Tells what becomes of the training that an incident has asked for."""
        now_s = self.clock.now_s(self.partitions.event_time_s)
        self.sinks.alerts.send(retraining_event(incident, answer, version, self.name, now_s))

    def announce(self, version: str) -> None:
        """Tells subscribers of a published version. At least once, with an id that follows from the version.

        Raises RegistryError, DocumentError where its manifest cannot be read.
        """
        registry = self.models.registry
        manifest = asdict(read_manifest(registry.folder(version)))
        live = registry.live.named() == version
        self.sinks.models.send(model_event(version, self.name, time.time(), manifest, live))
        self.models.follow(now=True)

    def follow_models(self) -> None:
        """Goes over to what publications, other members and persons have made live, and tells what a person has done."""
        live = self.models.follow()
        if live is not None and live.version != self.training.memory.announced and self.models.is_imported(live.version):
            self.training.announce(live.version)
        choice, memory = self.models.choice, self.training.memory
        if choice is not None and choice.number > memory.choice:
            memory.choice = choice.number
            self.sinks.models.send(choice_event(choice, self.name))
            self.observer.tell(f"model_{choice.kind}", version=choice.version, number=choice.number)

    def announce_missed(self) -> None:
        """After a kill between publication and announcement; never of a version that cannot be used."""
        version = self.models.current()
        if version is not None and version != self.training.memory.announced and self.models.predictor(version) is not None:
            self.training.announce(version)

    def reload_if_asked(self) -> None:
        """The service manager hears of it only where it takes the daemon for ready: READY=1 is what ends a reload, and a start too."""
        if self._reload is not None:
            apply, self._reload = self._reload, None
            if self._ready:
                self.notifier.reloading()
            apply()
            if self._ready:
                self.notifier.ready()

    def report_progress(self, polled: Polled) -> None:
        """Only progress feeds the watchdog (see daemon.operator.health)."""
        now_s = time.monotonic()
        if shows := now_s - self._gauged_s >= GAUGES_S:
            self._gauged_s = now_s
            self.sinks.look()
            self.partitions.look_at_spread()
        facts = self.facts(polled)
        if self.health.note(facts):
            self.notifier.alive()
        if self.on_step is not None:
            self.on_step(polled)
        if shows:
            show(facts, self.observer)
            self.notifier.status(status_line(facts, ready=not self.health.not_ready()))
            for event, fields in long_states(facts, self._long_states):
                self.observer.tell(event, **fields)
            self._tell_readiness()
        if not self._ready and self.source.healthy():
            self._ready = True
            self.notifier.ready()
            self.observer.tell("daemon_ready", partitions=len(self.partitions), records=sum(map(len, polled.batches)))

    def facts(self, polled: Polled) -> Facts:
        """Return what is known at the end of a pass."""
        journal, clock = self.partitions.journal_problem, self.clock_watch.problem
        model, split = self.models.problem, self.partitions.spread.trouble
        return Facts(
            now_s=time.monotonic(),
            ingested=bool(polled.batches) and not self._refused,
            waits=self._standing,
            silent_s=polled.silent_s,
            connected=self.source.healthy(),
            paused=self._full,
            lag=self.source.lag(),
            held=self.source.held(),
            keyless=self.source.keyless(),
            problems=(*self.problems.values(), *(problem for problem in (journal, clock) if problem is not None)),
            troubles=(*(trouble for trouble in (model, split) if trouble is not None), *self.source.troubles(), *self.sinks.troubles()),
            checkpoint_since_s=self.checkpointer.began_s if self.checkpointer.busy else None,
            publication_since_s=self.training.publishing_since_s if self.training.publication_s else None,
            open_rows=self.open_rows,
            event_time_s=self.partitions.event_time_s,
            links=self.partitions.links,
            monitored_links=self.partitions.watched_links,
            split_links=self.partitions.spread.split,
            moved_links=self.partitions.spread.moved,
            open_incidents=self.regions.open_incidents,
            late_samples=self.regions.late,
            alerts_in_a_week=self.regions.opened_in_a_week,
            live_version=self.models.live.version if self.models.live is not None else None,
            pinned_version=self.models.pinned,
            running=self.training.progress(),
            training_busy=self.training.busy,
            training_waits_for=self.training.decision.waiting_for,
        )

    def _tell_readiness(self) -> None:
        """When it goes and when it is back; before the first time there is nothing to lose."""
        reasons = self.health.not_ready() if self._ready else []
        if bool(reasons) != bool(self._unready):
            self.observer.tell("daemon_not_ready" if reasons else "daemon_ready_again", reasons=reasons)
        self._unready = reasons

    def finish(self, reason: str) -> None:
        """Leaves everything as it can be taken up again: no training, a checkpoint, closed connections."""
        self.notifier.stopping()
        self.observer.tell("daemon_stopping", reason=reason)
        self.sinks.flush_s = LAST_FLUSH_S
        self.checkpointer.patience_s = LAST_CHECKPOINT_S
        self.training.close()
        if self._ended:  # nothing can come any more that belongs into an open bucket
            for change in self.regions.advance(self.partitions.end_s):
                self.alert(change)
        try:
            self.checkpoint_now()
        except (OSError, DaemonError) as error:
            self.checkpoint_failed(error)
        self.models.close()
        self.sinks.close_with(self.source.close)
        self.checkpointer.close()
        self.observer.tell("daemon_stopped", rows=self.training.memory.rows)
