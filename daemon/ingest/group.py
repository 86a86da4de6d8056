"""The partitions that this process owns: they come with their state, ingest records, and leave with their state."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from daemon.clock import Clock
from daemon.clock_watch import ClockWatch
from daemon.ingest.ahead import Listener
from daemon.ingest.decisions import Decisions
from daemon.ingest.ingested import Ingested
from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.ingest.partition import Holds, Pipeline
from daemon.ingest.pieces import part_of
from daemon.ingest.settings import PipelineSettings
from daemon.ingest.spread import LinkSpans, LinkSpread
from daemon.operator.observer import Observer
from daemon.state.checkpoint import CheckpointStore
from daemon.state.snapshot import PartState, Written
from features.telemetry import Partition
from model.buffer.rows import BufferWriter
from model.judge.behind import Behind
from model.judge.probation import Proof, together
from streams.source import ONLY_LOG, Polled, RawBatch, Source


class Group:
    """Owned partitions by name, between the source that they read and the store that keeps their state."""

    def __init__(
        self,
        source: Source,
        settings: PipelineSettings,
        store: CheckpointStore,
        journal: Journal,
        models: Models,
        observer: Observer,
        clock: Clock,
        *,
        idle_s: float,
        shed_above_lag: int,
        listener: Listener | None = None,
    ) -> None:
        """Own no partition yet.

        Args:
            idle_s, shed_above_lag: see Decisions.
            listener: receives every forecast that met its measurement.
        """
        self._source, self._settings, self._store, self._models, self._observer = source, settings, store, models, observer
        self._clock, self._listener = clock, listener
        self._pipelines: dict[Partition, Pipeline] = {}
        self.decisions = Decisions(
            journal, models, observer, clock, idle_s=idle_s, shed_above_lag=shed_above_lag, pipelines=self._pipelines
        )  # fmt: skip
        self.clock_watch = ClockWatch(clock, observer)
        """The partitions that wait for this machine's clock."""
        self.spread = LinkSpread(settings.link_key, observer.emit, clock.monotonic_s)
        """Links that come in more than one partition."""
        self.trust: dict[str, float] = {}
        """By region, the mean weight of the version in what is published, 0 to 1, as of the last `report_trust`."""
        self.blocked = False
        """True if the journal could not be written and no checkpoint was written since: records that were read were not ingested."""
        self._passed_over: set[Partition] = set()
        """Partitions that do not begin at their first record. That was reported once."""

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(self._pipelines.values())

    def __len__(self) -> int:
        return len(self._pipelines)

    def drop(self, partitions: Collection[Partition]) -> None:
        """Drop the state of partitions that belong to another member, who may read them already."""
        self.spread.gone(partitions)
        for partition in partitions:
            self._pipelines.pop(partition, None)
            self.decisions.forget(partition)
            self._store.drop(partition)
        self.clock_watch.drop(partitions)

    def release(self, partitions: Collection[Partition]) -> None:
        """Release partitions whose state is written, so that the member that waits for them can read them."""
        self._source.release(frozenset(partitions))
        self.drop(partitions)

    def adopt(self, partitions: Collection[Partition]) -> None:
        """Restore the state of partitions that were assigned, and seek to where it ends."""
        for partition in sorted(partitions, key=str):
            writer, clock = BufferWriter(self._store.buffer, partition), self._clock.monotonic_s
            pipeline = Pipeline(partition, self._settings, writer, self._models.predictor, self._observer, self._listener, clock)
            if (restored := self._store.restore(partition)) is not None:
                pipeline.restore(restored)
            self.decisions.adopt(pipeline, foreign=restored is not None and restored.member != self._store.member)
            self._pipelines[partition] = pipeline
            self.spread.restored(pipeline.spans, self._spans())
            self._source.seek(partition, pipeline.next_offset, pipeline.log)
            self._observer.emit("partition_assigned", partition=str(partition), offset=pipeline.next_offset, links=pipeline.links)

    def pass_over(self, partition: Partition, offset: int) -> None:
        """Continue at an offset after the end of a partition's state: another member's state has the records between."""
        if (pipeline := self._pipelines.get(partition)) is not None:
            pipeline.pass_over(offset)

    def ingest(self, polled: Polled, closed_through: int, *, reading: bool) -> Ingested:
        """Ingest records, each in its partition, after what the clock has decided for it.

        Records that wait for the clock, or for a journal that can be written, are sought back to.

        Args:
            closed_through: the last closed bucket of the region stage.
            reading: whether records would have come, had there been any.
        """
        ingested = Ingested()
        sought_back: set[Partition] = set()
        self.clock_watch.compare(polled, self._source.lag())
        for raw in polled.batches:
            if raw.partition in sought_back:
                continue  # it comes again, after the records before it
            batch = self._ingest_batch(raw, closed_through)
            if batch.blocked is not None or batch.waits:
                self._seek_back(raw)
                sought_back.add(raw.partition)
            if not batch.waits:
                self.clock_watch.ingested(raw.partition)
            ingested.add(batch)
        self.blocked = self.blocked or ingested.blocked is not None
        self._report_undone()
        self.decisions.notice_idle(reading=reading and self._source.healthy())
        self.decisions.load_shed(self._source.lag())
        return ingested

    def _ingest_batch(self, raw: RawBatch, closed_through: int) -> Ingested:
        pipeline = self._pipelines[raw.partition]
        if pipeline.next_offset is None and raw.offsets[0] > 0 and raw.partition not in self._passed_over:
            self._passed_over.add(raw.partition)
            self._observer.emit("records_passed_over", partition=str(raw.partition), before=int(raw.offsets[0]))
        before = (pipeline.event_time_s, pipeline.idle)
        ingested = Ingested()
        begin = 0
        while begin < len(raw):
            pipeline.apply_through(raw.offsets[begin])
            holds: Holds | None = None
            if not pipeline.ahead:  # otherwise the run before has decided for these records
                try:
                    self.decisions.before_record(pipeline, closed_through)
                except OSError as error:
                    ingested.blocked = error
                    return ingested
                if self._clock.latest_record_s() is not None:
                    holds = partial(self.clock_watch.holds, raw.partition)
            end = pipeline.ahead.cut(raw.offsets, begin)
            ingested.add(pipeline.ingest(part_of(raw, begin, end), holds))
            if ingested.waits:
                break
            pipeline.apply_through(pipeline.next_offset or 0)  # it may count as idle from here on, and no record may come for long
            begin = end
        self.spread.arrived(pipeline.spans, self._spans())
        if (pipeline.event_time_s, pipeline.idle) != before:
            self.decisions.moved(raw.partition)
        return ingested

    def _seek_back(self, raw: RawBatch) -> None:
        """Seek to the next record that was not ingested: the first of the batch, if none of the partition ever was."""
        pipeline = self._pipelines[raw.partition]
        if pipeline.next_offset is not None:
            self._source.seek(raw.partition, pipeline.next_offset, pipeline.log)
        else:
            self._source.seek(raw.partition, raw.offsets[0], replace(raw.log, leader_epoch=ONLY_LOG.leader_epoch))

    def _report_undone(self) -> None:
        """Report partitions and links whose event time was in the future and was reset."""
        for pipeline in self:
            for undone in pipeline.undone:
                self._observer.time_undone.inc()
                self._observer.emit(
                    "event_time_undone", partition=str(undone.partition), from_s=undone.from_s, to_s=undone.to_s,
                    links=len(undone.links), first_links=list(undone.links[:3]), remedy="see that the clocks of these links are right",
                )  # fmt: skip
            pipeline.undone = []

    def report_spread(self) -> None:
        """Report links that come in several partitions, or have moved to another one: once a second is enough."""
        self.spread.look({pipeline.partition: pipeline.spans for pipeline in self})

    def report_trust(self) -> None:
        """Show how much the live version is trusted in each region: once a second is enough."""
        found: dict[str, list[float]] = {}
        for pipeline in self:
            for region, trust in pipeline.monitored.ahead.trust().items():
                found.setdefault(region, []).extend(trust)
        self.trust = {region: statistics.fmean(trust) for region, trust in found.items()}
        self._observer.trusted(self.trust)

    @property
    def behind(self) -> list[Behind]:
        """Where the live version is worse than what is published, beyond chance and for long; the worst first."""
        live = self._models.live
        current = [pipeline.monitored for pipeline in self if live is not None and pipeline.monitored.version == live.version]
        found = [one for monitored in current for one in monitored.ahead.behind()]
        return sorted(found, key=lambda one: -one.share)

    @property
    def proof(self) -> Proof | None:
        """The proof of the live version, once all partitions have one or one has found it to be worse; None before."""
        live = self._models.live
        own = [
            pipeline.monitored.probation for pipeline in self if live is not None and pipeline.monitored.probation.version == live.version
        ]
        proofs = [proof for probation in own if (proof := probation.proof()) is not None]
        return together(proofs) if proofs and (len(proofs) == len(own) or any(proof.failed for proof in proofs)) else None

    def snapshot(self) -> tuple[PartState, ...]:
        """Return the state of all partitions as it is now; their open rows go with it."""
        return tuple(pipeline.snapshot() for pipeline in self)

    def checkpointed(self, written: Written) -> None:
        """Commit the offsets of a checkpoint that was written, and drop decisions that no state needs."""
        self._source.commit(written.offsets)
        self.decisions.drop(written.journal)
        self.blocked = False

    @property
    def problems(self) -> list[str]:
        """Reasons why records are not ingested, each with what to do; empty if they are."""
        return [problem for problem in (self.decisions.journal.problem, self.clock_watch.problem) if problem is not None]

    @property
    def now_s(self) -> float:
        """Current time of the stream, UTC seconds: for a recording its event time."""
        return self._clock.now_s(self.event_time_s)

    @property
    def watermark_s(self) -> float:
        """The least event time over the partitions, UTC seconds; -inf without partitions, or if one has not begun."""
        return min((pipeline.watermark_s for pipeline in self), default=-math.inf)

    @property
    def begun_through_s(self) -> float:
        """The least event time over the partitions that have begun, UTC seconds; inf if none has."""
        return min((pipeline.watermark_s for pipeline in self if pipeline.watermark_s > -math.inf), default=math.inf)

    @property
    def event_time_s(self) -> float:
        """The newest event time of any partition; -inf before the first record."""
        return max((pipeline.event_time_s for pipeline in self), default=-math.inf)

    @property
    def end_s(self) -> float:
        """The newest event time of any partition if no further record comes, UTC seconds."""
        return max((pipeline.end_s for pipeline in self), default=-math.inf)

    @property
    def limit_s(self) -> float:
        """The latest time that any record may have, UTC seconds; inf if that is not known."""
        return self.decisions.limit_s

    @property
    def rows(self) -> int:
        """Number of records that were accepted, over restarts."""
        return sum(pipeline.rows for pipeline in self)

    @property
    def open_rows(self) -> int:
        """Rows in memory that no checkpoint was begun with yet."""
        return sum(pipeline.writer.open_rows for pipeline in self)

    @property
    def links(self) -> int:
        """Number of links that are known."""
        return sum(pipeline.links for pipeline in self)

    @property
    def longest_run(self) -> int:
        """Most rows of any link since its last gap."""
        return max((pipeline.longest_run for pipeline in self), default=0)

    @property
    def monitored_links(self) -> int:
        """Number of links that are forecast and have detectors."""
        return sum(len(pipeline.monitored) for pipeline in self)

    def _spans(self) -> Iterator[LinkSpans]:
        return (pipeline.spans for pipeline in self)


def journal_path(state: Path, member: str) -> Path:
    """Return where the journal of one member lies."""
    return state / f"journal-{member}.ndjson"
