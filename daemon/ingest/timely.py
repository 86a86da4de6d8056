"""Selection of the link stage's messages that come in time for their bucket. The rule uses only the message's own partition."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from daemon.ingest.ingested import Ingested
from drift.messages import LinkAlarm, LinkSeen
from drift.region.buckets import BUCKET_S
from features.changes import FeatureRows
from features.telemetry import Doubles, TelemetryBatch


def timely(
    alarms: list[LinkAlarm],
    seen: list[LinkSeen],
    batch: TelemetryBatch,
    rows: FeatureRows,
    links: Sequence[str],
    watermark_s: Doubles,
    ignore_through: int,
) -> Ingested:
    """Leave out messages that come after their partition's own watermark has passed their bucket.

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
