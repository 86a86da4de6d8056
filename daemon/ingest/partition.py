"""Pipeline of one partition: decode, features, forecast, drift, buffer. Its whole state can move with the partition to another member."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TypeAlias

from daemon.errors import StateError
from daemon.ingest.ahead import Listener
from daemon.ingest.entries import CLOCK_S, Ahead, Clock, Entry, Forecasting, Idle, ModelLive, Resumed, limit_of
from daemon.ingest.ingested import Ingested, RejectedRecord, Undone, count_records, count_rows, timely
from daemon.ingest.monitored import MonitoredLinks
from daemon.ingest.pieces import is_review_due, part_of, pieces
from daemon.ingest.room import Room
from daemon.ingest.settings import PipelineSettings
from daemon.ingest.spread import FirstTimes, LinkSpans
from daemon.operator.observer import Observer
from daemon.state.snapshot import PartState, Restored
from drift.region.buckets import BUCKET_S
from features.changes import FeatureRows
from features.event_time import EventTime
from features.store import FeatureStore
from features.telemetry import Flags, Ints, Partition, TelemetryBatch
from model.buffer.rows import BufferRows, BufferWriter
from model.version.predictor import Predictor
from streams.records.decode import Decoded, decode
from streams.source import ONLY_LOG, Log, RawBatch

Holds: TypeAlias = Callable[[RawBatch, float, Callable[[TelemetryBatch], Flags], int], int | None]
"""See ClockWatch.holds, for one partition."""


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without any state.

        Args:
            model_of: returns the predictor of a version, or None if it cannot be used now.
            listener: receives every forecast that met its measurement.
            clock: monotonic seconds.
        """
        self.partition = partition
        self.next_offset: int | None = None
        """Offset after the last ingested record; None before the first of a new partition."""
        self.log = ONLY_LOG
        """The log that next_offset counts in."""
        self.idle = False
        self.clock_s: float | None = None
        """The last reading of the clock, UTC seconds; None: timestamps are not checked against it."""
        self.journal_applied = 0
        """Number of the last journal entry that took effect here."""
        self.rows = 0
        self.undone: list[Undone] = []
        """Resets of event time since the group last asked."""
        self.ahead = Ahead()
        """The journal entries that this partition has yet to apply."""
        self.writer = writer
        self._settings, self._model_of, self._observer = settings, model_of, observer
        self._store = FeatureStore(settings.link_key, settings.gap_multiple, settings.links_max, settings.names_max, settings.local_time)
        self.monitored = MonitoredLinks(partition, settings.watch, settings.sensitivity, observer, listener)
        self._first = FirstTimes()
        self._event_time = EventTime()
        self.spans = LinkSpans(partition, self._store, self._first, self._event_time)
        self._room = Room(partition, self._store, self._event_time, self._first, self.monitored, writer, observer, clock)
        self._ignore_through = -(2**62)
        """Buckets up to this one were closed without this partition."""

    def ingest(self, raw: RawBatch, holds: Holds | None = None) -> Ingested:
        """Ingest undecoded records in stream order: decode, features, forecast, drift, buffer.

        A batch is cut in five places. The records after a cut are computed with the decision made at the cut:

        1. before the offset of the next journal entry: by the caller, `Group.ingest`;
        2. after CHUNK_ROWS records, which bounds the windows in memory: `pieces`;
        3. before a record at which the monitored links are reviewed: `pieces`;
        4. before the first record that waits for this machine's clock: `_decoded`;
        5. before the first record for whose link or names the tables have no room: `_resolved`.

        Args:
            holds: decides which records of the future wait; None: they are refused.
        """
        self.monitored.retry_load(self._model_of)
        ingested, stage = Ingested(), self._observer.stage
        for piece, decoded in self._decoded(raw, holds, ingested):
            for batch, slots in self._resolved(decoded.batch):
                with stage("features"):
                    rows = self._features(batch, slots)
                with stage("drift"):
                    complete_s = self._event_time.follow(rows.slots, batch.time_s[rows.accepted])
                    if self.monitored.live is not None:
                        links, watermark_s = self._store.links, complete_s - self._settings.lateness_s
                        residual, intervals = self.monitored.forecast(batch, rows, links)
                        alarms, seen = self.monitored.detect(batch, rows, residual, intervals, links, complete_s)
                        ingested.add(timely(alarms, seen, batch, rows, links, watermark_s, self._ignore_through))
                with stage("buffer"):
                    row = rows.accepted
                    self.writer.append(BufferRows(batch.offsets[row], batch.time_s[row], batch.numeric[row], rows.codes, rows.slots))
                ingested.rows += len(row)
                self.rows += len(row)
                count_rows(self._observer, batch, rows, shedding=self.monitored.shedding)
            self.next_offset, self.log = piece.offsets[-1] + 1, piece.log_at_end
        count_records(self._observer, ingested)
        return ingested

    def _decoded(self, raw: RawBatch, holds: Holds | None, ingested: Ingested) -> Iterator[tuple[RawBatch, Decoded]]:
        """Decode piece after piece, up to the first record that waits. Add the records that were read and refused to `ingested`."""
        begin = asks_from = 0
        limit_s = None if self.clock_s is None else self.clock_s + CLOCK_S
        for piece in pieces(raw):
            self._review_if_due(piece.offsets[0])
            with self._observer.stage("decode"):
                decoded = decode(piece, limit_s)
                if holds is not None and decoded.of_future and begin >= asks_from:
                    waiting = holds(part_of(raw, begin, len(raw)), self.limit_s, self._store.knows, self.links)
                    if waiting is None:  # nothing that is left waits; half of it may show something else
                        asks_from = (begin + len(raw) + 1) // 2
                    elif waiting < len(piece):
                        ingested.waits = True
                        piece = part_of(piece, 0, waiting)
                        decoded = decode(piece, limit_s)
            if len(piece):
                ingested.records += len(piece)
                ingested.rejected += [RejectedRecord(record, self.partition, raw.log.shift) for record in decoded.rejected]
                yield piece, decoded
                begin += len(piece)
            if ingested.waits:
                return

    def _resolved(self, batch: TelemetryBatch) -> Iterator[tuple[TelemetryBatch, Ints]]:
        """Assign slots to the links of a batch, and cut the batch before each record for which the tables need room first."""
        while len(batch):
            with self._observer.stage("features"):
                slots = self._store.resolve(batch)
            if len(slots):
                yield (batch if len(slots) == len(batch) else batch.part(0, len(slots))), slots
            batch = batch.part(len(slots), len(batch))
            if len(batch):
                self._room.make(batch)

    def _features(self, batch: TelemetryBatch, slots: Ints) -> FeatureRows:
        self.monitored.follow(self._store.links, batch, slots)
        self._first.follow(len(self._store), batch.time_s, slots)
        model, names = self.monitored.live, self._room.known_names
        vocabulary, horizons = (None, ()) if model is None else (model.vocabulary, model.horizons)
        rows = self._store.update(batch, slots, self.monitored.mask, vocabulary, horizons)
        self._room.note(batch, names)
        return rows

    def _review_if_due(self, offset: int) -> None:
        """Review the monitored links before the record at this offset."""
        if self.next_offset is None or not is_review_due(self.next_offset, offset):
            return
        if joined := self.monitored.review(self._store, self.event_time_s):
            self._observer.emit("watch_reviewed", partition=str(self.partition), joined=joined, watched=len(self.monitored))

    def expect(self, ahead: list[tuple[int, int, Entry]]) -> None:
        """Add journal entries, which take effect when this partition reaches their offset."""
        self.ahead.add(ahead)
        self.apply_through(self.next_offset or 0)

    def apply_through(self, offset: int) -> None:
        """Let the journal entries up to this next offset take effect."""
        for number, entry in self.ahead.due(offset):
            self._apply(number, entry)

    def pass_over(self, offset: int) -> None:
        """Continue at this offset: the records before it are in another member's state. The windows of their links have a gap."""
        self.next_offset = max(offset, self.next_offset or 0)
        self.apply_through(self.next_offset)

    def _apply(self, number: int, entry: Entry) -> None:
        """Let a journal entry take effect from the next record on."""
        self.journal_applied = number
        if isinstance(entry, ModelLive):
            self.monitored.go_live(entry.version, self._model_of(entry.version), entry.epoch)
        elif isinstance(entry, Forecasting):
            self.monitored.load_shed(not entry.on)
        elif isinstance(entry, Clock):
            self.clock_s = entry.now_s
            if entry.confirmed:
                self._undo(entry.now_s)
        elif isinstance(entry, Idle):
            self.idle = True
        elif isinstance(entry, Resumed):
            self.idle, self._ignore_through = False, entry.closed_through

    def _undo(self, now_s: float) -> None:
        """Reset event times that are in the future by a confirmed reading of the clock (UTC seconds)."""
        limit_s = self.limit_s
        self._ignore_through = min(self._ignore_through, math.floor(limit_s / BUCKET_S))
        self._store.evicted_through_s = min(self._store.evicted_through_s, now_s)
        if not self._event_time.is_ahead(limit_s):
            return
        from_s = max(self.event_time_s, float(self._store.newest_s.max()))
        slots = self._event_time.undo(limit_s, now_s)
        self._store.rewind(slots, self.event_time_s)
        self.monitored.renew(slots)
        self.undone.append(Undone(self.partition, from_s, self.event_time_s, tuple(self._store.links[slot] for slot in slots.tolist())))

    def snapshot(self) -> PartState:
        """Return the state as it is now; the open rows go with it."""
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
                "journal_taken": self.journal_applied,
                "rows": self.rows,
            }
            | self.monitored.state()
            | self._event_time.document()
        )
        arrays = {f"store_{name}": ring for name, ring in store.state().items()} | self.monitored.arrays()
        arrays |= self._event_time.arrays(len(store))
        open_rows = self.writer.detach(store.links, store.interner.values)
        return PartState(self.partition, self.next_offset, document, arrays, self.writer, open_rows, self.journal_applied)

    def restore(self, restored: Restored) -> None:
        """Restore the state that a checkpoint holds.

        Raises:
            StateError: the checkpoint was made with another links.key.
        """
        state, arrays = restored.document, restored.arrays
        if tuple(state["link_key"]) != self._settings.link_key:
            raise StateError(
                f"{self.partition}: the state identifies links by {state['link_key']}, the configuration (links.key) by "
                f"{list(self._settings.link_key)}; set it back, or start with another state directory"
            )
        rings = {name.removeprefix("store_"): ring for name, ring in arrays.items() if name.startswith("store_")}
        self._store.restore(state["keys"], [list(values) for values in state["values"]], rings, state["evicted_through_s"])
        self._first.restore(rings["last_time_s"])
        self.monitored.restore(state, arrays, self._model_of, self._store.links)
        self.next_offset, self.log = restored.offset, Log(**state["log"])
        self._event_time.restore(state, arrays, self._store.newest_s)
        self.idle, self._ignore_through = state["idle"], state["ignore_through"]
        self.clock_s, self.journal_applied, self.rows = state["clock_s"], state["journal_taken"], state["rows"]

    @property
    def links(self) -> int:
        """Number of links that are known."""
        return len(self._store)

    @property
    def longest_run(self) -> int:
        """Most rows of any link since its last gap, counted no further than the rings hold."""
        return int(self._store.run_rows.max(initial=0))

    @property
    def event_time_s(self) -> float:
        """Time that the bulk of the links has reached, UTC seconds; -inf before the first record."""
        return self._event_time.value_s

    @property
    def end_s(self) -> float:
        """Event time if no further record comes, UTC seconds."""
        return self._event_time.end_s

    @property
    def limit_s(self) -> float:
        """The latest time that a record may have, by the last reading of the clock; inf without one."""
        return limit_of(self.clock_s)

    @property
    def watermark_s(self) -> float:
        """Event time up to which this partition is complete for the region stage, UTC seconds."""
        return math.inf if self.idle else self.event_time_s - self._settings.lateness_s

    @property
    def decided_through(self) -> int:
        """Offset from which on new decisions may be made: records before it are decided, or were ingested already."""
        return max(self.next_offset or 0, self.ahead.last_offset)

    @property
    def decided_epoch(self) -> int:
        """The last model that the journal has for this partition."""
        return self.monitored.epoch if self.ahead.last_epoch is None else self.ahead.last_epoch
