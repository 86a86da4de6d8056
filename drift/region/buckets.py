"""Messages of the link stage by the minute of event time, until every partition has passed it.

A bucket closes when the watermark, the least event time over the partitions, has passed it; its messages are then taken in the order of
their links. So what follows from them depends on neither the batches nor the interleaving of partitions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from drift.messages import LinkAlarm, LinkSeen

BUCKET_S: Final = 60.0

Bucket = tuple[list[LinkAlarm], list[LinkSeen]]


class Buckets:
    """Those that are open. closed_through: the last closed one (its start divided by 60 s). late: messages that came for it or an earlier
    one, which are left out."""

    def __init__(self) -> None:
        self.closed_through = -(2**62)
        self.late = 0
        self._open: defaultdict[int, Bucket] = defaultdict(lambda: ([], []))

    def observe(self, alarms: Sequence[LinkAlarm], seen: Sequence[LinkSeen]) -> None:
        for alarm in alarms:
            if (bucket := _bucket(alarm.time_s)) > self.closed_through:
                self._open[bucket][0].append(alarm)
            else:
                self.late += 1
        for one in seen:
            if (bucket := _bucket(one.time_s)) > self.closed_through:
                self._open[bucket][1].append(one)
            else:
                self.late += 1

    def close(self, watermark_s: float) -> Iterator[tuple[float, Bucket]]:
        """Those that end at or before the watermark (UTC seconds), oldest first, each with its end and its messages in their order. The
        last one may be empty: time has passed."""
        through = _bucket(watermark_s) - 1
        for bucket in sorted(bucket for bucket in self._open if bucket <= through):
            alarms, seen = self._open.pop(bucket)
            yield (bucket + 1) * BUCKET_S, (sorted_alarms(alarms), _sorted_seen(seen))
        if through > self.closed_through:
            self.closed_through = through
            yield (through + 1) * BUCKET_S, ([], [])

    def go_back(self, watermark_s: float, limit_s: float) -> None:
        """Undoes that buckets were closed which cannot have been. watermark_s: up to where they really can, inf if nobody knows. limit_s:
        UTC seconds after which no message can be: what waits for such buckets goes."""
        self.closed_through = min(self.closed_through, _bucket(min(watermark_s, limit_s)) - 1)
        for bucket in [bucket for bucket in self._open if bucket * BUCKET_S > limit_s]:
            del self._open[bucket]

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and strings."""
        waiting = [
            [bucket, [asdict(alarm) for alarm in sorted_alarms(alarms)], [asdict(one) for one in _sorted_seen(seen)]]
            for bucket, (alarms, seen) in sorted(self._open.items())
        ]
        return {"closed_through": self.closed_through, "late": self.late, "buckets": waiting}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Buckets:
        """What `state` was taken from."""
        made = cls()
        made.closed_through, made.late = state["closed_through"], state["late"]
        for bucket, alarms, seen in state["buckets"]:
            made._open[bucket] = ([LinkAlarm(**alarm) for alarm in alarms], [LinkSeen(**one) for one in seen])
        return made


def sorted_alarms(alarms: Iterable[LinkAlarm]) -> list[LinkAlarm]:
    """In an order that does not depend on the interleaving of partitions."""

    def rank(alarm: LinkAlarm) -> tuple[object, ...]:
        of_link = alarm.link, alarm.region, alarm.link_type
        return alarm.link, alarm.time_s, alarm.signal, alarm.detector, alarm.aspect, alarm.direction, of_link, alarm.offset

    return sorted(alarms, key=rank)


def _sorted_seen(seen: Sequence[LinkSeen]) -> list[LinkSeen]:
    return sorted(seen, key=lambda one: (one.link, one.time_s))


def _bucket(time_s: float) -> int:
    return math.floor(time_s / BUCKET_S)
