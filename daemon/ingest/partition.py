"""One partition's way through the daemon: decode, features, residuals, drift, forecasts, buffer, and the state of all of them.

What belongs to one link depends only on that link's own order, so a partition needs nothing of the others, and its state can move
with it to another member of the group.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from daemon.errors import StateError
from daemon.ingest.entries import CLOCK_S, Clock, Entry, Forecasting, Idle, ModelLive, Resumed, limit_of
from daemon.ingest.monitored import Listener, WatchedLinks
from daemon.ingest.room import Room
from daemon.ingest.spread import FirstTimes, Key
from daemon.operator.observer import Observer
from daemon.state.snapshot import PartState, Restored
from drift.link.monitored import WatchPolicy
from drift.link.sensitivity import Sensitivity
from drift.messages import LinkAlarm, LinkSeen
from drift.region.buckets import BUCKET_S
from features.changes import FeatureRows
from features.event_time import EventTime
from features.store import FeatureStore, link_name
from features.telemetry import TARGETS, Doubles, Flags, Partition, TelemetryBatch
from features.vocabulary import MAX_VALUES
from model.buffer.rows import BufferRows, BufferWriter
from model.version.predictor import Predictor
from streams.records.decode import Rejected, decode
from streams.source import ONLY_LOG, Log, RawBatch

CHUNK_ROWS: Final = 2048
"""Records of one pass: windows of so many watched rows are 11 MB."""

REVIEW_RECORDS: Final = 65_536
"""Offsets between two reviews of who is watched: hours of a small fleet, and rare enough to cost nothing of a large one."""

Holds: TypeAlias = Callable[[RawBatch, float, Callable[[TelemetryBatch], Flags], int], int | None]
"""See ClockWatch.holds, of one partition."""


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """What the pipelines of all partitions share. links_max: of one partition. lateness_s: how far links may lag behind each other in
    event time. names_max: values of one category that a partition tells apart at a time."""

    link_key: tuple[str, ...]
    gap_multiple: float
    links_max: int
    watch: WatchPolicy
    sensitivity: Sensitivity
    lateness_s: float
    names_max: int = MAX_VALUES


@dataclass(slots=True)
class Taken:
    """What a batch gave. rows: accepted records. refused: why records at its end were not taken. waits: whether records at its end wait for
    this machine's clock."""

    alarms: list[LinkAlarm]
    seen: list[LinkSeen]
    rejected: list[Rejected]
    rows: int = 0
    late: int = 0
    """Alarms and words of links that came too late for their bucket."""
    refused: OSError | None = None
    waits: bool = False

    def add(self, more: Taken) -> None:
        self.alarms += more.alarms
        self.seen += more.seen
        self.rejected += more.rejected
        self.rows += more.rows
        self.late += more.late
        self.waits |= more.waits


@dataclass(frozen=True, slots=True)
class Undone:
    """A partition, or some of its links, had come further than time can be: from_s to to_s, UTC seconds, with the names of the links."""

    partition: Partition
    from_s: float
    to_s: float
    links: tuple[str, ...]


