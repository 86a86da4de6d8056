"""The partitions that this process owns: they come with their state, follow the live model, and go with their state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from daemon.clock import AGREES_S
from daemon.clock_watch import ClockWatch
from daemon.ingest.entries import CLOCK_S, Alerted, Clock, Entry, Forecasting, Idle, ModelLive, Resumed, limit_of
from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.ingest.monitored import Listener
from daemon.ingest.partition import Holds, Pipeline, PipelineSettings, Taken, Undone, part_of
from daemon.ingest.spread import LinkSpread
from daemon.operator.observer import Observer
from daemon.state.checkpoint import CheckpointStore
from daemon.state.snapshot import PartState
from drift.region.stage import RegionDrift
from features.telemetry import Partition
from model.buffer.rows import BufferWriter
from streams.source import ONLY_LOG, RawBatch, Source


class Partitions:
    """Owned partitions by name, with what the clock decides for each of them: live model, shedding, idleness."""

    def __init__(
        self,
        settings: PipelineSettings,
        store: CheckpointStore,
        journal: Journal,
        models: Models,
        observer: Observer,
        *,
        idle_s: float,
        shed_above_lag: int,
        listener: Listener | None = None,
        clock: Callable[[], float] = time.monotonic,
        clock_watch: ClockWatch | None = None,
    ) -> None:
        """clock_watch: says which records wait for this machine's clock; None: none does."""
        self._clock_watch = clock_watch
        self._settings, self._store, self._journal, self._models, self._observer = settings, store, journal, models, observer
        self._idle_s, self._shed_above_lag, self._listener, self._clock = idle_s, shed_above_lag, listener, clock
        self._pipelines: dict[Partition, Pipeline] = {}
        self._moved_s: dict[Partition, float] = {}
        """When the event time of each partition last moved, by the clock."""
        self._shedding = False
        self.spread = LinkSpread(settings.link_key, observer.tell)
        """Links that come in more than one partition."""
        self._passed_over: set[Partition] = set()
        """Partitions of which it was told that they do not begin at their first record."""

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(self._pipelines.values())

    def __len__(self) -> int:
        return len(self._pipelines)

    @property
    def journal_problem(self) -> str | None:
        """Why decisions of the clock cannot be written down; None while they can."""
        return self._journal.problem

    @property
    def watermark_s(self) -> float:
        """The least event time over the partitions, UTC seconds; -inf where there are none, or one has not begun."""
        return min((pipeline.watermark_s for pipeline in self._pipelines.values()), default=-math.inf)

    @property
    def begun_through_s(self) -> float:
        """The same of those partitions that have begun; inf where none has."""
        begun = (pipeline.watermark_s for pipeline in self._pipelines.values() if pipeline.watermark_s > -math.inf)
        return min(begun, default=math.inf)

    @property
    def event_time_s(self) -> float:
        """The newest event time of any partition; -inf before the first record."""
        return max((pipeline.event_time_s for pipeline in self._pipelines.values()), default=-math.inf)

    @property
    def end_s(self) -> float:
        """The same if no record comes any more."""
        return max((pipeline.end_s for pipeline in self._pipelines.values()), default=-math.inf)

    @property
    def limit_s(self) -> float:
        """The latest time that any record may have; inf if that is not known. A partition that came from another member may not have heard
        of the last reading of this one."""
        latest_s = max((pipeline.limit_s for pipeline in self._pipelines.values()), default=math.inf)
        return latest_s if self._journal.clock_s is None else max(latest_s, limit_of(self._journal.clock_s))

    @property
    def rows(self) -> int:
        return sum(pipeline.rows for pipeline in self._pipelines.values())

    @property
    def open_rows(self) -> int:
        return sum(pipeline.open_rows for pipeline in self._pipelines.values())

    @property
    def links(self) -> int:
        return sum(pipeline.links for pipeline in self._pipelines.values())

    @property
    def longest_run(self) -> int:
        """Most rows of any link since its last gap."""
        return max((pipeline.longest_run for pipeline in self._pipelines.values()), default=0)

    @property
    def watched_links(self) -> int:
        return sum(pipeline.watched_links for pipeline in self._pipelines.values())

    def take_up(self, partitions: Iterable[Partition], source: Source) -> None:
        """Restores the state of partitions that were assigned, and seeks to where it ends."""
        for partition in sorted(partitions, key=str):
            writer = BufferWriter(self._store.buffer, partition)
            pipeline = Pipeline(partition, self._settings, writer, self._models.predictor, self._observer, self._listener)
            if (restored := self._store.restore(partition)) is not None:
                pipeline.restore(restored)
                if restored.member != self._store.member:  # its numbers count in another journal
                    pipeline.journal_taken = self._taken_up(partition, pipeline.next_offset or 0)
            pipeline.expect(self._journal.ahead(partition, pipeline.journal_taken))
            self._pipelines[partition] = pipeline
            self._moved_s[partition] = self._clock()
            self.spread.restored(pipeline, self)
            source.seek(partition, pipeline.next_offset, pipeline.log)
            self._observer.tell("partition_assigned", partition=str(partition), offset=pipeline.next_offset, links=pipeline.links)

    def pass_over(self, partition: Partition, offset: int) -> None:
        """A partition goes on at a later offset than its state ends at: another member's state has the records between."""
        if (pipeline := self._pipelines.get(partition)) is not None:
            pipeline.pass_over(offset)

    def give_up(self, partitions: Collection[Partition]) -> None:
        """Drops the state of partitions that belong to another member."""
        self.spread.gone(partitions)
        for partition in partitions:
            self._pipelines.pop(partition, None)
            self._moved_s.pop(partition, None)
            self._store.drop(partition)

    def undone(self) -> list[Undone]:
        """What was undone since the last call, because it had come further than time can be."""
        found = [undone for pipeline in self for undone in pipeline.undone]
        for pipeline in self:
            pipeline.undone = []
        return found

    def take(self, raw: RawBatch, now_s: float | None, regions: RegionDrift, *, confirmed: bool = False) -> Taken:
        """Hands records to their partition, each after what the clock has decided for it. now_s: UTC seconds; None: timestamps are not
        checked against the time. confirmed: whether a second reference agrees with now_s.

        Where the journal cannot be written, the rest is not taken: Taken.refused says why, and the caller seeks back.
        """
        pipeline = self._pipelines[raw.partition]
        if pipeline.next_offset is None and raw.offsets[0] > 0 and raw.partition not in self._passed_over:
            self._passed_over.add(raw.partition)
            self._observer.tell("records_passed_over", partition=str(raw.partition), before=int(raw.offsets[0]))
        before = (pipeline.event_time_s, pipeline.idle)
        taken = Taken([], [], [])
        begin = 0
        while begin < len(raw):
            pipeline.catch_up(raw.offsets[begin])
            holds: Holds | None = None
            if not pipeline.catching_up:
                try:
                    self._decide(pipeline, now_s, regions, confirmed=confirmed)
                except OSError as error:
                    taken.refused = error
                    return taken
                if now_s is not None and self._clock_watch is not None:
                    holds = partial(self._clock_watch.holds, raw.partition)
            end = pipeline.undisturbed(raw.offsets, begin)
            taken.add(pipeline.take(part_of(raw, begin, end), holds))
            if taken.waits:
                break
            pipeline.catch_up(pipeline.next_offset or 0)  # it may count as idle from here on, and no record may come for long
            begin = end
        self.spread.arrived(pipeline, self)
        if (pipeline.event_time_s, pipeline.idle) != before:
            self._moved_s[raw.partition] = self._clock()
        return taken

    def look_at_spread(self) -> None:
        """Reports links that come in several partitions, or have moved to another one: once a second is enough."""
        self.spread.look(self._pipelines)

    def seek_back(self, raw: RawBatch, source: Source) -> None:
        """To the next record that was not taken: the first of the batch, if none of the partition ever was."""
        pipeline = self._pipelines[raw.partition]
        if pipeline.next_offset is not None:
            source.seek(raw.partition, pipeline.next_offset, pipeline.log)
        else:
            source.seek(raw.partition, raw.offsets[0], replace(raw.log, leader_epoch=ONLY_LOG.leader_epoch))

    def told(self, closed_through: int) -> None:
        """To be called before an alert is told (see journal.Told). Raises OSError."""
        if closed_through > self._journal.alerted_through(self.limit_s):
            self._enter(Alerted({str(pipeline.partition): pipeline.decided_through for pipeline in self}, closed_through))

    def shed(self, lag: int | None) -> None:
        """Stops forecasts while the stream is far behind, and starts them again once it has caught up; features go on."""
        if lag is None:
            return
        if not self._shedding and lag > self._shed_above_lag:
            self._shedding = True
            self._observer.tell("forecasts_shed", lag=lag, above=self._shed_above_lag)
        elif self._shedding and lag < self._shed_above_lag // 10:
            self._shedding = False
            self._observer.tell("forecasts_resumed", lag=lag)

    def notice_idle(self, reading: bool) -> None:
        """Partitions whose event time stands still no longer hold up those that are ahead of them: nothing comes, or nothing but refused
        records. The one that is furthest ahead holds up nobody, so when the whole stream falls silent, its end is still judged.

        reading: whether records would have come, had there been any; while that is not so, silence tells nothing.
        """
        now_s = self._clock()
        if not reading:
            self._moved_s = dict.fromkeys(self._moved_s, now_s)
            return
        furthest = max(self._pipelines.values(), key=lambda pipeline: (pipeline.event_time_s, str(pipeline.partition)), default=None)
        for partition, pipeline in self._pipelines.items():
            waited_s = now_s - self._moved_s[partition]
            if pipeline is not furthest and not pipeline.idle and not pipeline.catching_up and waited_s > self._idle_s:
                with suppress(OSError):  # tried again with the next pass; a disk that is full is told by the checkpoint
                    self._enter(Idle({str(partition): pipeline.decided_through}))

    def drop_decisions(self, taken: Mapping[str, int]) -> None:
        """After a checkpoint: lets go of journal entries that no state needs. taken: see Written.journal."""
        self._journal.drop({str(pipeline.partition): 0 for pipeline in self} | dict(taken))

    def snapshot(self) -> tuple[PartState, ...]:
        """The state of all partitions as it is now; their open rows go with it."""
        return tuple(pipeline.snapshot() for pipeline in self._pipelines.values())

    def _taken_up(self, partition: Partition, offset: int) -> int:
        try:
            return self._journal.adopted(partition, offset)
        except OSError:  # a disk that is full is told by the checkpoint
            return self._journal.last

    def _decide(self, pipeline: Pipeline, now_s: float | None, regions: RegionDrift, *, confirmed: bool) -> None:
        """What the clock has to say before the next record of a partition. A model goes live in all partitions at once: one that had to
        decide for itself after a kill would do so before records that the run before has judged with the old model."""
        at = {str(pipeline.partition): pipeline.decided_through}
        live = self._models.live
        if now_s is not None and (pipeline.clock_s is None or _is_due(now_s - pipeline.clock_s, confirmed=confirmed)):
            self._enter(Clock(now_s, {str(other.partition): other.decided_through for other in self}, confirmed))
        if pipeline.idle:
            self._enter(Resumed(at, max(regions.closed_through, self._journal.alerted_through(pipeline.limit_s))))
        if live is not None and pipeline.epoch != live.epoch:
            others = [other for other in self if other.decided_epoch != live.epoch]
            self._enter(ModelLive(live.epoch, live.version, {str(other.partition): other.decided_through for other in others}))
        if pipeline.forecasting == self._shedding:
            self._enter(Forecasting(not self._shedding, at))

    def _enter(self, entry: Entry) -> None:
        """Makes an entry durable, then lets the partitions that it names take it at their offsets."""
        number = self._journal.append(entry)
        for pipeline in self:
            if (offset := entry.offsets.get(str(pipeline.partition))) is not None:
                pipeline.expect([(offset, number, entry)])


def _is_due(passed_s: float, *, confirmed: bool) -> bool:
    """Whether the clock is to be read anew, so long after the last reading. If it stands before that one, either may be wrong: the new one
    is believed if it is confirmed."""
    return passed_s >= CLOCK_S or (confirmed and passed_s < -AGREES_S)


def journal_path(state: Path, member: str) -> Path:
    """Where the journal of one member lies."""
    return state / f"journal-{member}.ndjson"
