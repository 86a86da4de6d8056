"""Results of ingestion: plain values for the region stage, the dead letters and the loop, which of them come in time, and their counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from daemon.operator.observer import Observer
from drift.messages import LinkAlarm, LinkSeen
from drift.region.buckets import BUCKET_S
from features.changes import FeatureRows
from features.telemetry import TARGETS, Doubles, Partition, TelemetryBatch
from streams.records.decode import Rejected


class RejectedRecord(NamedTuple):
    """A refused record of a partition. shift: what is added to the log's own offsets (see streams.source.Log)."""

    record: Rejected
    partition: Partition
    shift: int


@dataclass(slots=True)
class Ingested:
    """Results of ingesting some records.

    Args:
        records: number of records that were read.
        rows: number of records that were accepted.
        alarms, seen: messages of the link stage.
        late: number of such messages that came too late for their bucket, and were left out.
        rejected: refused records, for the dead letters.
        waits: whether records at the end wait for this machine's clock, and were not ingested.
        blocked: why the journal cannot be written, so that records at the end were not ingested; None if it can.
    """

    records: int = 0
    rows: int = 0
    alarms: list[LinkAlarm] = field(default_factory=list)
    seen: list[LinkSeen] = field(default_factory=list)
    late: int = 0
    rejected: list[RejectedRecord] = field(default_factory=list)
    waits: bool = False
    blocked: OSError | None = None

    def add(self, more: Ingested) -> None:
        """Add the results of the records after these."""
        self.records += more.records
        self.rows += more.rows
        self.alarms += more.alarms
        self.seen += more.seen
        self.late += more.late
        self.rejected += more.rejected
        self.waits |= more.waits
        self.blocked = more.blocked or self.blocked


@dataclass(frozen=True, slots=True)
class Undone:
    """A reset of event time that was in the future, of a partition or of some of its links: from_s to to_s, UTC seconds, and the links."""

    partition: Partition
    from_s: float
    to_s: float
    links: tuple[str, ...]


def count_rows(observer: Observer, batch: TelemetryBatch, rows: FeatureRows, *, shedding: bool) -> None:
    """Count the valid records of a batch, and the measurements that they miss. shedding: monitored rows got no forecast."""
    observer.records.labels("accepted").inc(len(rows.accepted))
    observer.records.labels("duplicate").inc(rows.duplicates)
    observer.records.labels("late").inc(rows.late)
    observer.window_restarts.inc(int(np.count_nonzero(rows.restarted)))
    missing = np.count_nonzero(np.isnan(batch.numeric[rows.accepted, : len(TARGETS)]), axis=0)
    for metric, count in zip(TARGETS, missing.tolist(), strict=True):
        observer.missing.labels(metric).inc(count)
    if shedding:
        observer.shed.inc(len(rows.watched))


def count_records(observer: Observer, ingested: Ingested) -> None:
    """Count the records that were read, and the refused ones by kind."""
    observer.records.labels("consumed").inc(ingested.records)
    if ingested.rejected:
        observer.records.labels("rejected").inc(len(ingested.rejected))
    for rejected in ingested.rejected:
        observer.rejected.labels(rejected.record.kind).inc()


def timely(
    alarms: list[LinkAlarm],
    seen: list[LinkSeen],
    batch: TelemetryBatch,
    rows: FeatureRows,
    links: Sequence[str],
    watermark_s: Doubles,
    ignore_through: int,
) -> Ingested:
    """Leave out messages of the link stage that come after their partition's own watermark has passed their bucket.

    The rule uses only the messages' own partition.

    Args:
        batch, rows: where the messages come from.
        links: names of all slots.
        watermark_s: float64 (A,), the partition's watermark after each accepted row, UTC seconds.
        ignore_through: buckets up to this one were closed without the partition.
    """

    def is_timely(time_s: float, mark_s: float) -> bool:
        bucket = math.floor(time_s / BUCKET_S)
        return (bucket + 1) * BUCKET_S > mark_s and bucket > ignore_through

    messages = len(alarms) + len(seen)
    if alarms:
        mark_at = dict(zip(batch.offsets[rows.accepted].tolist(), watermark_s.tolist(), strict=True))
        alarms = [alarm for alarm in alarms if is_timely(alarm.time_s, mark_at[alarm.offset])]
    if seen and not all(is_timely(message.time_s, float(watermark_s[-1])) for message in seen):
        seen = _timely_seen(seen, batch, rows, links, watermark_s, is_timely)
    return Ingested(alarms=alarms, seen=seen, late=messages - len(alarms) - len(seen))


def _timely_seen(
    seen: list[LinkSeen],
    batch: TelemetryBatch,
    rows: FeatureRows,
    links: Sequence[str],
    watermark_s: Doubles,
    is_timely: Callable[[float, float], bool],
) -> list[LinkSeen]:
    """Return the messages in time for their bucket. Each has its row's time or, if the link's clock is behind, the partition's."""
    mark_of = {
        (float(batch.time_s[row]), links[slot]): mark_s
        for row, slot, mark_s in zip(rows.accepted.tolist(), rows.slots.tolist(), watermark_s.tolist(), strict=True)
    }
    return [one for one in seen if is_timely(one.time_s, mark_of.get((one.time_s, one.link), -math.inf))]