class Pipeline:
    """The state of one partition. All methods are called from the loop's thread."""

    def __init__(
        self,
        partition: Partition,
        settings: PipelineSettings,
        writer: BufferWriter,
        model_of: Callable[[str], Predictor | None],
        observer: Observer,
        listener: Listener | None = None,
    ) -> None:
        """model_of: the predictor of a version; None where it cannot be used now."""
        self.partition = partition
        self.next_offset: int | None = None
        """Offset after the last record taken; None before the first of a new partition."""
        self.log = ONLY_LOG
        """What next_offset counts in."""
        self.idle = False
        self.clock_s: float | None = None
        """The last reading of the clock, UTC seconds; None: timestamps are not checked against it."""
        self.journal_taken = 0
        self.rows = 0
        self._settings = settings
        self._model_of = model_of
        self._observer = observer
        self._writer = writer
        self._store = FeatureStore(settings.link_key, settings.gap_multiple, settings.links_max, settings.names_max)
        self._watched = WatchedLinks(partition, settings.watch, settings.sensitivity, observer, listener)
        self._first = FirstTimes()
        self._event_time = EventTime()
        self._room = Room(partition, self._store, self._event_time, self._first, self._watched, writer, observer)
        self.undone: list[Undone] = []
        """What was undone since the owner last looked."""
        self._ahead: list[tuple[int, int, Entry]] = []
        self._ignore_through = -(2**62)

    @property
    def links(self) -> int:
        return len(self._store)

    def span_of(self, key: Key) -> tuple[float, float] | None:
        """See spread.Links."""
        slot = self._store.slot(key)
        return (self._first.of(slot), self._store.last_time_s(slot)) if slot is not None else None

    def keys(self, begin: int) -> Sequence[Key]:
        """See spread.Links."""
        return self._store.link_keys(begin)

    def name_of(self, key: Key) -> str:
        return link_name(key)

    def new_links(self) -> Sequence[Key]:
        """See spread.Links."""
        begin = self._first.unreported()
        return self.keys(begin) if begin < len(self._store) else ()

    @property
    def longest_run(self) -> int:
        """Most rows of any link since its last gap, counted no further than the rings hold."""
        return int(self._store.run_rows.max(initial=0))

    @property
    def watched_links(self) -> int:
        return len(self._watched)

    @property
    def open_rows(self) -> int:
        return self._writer.open_rows

    @property
    def forecasting(self) -> bool:
        return not self._watched.shedding

    @property
    def epoch(self) -> int:
        """Which model is live here, counted from 1; 0 before the first."""
        return self._watched.epoch

    @property
    def model_version(self) -> str | None:
        """The version that is live here."""
        return self._watched.version

    @property
    def catching_up(self) -> bool:
        """After a restart: journal entries of the run before are still ahead."""
        return bool(self._ahead)

    @property
    def event_time_s(self) -> float:
        """Up to when the bulk of the links has come, UTC seconds; -inf before the first record."""
        return self._event_time.value_s

    @property
    def end_s(self) -> float:
        """The same if no record comes any more."""
        return self._event_time.end_s

    @property
    def limit_s(self) -> float:
        """The latest time that a record may have, by the last reading of the clock; inf without one."""
        return limit_of(self.clock_s)

    @property
    def watermark_s(self) -> float:
        """Event time up to which this partition is complete, as far as the region stage cares."""
        return math.inf if self.idle else self.event_time_s - self._settings.lateness_s

    @property
    def decided_through(self) -> int:
        """Offset from which on the clock may decide anything anew: behind it all is decided, or was taken already."""
        return max(self.next_offset or 0, self._ahead[-1][0] if self._ahead else 0)

    @property
    def decided_epoch(self) -> int:
        """The last model that the journal has for this partition."""
        return next((entry.epoch for _, _, entry in reversed(self._ahead) if isinstance(entry, ModelLive)), self.epoch)

    def expect(self, ahead: list[tuple[int, int, Entry]]) -> None:
        """Journal entries that this partition takes when it reaches their offset, after those that it expects already."""
        self._ahead += ahead
        self.catch_up(self.next_offset or 0)

    def catch_up(self, offset: int) -> None:
        """Lets the journal entries up to this next offset take effect."""
        while self._ahead and self._ahead[0][0] <= offset:
            _, number, entry = self._ahead.pop(0)
            self._apply(number, entry)

    def pass_over(self, offset: int) -> None:
        """Goes on at this offset: the records before it are in another member's state. Windows of links that they belong to have a gap."""
        self.next_offset = max(offset, self.next_offset or 0)
        self.catch_up(self.next_offset)

    def undisturbed(self, offsets: Sequence[int], begin: int) -> int:
        """The end of the records from `begin` on that lie before the next journal entry."""
        return bisect.bisect_left(offsets, self._ahead[0][0], begin) if self._ahead else len(offsets)

    def take(self, raw: RawBatch, holds: Holds | None = None) -> Taken:
        """Takes undecoded records in stream order. holds: says which records of the future wait; None: they are refused."""
        self._watched.look_again(self._model_of)
        taken = Taken([], [], [])
        begin = asks_from = 0
        for piece in _chunks(raw):
            self._review_if_due(piece.offsets[0])
            with self._observer.stage("decode"):
                decoded = decode(piece, self._clock_limit_s)
                if holds is not None and decoded.of_future and begin >= asks_from:
                    stays = holds(part_of(raw, begin, len(raw)), self.limit_s, self._store.knows, self.links)
                    if stays is None:  # so it is of all that is left: half of that may show something else
                        asks_from = (begin + len(raw) + 1) // 2
                    elif stays < len(piece):
                        taken.waits = True
                        piece = part_of(piece, 0, stays)
                        decoded = decode(piece, self._clock_limit_s)
            if len(piece):
                taken.rejected += decoded.rejected
                if len(decoded.batch):
                    self._take_batch(decoded.batch, taken)
                self.next_offset, self.log = piece.offsets[-1] + 1, piece.log_at_end
                begin += len(piece)
            if taken.waits:
                break
        self._count(taken, begin)
        return taken

    def _review_if_due(self, offset: int) -> None:
        """Before the record at this offset."""
        if self.next_offset is None or offset // REVIEW_RECORDS <= (self.next_offset - 1) // REVIEW_RECORDS:
            return
        if joined := self._watched.review(self._store, self.event_time_s):
            self._observer.tell("watch_reviewed", partition=str(self.partition), joined=joined, watched=self.watched_links)

    @property
    def _clock_limit_s(self) -> float | None:
        return None if self.clock_s is None else self.clock_s + CLOCK_S

    def _apply(self, number: int, entry: Entry) -> None:
        """Lets a journal entry take effect from the next record on."""
        self.journal_taken = number
        if isinstance(entry, ModelLive):
            self._watched.go_live(entry.version, self._model_of(entry.version), entry.epoch)
        elif isinstance(entry, Forecasting):
            self._watched.shed(not entry.on)
        elif isinstance(entry, Clock):
            self.clock_s = entry.now_s
            if entry.confirmed:
                self._undo(entry.now_s)
        elif isinstance(entry, Idle):
            self.idle = True
        elif isinstance(entry, Resumed):
            self.idle, self._ignore_through = False, entry.closed_through

    def _undo(self, now_s: float) -> None:
        """Takes back what has come after the time that can be, by a confirmed reading of the clock (UTC seconds)."""
        limit_s = self.limit_s
        self._ignore_through = min(self._ignore_through, math.floor(limit_s / BUCKET_S))
        self._store.evicted_through_s = min(self._store.evicted_through_s, now_s)
        if not self._event_time.is_ahead(limit_s):
            return
        from_s = max(self.event_time_s, float(self._store.newest_s.max()))
        slots = self._event_time.undo(limit_s, now_s)
        self._store.rewind(slots, self.event_time_s)
        self._watched.renew(slots)
        self.undone.append(Undone(self.partition, from_s, self.event_time_s, tuple(self._store.links[slot] for slot in slots.tolist())))

    def snapshot(self) -> PartState:
        """The state as it is now; detaches the open rows."""
        store = self._store
        document = (
            {
                "link_key": list(self._settings.link_key),
                "keys": [list(key) for key in store.link_keys()],
                "values": [list(values) for values in store.interner.values],
                "evicted_through_s": store.evicted_through_s,
                "log": asdict(self.log),
                "idle": self.idle,
                "clock_s": self.clock_s,
                "ignore_through": self._ignore_through,
                "journal_taken": self.journal_taken,
                "rows": self.rows,
            }
            | self._watched.state()
            | self._event_time.document()
        )
        arrays = {f"store_{name}": ring for name, ring in store.state().items()} | self._watched.arrays()
        arrays |= self._event_time.arrays(len(store))
        taken = self._writer.take(store.links, store.interner.values)
        return PartState(self.partition, self.next_offset, document, arrays, self._writer, taken, self.journal_taken)

    def restore(self, restored: Restored) -> None:
        """Takes up the state of a checkpoint. Raises StateError where it was made with other settings."""
        state, arrays = restored.document, restored.arrays
        if tuple(state["link_key"]) != self._settings.link_key:
            raise StateError(
                f"{self.partition}: the state tells links apart by {state['link_key']}, the configuration (links.key) by "
                f"{list(self._settings.link_key)}; set it back, or start with another state directory"
            )
        rings = {name.removeprefix("store_"): ring for name, ring in arrays.items() if name.startswith("store_")}
        self._store.restore(state["keys"], [list(values) for values in state["values"]], rings, state["evicted_through_s"])
        self._first.restore(rings["last_time_s"])
        version = state["model_version"]
        self._watched.restore(state, arrays, self._model_of(version) if version else None, self._store.links)
        self.next_offset, self.log = restored.offset, Log(**state["log"])
        self._event_time.restore(state, arrays, self._store.newest_s)
        self.idle, self._ignore_through = state["idle"], state["ignore_through"]
        self.clock_s, self.journal_taken, self.rows = state["clock_s"], state["journal_taken"], state["rows"]

    def _take_batch(self, batch: TelemetryBatch, taken: Taken) -> None:
        while len(batch):
            with self._observer.stage("features"):
                slots = self._store.resolve(batch)
            if len(slots) == len(batch):
                self._take_resolved(batch, slots, taken)
                return
            if len(slots):
                self._take_resolved(batch.part(0, len(slots)), slots, taken)
            batch = batch.part(len(slots), len(batch))
            self._room.make(batch)

    def _take_resolved(self, batch: TelemetryBatch, slots: NDArray[np.int32], taken: Taken) -> None:
        with self._observer.stage("features"):
            self._watched.follow(self._store.links, batch, slots)
            self._first.follow(len(self._store), batch.time_s, slots)
            model, names = self._watched.live, self._room.known_names
            rows = self._store.update(batch, slots, self._watched.mask, model.vocabulary if model is not None else None)
            self._room.note(batch, names)
        with self._observer.stage("drift"):
            complete_s = self._event_time.follow(rows.slots, batch.time_s[rows.accepted])
            if model is not None:
                alarms, seen = self._watched.judge(batch, rows, self._store.links, complete_s)
                self._keep_timely(rows, complete_s, batch, alarms, seen, taken)
        with self._observer.stage("buffer"):
            self._writer.append(
                BufferRows(batch.offsets[rows.accepted], batch.time_s[rows.accepted], batch.numeric[rows.accepted], rows.codes, rows.slots)
            )
        observer = self._observer
        observer.records.labels("accepted").inc(len(rows.accepted))
        observer.records.labels("duplicate").inc(rows.duplicates)
        observer.records.labels("late").inc(rows.late)
        observer.window_restarts.inc(int(np.count_nonzero(rows.restarted)))
        missing = np.count_nonzero(np.isnan(batch.numeric[rows.accepted, : len(TARGETS)]), axis=0)
        for metric, count in zip(TARGETS, missing.tolist(), strict=True):
            observer.missing.labels(metric).inc(count)
        if self._watched.shedding:
            observer.shed.inc(len(rows.watched))
        taken.rows += len(rows.accepted)
        self.rows += len(rows.accepted)

    def _keep_timely(
        self, rows: FeatureRows, complete_s: Doubles, batch: TelemetryBatch,
        alarms: list[LinkAlarm], seen: list[LinkSeen], taken: Taken,
    ) -> None:  # fmt: skip
        """Leaves out what comes after this partition's own watermark has passed its bucket: a rule that no other partition enters into."""
        through = dict(zip(batch.offsets[rows.accepted].tolist(), complete_s.tolist(), strict=True)) if alarms else {}
        lateness_s = self._settings.lateness_s
        for alarm in alarms:
            if self._timely(alarm.time_s, through[alarm.offset] - lateness_s):
                taken.alarms.append(alarm)
            else:
                taken.late += 1
        if seen:
            slowest = complete_s[-1] - lateness_s
            if all(self._timely(one.time_s, slowest) for one in seen):
                taken.seen += seen
                return
            watermark_of = {
                (float(batch.time_s[row]), self._store.links[slot]): mark - lateness_s
                for row, slot, mark in zip(rows.accepted.tolist(), rows.slots.tolist(), complete_s.tolist(), strict=True)
            }
            for one in seen:  # a link whose clock is behind tells the partition's time
                timely = self._timely(one.time_s, watermark_of.get((one.time_s, one.link), one.time_s - lateness_s))
                taken.seen += [one] if timely else []
                taken.late += not timely

    def _timely(self, time_s: float, watermark_s: float) -> bool:
        bucket = math.floor(time_s / BUCKET_S)
        return (bucket + 1) * BUCKET_S > watermark_s and bucket > self._ignore_through

    def _count(self, taken: Taken, records: int) -> None:
        self._observer.records.labels("consumed").inc(records)
        if taken.rejected:
            self._observer.records.labels("rejected").inc(len(taken.rejected))
        for rejected in taken.rejected:
            self._observer.rejected.labels(rejected.kind).inc()


def part_of(raw: RawBatch, begin: int, end: int) -> RawBatch:
    """The records from `begin` to before `end`."""
    lines = raw.lines[begin:end] if raw.lines is not None else None
    written = raw.written[begin:end] if raw.written is not None else None
    return replace(raw, offsets=raw.offsets[begin:end], values=raw.values[begin:end], lines=lines, written=written)


def _chunks(raw: RawBatch) -> Iterator[RawBatch]:
    """Pieces of which none reaches over a review."""
    begin = 0
    while begin < len(raw):
        review = (raw.offsets[begin] // REVIEW_RECORDS + 1) * REVIEW_RECORDS
        end = min(begin + CHUNK_ROWS, bisect.bisect_left(raw.offsets, review, begin))
        yield part_of(raw, begin, end)
        begin = end
