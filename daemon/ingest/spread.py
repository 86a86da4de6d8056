"""Links whose records come in more than one partition: the topic is not keyed by link, or partitions were added to it.

All that belongs to a link depends on its own order, which Kafka keeps within a partition only. Records without a key, or with another key
than the link, split each link into as many series as there are partitions: windows restart all the time, most forecasts are not made, and
nothing fails. A link that has moved for good, because keys hash to other partitions since some were added, is not such a fault: its windows
begin anew once, and its old state is forgotten with the links that are not seen any more.

Event time distinguishes them: a link that has moved has all its rows in one partition before those in the other; one that is split has rows
in both over the same time. Only links that are new in a partition are looked up in the others, and nothing is kept in a checkpoint.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

import numpy as np

from features.event_time import EventTime
from features.store import FeatureStore, link_name
from features.telemetry import Doubles, Ints, Partition

OVERLAP_S: Final = 300.0
"""Event time, in seconds, for which a link has to come in two partitions to count as split. Producers hear of added partitions within 300 s
(metadata.max.age.ms), and two of them that send the same link need not hear at once."""
OVER_S: Final = 3600.0
"""Event time, in seconds, without another overlap after which a link does not count as split any more."""
LOOK_AT: Final = 200
"""Links that one call of `look` compares: under a millisecond. All links have their turn."""
LINKS_MAX: Final = 20_000
"""Most links in several partitions that are followed, some 300 bytes each; any part of a split topic shows the fault."""
KNOWN_MIN: Final = 100_000
"""Links whose partitions are remembered before those are removed that no partition knows any more."""
MOVED_EVERY_S: Final = 60.0
"""Seconds between two reports of moved links: they move one after the other, with their next row."""
EXAMPLES: Final = 5
MOVED_TODO: Final = (
    "nothing, if partitions were added to the topic or its producers choose them in another way now: windows and detectors of these links "
    "begin anew where they are now, and their old state is forgotten with the links that are not seen any more"
)

Key: TypeAlias = tuple[str | None, ...]
Emit: TypeAlias = Callable[..., None]
"""Logs one operational event, by name and fields (Observer.emit)."""


class FirstTimes:
    """The event time of each link's first row, by slot, since this process has the partition."""

    def __init__(self) -> None:
        self._time_s: Doubles = np.zeros(0)
        self._count = self._reported = 0

    def follow(self, count: int, time_s: Doubles, slots: Ints) -> None:
        """Note the links that are new in a batch.

        Args:
            count: number of links now.
            time_s: float64 (N,), event time of each row, UTC seconds.
            slots: int32 (N,), slot of each row.
        """
        if count == self._count:
            return
        if count > len(self._time_s):
            self._time_s = np.concatenate([self._time_s, np.zeros(max(count - len(self._time_s), len(self._time_s) // 2))])
        new = np.flatnonzero(slots >= self._count)
        found, first = np.unique(slots[new], return_index=True)
        self._time_s[found] = time_s[new[first]]
        self._count = count

    def select(self, slots: Ints) -> None:
        """Keep only the links of these slots (ascending); they have the slots 0, 1, ... from now on."""
        self._reported = int(np.searchsorted(slots, self._reported))
        self._time_s, self._count = self._time_s[slots], len(slots)

    def restore(self, last_time_s: Doubles) -> None:
        """Start with the links of a checkpoint. Their first times are those of their last rows there. last_time_s: float64 (L,)."""
        self._time_s, self._count, self._reported = last_time_s.copy(), len(last_time_s), len(last_time_s)

    def of(self, slot: int) -> float:
        """Return the event time of a link's first row, UTC seconds."""
        return float(self._time_s[slot])

    def unreported(self) -> int:
        """Return the first slot that this method has not returned or passed before."""
        begin, self._reported = self._reported, self._count
        return begin


class LinkSpans:
    """The links of one partition, and over which time each has come."""

    def __init__(self, partition: Partition, store: FeatureStore, first: FirstTimes, event_time: EventTime) -> None:
        self.partition = partition
        self._store, self._first, self._event_time = store, first, event_time

    @property
    def event_time_s(self) -> float:
        """Event time of the partition, UTC seconds."""
        return self._event_time.value_s

    def span_of(self, key: Key) -> tuple[float, float] | None:
        """Return first and last event time of a link's rows here, since this process has the partition; None: the link is not known."""
        slot = self._store.slot(key)
        return (self._first.of(slot), self._store.last_time_s(slot)) if slot is not None else None

    def links(self, begin: int = 0) -> Sequence[Key]:
        """Return the links from a slot on."""
        return self._store.link_keys(begin)

    def new_links(self) -> Sequence[Key]:
        """Return the links that were first seen since the last call."""
        begin = self._first.unreported()
        return self.links(begin) if begin < len(self._store) else ()


@dataclass(slots=True)
class _Pair:
    """A link in two of the partitions in which it was seen.

    Args:
        from_s: event time from which rows in both count as another overlap.
        split_s: event time of the last overlap; None if there was none.
    """

    name: str
    old: Partition
    new: Partition
    seen: set[Partition]
    from_s: float
    split_s: float | None = None
    moved: bool = False


class LinkSpread:
    """Follows the links that are known in more than one partition of this process. All methods are called from the loop's thread."""

    def __init__(self, link_key: Sequence[str], emit: Emit, clock: Callable[[], float] = time.monotonic) -> None:
        """Follow no link yet.

        Args:
            link_key: see links.key.
            emit: logs one operational event, by name and fields.
            clock: monotonic seconds, for how often something is reported.
        """
        self._link_key, self._emit, self._clock = ", ".join(link_key) or "(none: one series)", emit, clock
        self._pairs: dict[Key, _Pair] = {}
        self._known: dict[Key, tuple[Partition, ...]] = {}
        """The partitions in which each link was found, oldest first. Forgotten links are removed from here when there are many."""
        self._tidy_at = KNOWN_MIN
        self._split: set[Key] = set()
        self._finished: dict[Key, None] = {}
        """Those that have moved and are not split, oldest first: they make room for others."""
        self._next = 0
        self._reported = 0
        self._moved: list[_Pair] = []
        self._moved_due_s = clock()
        self.moved = 0
        """Links that have moved to another partition, since the process began."""
        self.trouble: str | None = None
        """Reason why most forecasts of some links are not made, and what to do; None: each link comes in one partition."""

    @property
    def split(self) -> int:
        """Links whose records come in several partitions at once."""
        return len(self._split)

    def arrived(self, here: LinkSpans, others: Iterable[LinkSpans]) -> None:
        """Look up links that are new in a partition in the others."""
        if new := here.new_links():
            self._look_up(new, here, others)

    def restored(self, here: LinkSpans, others: Iterable[LinkSpans]) -> None:
        """Compare the links of a partition that has come with its state with those of the others. Earlier moves were reported."""
        self._look_up(here.links(), here, others, moved=True)

    def gone(self, partitions: Iterable[Partition]) -> None:
        """Forget what was seen in partitions that belong to another member now."""
        gone = set(partitions)
        self._known = {
            key: left for key, known in self._known.items() if (left := tuple(partition for partition in known if partition not in gone))
        }
        self._drop([key for key, pair in self._pairs.items() if pair.old in gone or pair.new in gone])

    def look(self, links_of: Mapping[Partition, LinkSpans]) -> None:
        """Compare the next of the links that were found, and report new splits and moves. links_of: the owned partitions."""
        keys = list(islice(self._pairs, self._next, self._next + LOOK_AT))
        self._next = self._next + LOOK_AT if len(keys) == LOOK_AT else 0
        for key in keys:
            self._update(key, self._pairs[key], links_of)
        self.trouble = self._trouble()
        self._report()

    def _look_up(self, keys: Iterable[Key], here: LinkSpans, others: Iterable[LinkSpans], *, moved: bool = False) -> None:
        """Compare links of a partition with the one of the others that they were found in last."""
        links_of = {other.partition: other for other in others}
        alone = (here.partition,)
        for key in keys:
            before = self._known.get(key, alone)
            if before == alone:
                self._known[key] = alone
                continue
            elsewhere = tuple(one for one in before if one != here.partition and one in links_of)
            self._known[key] = (*elsewhere, here.partition)
            there = next((one for one in reversed(elsewhere) if links_of[one].span_of(key) is not None), None)
            if there is not None:
                self._compare(key, here, links_of[there], moved=moved)
        if len(self._known) > self._tidy_at:  # of links that were forgotten
            self._known = {key: known for key, known in self._known.items() if any(_knows(links_of, one, key) for one in known)}
            self._tidy_at = max(KNOWN_MIN, 2 * len(self._known))

    def _compare(self, key: Key, here: LinkSpans, other: LinkSpans, *, moved: bool) -> None:
        if (there := other.span_of(key)) is None or (span := here.span_of(key)) is None:
            return
        if key not in self._pairs and len(self._pairs) >= LINKS_MAX and self._finished:
            self._drop([next(iter(self._finished))])
        before = self._pairs.get(key)
        seen = {other.partition, here.partition} | (before.seen if before is not None else set())
        if before is not None and before.split_s is not None:
            before.seen = seen
        elif before is not None or len(self._pairs) < LINKS_MAX:
            moved = moved and abs(there[1] - span[1]) > OVERLAP_S
            self._pairs[key] = _Pair(link_name(key), other.partition, here.partition, seen, max(there[0], span[0]), moved=moved)
            self._finish(key, moved)

    def _update(self, key: Key, pair: _Pair, links_of: Mapping[Partition, LinkSpans]) -> None:
        old, new = links_of.get(pair.old), links_of.get(pair.new)
        old_span, new_span = old.span_of(key) if old is not None else None, new.span_of(key) if new is not None else None
        if old is None or new is None or old_span is None or new_span is None:  # gone, or forgotten there
            self._drop([key])
            return
        both_s = min(old_span[1], new_span[1])
        if both_s - pair.from_s > OVERLAP_S:
            pair.split_s, pair.from_s = both_s, max(old_span[1], new_span[1])
            self._split.add(key)
            self._finish(key, False)
        elif pair.split_s is not None and min(old.event_time_s, new.event_time_s) - pair.split_s > OVER_S:
            pair.split_s = None
            self._split.discard(key)
            self._finish(key, pair.moved)
        elif pair.split_s is None and not pair.moved and min(new_span[1], old.event_time_s) - old_span[1] > OVERLAP_S:
            pair.moved = True
            self._finish(key, True)
            self.moved += 1
            self._moved.append(pair)

    def _trouble(self) -> str | None:
        if not self._split:
            return None
        return f"{self.split} links come in several partitions at once, such as {'; '.join(self._examples(2))}: {self._todo()}"

    def _report(self) -> None:
        now_s = self._clock()
        if self.split >= max(1, 2 * self._reported):
            self._reported = self.split
            pairs = [self._pairs[key] for key in self._split]
            partitions = sorted({str(partition) for pair in pairs for partition in pair.seen})
            self._emit("links_split", links=self.split, examples=self._examples(EXAMPLES), partitions=partitions, todo=self._todo())
        elif not self.split:
            self._reported = 0
        if self._moved and now_s >= self._moved_due_s:
            self._moved_due_s = now_s + MOVED_EVERY_S
            moved, self._moved = self._moved, []
            examples = [f"{pair.name} from {pair.old} to {pair.new}" for pair in moved[:EXAMPLES]]
            self._emit("links_moved", links=len(moved), examples=examples, todo=MOVED_TODO)

    def _examples(self, count: int) -> list[str]:
        found = heapq.nsmallest(count, (self._pairs[key] for key in self._split), key=lambda pair: pair.name)
        return [f"{pair.name} in {pair.old} and {pair.new}" for pair in found]

    def _todo(self) -> str:
        return (
            "their windows restart and most of their forecasts are not made; have the producers use a record key that is the same for all "
            f"records of a link (links.key: {self._link_key}), all with the same partitioner"
        )

    def _finish(self, key: Key, moved: bool) -> None:
        """Mark a link that has moved and is not split as finished; it needs no further comparison. moved: False removes the mark."""
        if moved:
            self._finished[key] = None
        else:
            self._finished.pop(key, None)

    def _drop(self, keys: Iterable[Key]) -> None:
        for key in keys:
            del self._pairs[key]
            self._split.discard(key)
            self._finished.pop(key, None)


def _knows(links_of: Mapping[Partition, LinkSpans], partition: Partition, key: Key) -> bool:
    return partition in links_of and links_of[partition].span_of(key) is not None
