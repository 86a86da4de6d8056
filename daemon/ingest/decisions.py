"""Decisions that depend on the clock: live model, load-shedding, idle partitions, time of day. Each is journalled before it applies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from daemon.clock import AGREES_S, Clock
from daemon.ingest import entries
from daemon.ingest.entries import CLOCK_S, Entry, limit_of
from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.ingest.partition import Pipeline
from daemon.operator.observer import Observer
from features.telemetry import Partition


class Decisions:
    """Makes decisions durable, and then lets the partitions that they name apply them at their offsets."""

    def __init__(
        self,
        journal: Journal,
        models: Models,
        observer: Observer,
        clock: Clock,
        *,
        idle_s: float,
        shed_above_lag: int,
        pipelines: Mapping[Partition, Pipeline],
    ) -> None:
        """Decide nothing yet.

        Args:
            idle_s: seconds without new event time after which a partition no longer holds up the others.
            shed_above_lag: records behind the end of the stream above which no forecasts are made.
            pipelines: the owned partitions; the group changes them.
        """
        self.journal = journal
        self._models, self._observer, self._clock, self._monotonic_s = models, observer, clock, clock.monotonic_s
        self._idle_s, self._shed_above_lag, self._pipelines = idle_s, shed_above_lag, pipelines
        self._moved_s: dict[Partition, float] = {}
        """Time at which the event time of each partition last advanced, monotonic seconds."""
        self._shedding = False

    @property
    def limit_s(self) -> float:
        """The latest time that any record may have, UTC seconds; inf if that is not known.

        A partition that came from another member may not have applied this one's last reading of the clock.
        """
        latest_s = max((pipeline.limit_s for pipeline in self._pipelines.values()), default=limit_of(None))
        return latest_s if self.journal.clock_s is None else max(latest_s, limit_of(self.journal.clock_s))

    def adopt(self, pipeline: Pipeline, *, foreign: bool) -> None:
        """Let a partition that comes with its state expect what was decided behind it.

        Args:
            foreign: the state is another member's, and its entry numbers are those of another journal.
        """
        if foreign:
            try:
                pipeline.journal_applied = self.journal.adopted(pipeline.partition, pipeline.next_offset or 0)
            except OSError:  # the checkpoint reports a full disk
                pipeline.journal_applied = self.journal.last
        pipeline.expect(self.journal.ahead(pipeline.partition, pipeline.journal_applied))
        self.moved(pipeline.partition)

    def moved(self, partition: Partition) -> None:
        """Note that the event time of a partition has advanced."""
        self._moved_s[partition] = self._monotonic_s()

    def forget(self, partition: Partition) -> None:
        """Forget a partition that belongs to another member."""
        self._moved_s.pop(partition, None)

    def before_record(self, pipeline: Pipeline, closed_through: int) -> None:
        """Make the decisions that are due before the next record of a partition.

        A model goes live in all partitions at once: one that had to decide for itself after a kill would do so before records that the
        run before has compared with the old model.

        Args:
            closed_through: the last closed bucket of the region stage.

        Raises:
            OSError: a decision cannot be written to the journal, and has no effect.
        """
        here = {str(pipeline.partition): pipeline.decided_through}
        now_s, confirmed, live = self._clock.latest_record_s(), self._clock.confirmed, self._models.live
        if now_s is not None and (pipeline.clock_s is None or _is_due(now_s - pipeline.clock_s, confirmed=confirmed)):
            self._enter(entries.Clock(now_s, _offsets(self._pipelines.values()), confirmed))
        if pipeline.idle:
            self._enter(entries.Resumed(here, max(closed_through, self.journal.alerted_through(pipeline.limit_s))))
        if live is not None and pipeline.monitored.epoch != live.epoch:
            others = (other for other in self._pipelines.values() if other.decided_epoch != live.epoch)
            self._enter(entries.ModelLive(live.epoch, live.version, _offsets(others)))
        if pipeline.monitored.shedding != self._shedding:
            self._enter(entries.Forecasting(not self._shedding, here))

    def before_alerts(self, closed_through: int) -> None:
        """Write to the journal that alerts from buckets up to `closed_through` are about to be sent. Call it before they are (see Alerted).

        Raises:
            OSError: the journal cannot be written.
        """
        if closed_through > self.journal.alerted_through(self.limit_s):
            self._enter(entries.Alerted(_offsets(self._pipelines.values()), closed_through))

    def load_shed(self, lag: int | None) -> None:
        """Stop forecasts while the stream is far behind, and start them again once it has caught up. Features go on."""
        if lag is None:
            return
        if not self._shedding and lag > self._shed_above_lag:
            self._shedding = True
            self._observer.emit("forecasts_shed", lag=lag, above=self._shed_above_lag)
        elif self._shedding and lag < self._shed_above_lag // 10:
            self._shedding = False
            self._observer.emit("forecasts_resumed", lag=lag)

    def notice_idle(self, *, reading: bool) -> None:
        """Let partitions whose event time stands still no longer hold up those that are ahead of them.

        The partition that is furthest ahead holds up nobody. So when the whole stream falls silent, its end still counts.

        Args:
            reading: whether records would have come, had there been any; otherwise silence means nothing.
        """
        now_s = self._monotonic_s()
        if not reading:
            self._moved_s = dict.fromkeys(self._moved_s, now_s)
            return
        furthest = max(self._pipelines.values(), key=lambda pipeline: (pipeline.event_time_s, str(pipeline.partition)), default=None)
        for partition, pipeline in self._pipelines.items():
            waited_s = now_s - self._moved_s[partition]
            if pipeline is not furthest and not pipeline.idle and not pipeline.ahead and waited_s > self._idle_s:
                with suppress(OSError):  # tried again with the next pass; the checkpoint reports a full disk
                    self._enter(entries.Idle({str(partition): pipeline.decided_through}))

    def drop(self, applied: Mapping[str, int]) -> None:
        """Drop journal entries that no state needs, after a checkpoint. applied: see Written.journal."""
        self.journal.drop({str(partition): 0 for partition in self._pipelines} | dict(applied))

    def _enter(self, entry: Entry) -> None:
        """Make an entry durable, then let the partitions that it names apply it at their offsets."""
        number = self.journal.append(entry)
        for partition, pipeline in self._pipelines.items():
            if (offset := entry.offsets.get(str(partition))) is not None:
                pipeline.expect([(offset, number, entry)])


def _offsets(pipelines: Iterable[Pipeline]) -> dict[str, int]:
    return {str(pipeline.partition): pipeline.decided_through for pipeline in pipelines}


def _is_due(passed_s: float, *, confirmed: bool) -> bool:
    """Return whether the clock must be read again, passed_s seconds after the last reading. If the clock is now before that reading, one of
    the two is wrong: the new one counts if it is confirmed."""
    return passed_s >= CLOCK_S or (confirmed and passed_s < -AGREES_S)
