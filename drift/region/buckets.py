"""Messages of the link stage by the minute of event time, until every partition has passed it.

A bucket closes when the watermark, the least event time over the partitions, has passed it. Its messages are then returned in the order of
their links. So the result depends on neither the batches nor the interleaving of partitions (watermarks as in Akidau et al. 2015,
"The Dataflow model").
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from drift.messages import LinkAlarm, LinkSeen

BUCKET_S: Final = 60.0
"""Length of a bucket, seconds of event time."""

Bucket = tuple[list[LinkAlarm], list[LinkSeen]]


class Buckets:
    """The open buckets.

    >>> buckets = Buckets()
    >>> buckets.observe([], [LinkSeen(time_s=61.0, region="eu", link="a|b", interval_s=60.0, epoch=1)])
    >>> [(end_s, len(seen)) for end_s, (alarms, seen) in buckets.close(watermark_s=180.0)]
    [(120.0, 1), (180.0, 0)]
    """

    def __init__(self) -> None:
        self.closed_through = -(2**62)
        """The last closed bucket (its start divided by BUCKET_S)."""
        self.late = 0
        """Messages that came for a closed bucket, and were left out."""
        self._open: defaultdict[int, Bucket] = defaultdict(lambda: ([], []))

    def observe(self, alarms: Sequence[LinkAlarm], seen: Sequence[LinkSeen]) -> None:
        """Add messages to their buckets."""
        messages: tuple[LinkAlarm | LinkSeen, ...] = (*alarms, *seen)
        for message in messages:
            if (bucket := _bucket(message.time_s)) <= self.closed_through:
                self.late += 1
            elif isinstance(message, LinkAlarm):
                self._open[bucket][0].append(message)
            else:
                self._open[bucket][1].append(message)

    def close(self, watermark_s: float) -> Iterator[tuple[float, Bucket]]:
        """Close the buckets that end at or before the watermark (UTC seconds).

        Yields:
            The end (UTC seconds) and the sorted messages of each, oldest first. The last bucket may be empty: time has passed.
        """
        through = _bucket(watermark_s) - 1
        for bucket in sorted(bucket for bucket in self._open if bucket <= through):
            alarms, seen = self._open.pop(bucket)
            yield (bucket + 1) * BUCKET_S, (sorted_alarms(alarms), _sorted_seen(seen))
        if through > self.closed_through:
            self.closed_through = through
            yield (through + 1) * BUCKET_S, ([], [])

    def go_back(self, watermark_s: float, limit_s: float) -> None:
        """Open buckets again that were closed for times in the future.

        Args:
            watermark_s: time up to which buckets may stay closed, UTC seconds; inf if it is not known.
            limit_s: last time that a message can have, UTC seconds. Messages of later buckets are dropped.
        """
        self.closed_through = min(self.closed_through, _bucket(min(watermark_s, limit_s)) - 1)
        for bucket in [bucket for bucket in self._open if bucket * BUCKET_S > limit_s]:
            del self._open[bucket]

    def state(self) -> dict[str, Any]:
        """Return everything as plain numbers, lists and strings."""
        waiting = [
            [bucket, [alarm.state() for alarm in sorted_alarms(alarms)], [asdict(one) for one in _sorted_seen(seen)]]
            for bucket, (alarms, seen) in sorted(self._open.items())
        ]
        return {"closed_through": self.closed_through, "late": self.late, "buckets": waiting}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Buckets:
        """Return the buckets of a `state`."""
        buckets = cls()
        buckets.closed_through, buckets.late = state["closed_through"], state["late"]
        for bucket, alarms, seen in state["buckets"]:
            buckets._open[bucket] = ([LinkAlarm.restored(alarm) for alarm in alarms], [LinkSeen(**one) for one in seen])
        return buckets


def sorted_alarms(alarms: Iterable[LinkAlarm]) -> list[LinkAlarm]:
    """Return alarms in an order that does not depend on the interleaving of partitions."""

    def rank(alarm: LinkAlarm) -> tuple[object, ...]:
        of_link = alarm.link, alarm.region, alarm.link_type
        return alarm.link, alarm.time_s, alarm.signal, alarm.detector, alarm.aspect, alarm.direction, of_link, alarm.offset

    return sorted(alarms, key=rank)


def _sorted_seen(seen: Sequence[LinkSeen]) -> list[LinkSeen]:
    return sorted(seen, key=lambda message: (message.link, message.time_s))


def _bucket(time_s: float) -> int:
    return math.floor(time_s / BUCKET_S)
