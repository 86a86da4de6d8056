"""Room in a partition's tables for new links and names, and counts of the senders that fill them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from daemon.ingest.monitored import MonitoredLinks
from daemon.ingest.spread import FirstTimes
from daemon.operator.observer import Observer
from features.event_time import EventTime
from features.store import FeatureStore
from features.telemetry import CATEGORIES, Partition, TelemetryBatch
from model.buffer.rows import BufferWriter

NAMED_MAX: Final = 3
"""Senders that an event names: those with most new names."""
COUNTED_MAX: Final = 10_000
"""Senders who are counted for each category: a flood of senders must not grow the count."""
AGAIN_S: Final = 60.0
"""Seconds between two events of one kind: a flood makes room many times a second."""


class Room:
    """Makes room in the tables of one partition when they are full. Which entries are forgotten depends on the stream alone."""

    def __init__(
        self,
        partition: Partition,
        store: FeatureStore,
        event_time: EventTime,
        first: FirstTimes,
        monitored: MonitoredLinks,
        writer: BufferWriter,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with tables that have room. clock: monotonic seconds, for how often something is reported."""
        self._partition, self._store, self._event_time, self._first, self._monitored = partition, store, event_time, first, monitored
        self._writer, self._observer, self._clock = writer, observer, clock
        self._brought: tuple[Counter[str], ...] = tuple(Counter() for _ in CATEGORIES)
        """For each category how many new names each node has brought, since names of it were last forgotten."""
        self._reported_s: dict[str, float] = {}

    @property
    def known_names(self) -> tuple[int, ...]:
        """Number of names of each category: to be read before a batch, see `note`."""
        return tuple(len(values) for values in self._store.interner.values)

    def note(self, batch: TelemetryBatch, before: tuple[int, ...]) -> None:
        """Count the senders that have brought names with this batch. before: `known_names` before it."""
        for category, values in enumerate(self._store.interner.values):
            if len(values) == before[category]:
                continue
            brought = self._brought[category]
            new = set(values[before[category] :])
            for node, value in zip(batch.node_id, batch.categories[category], strict=True):
                if value in new:
                    new.discard(value)
                    brought[node] += 1
            if len(brought) > COUNTED_MAX:
                most = dict(brought.most_common(COUNTED_MAX // 10))
                brought.clear()
                brought.update(most)

    def make(self, rest: TelemetryBatch) -> None:
        """Make room for the first record of `rest`."""
        self._writer.freeze(self._store.links, self._store.interner.values)
        if (category := self._store.full_category(rest)) is not None:
            self._forget(category)
        else:
            self._evict()

    def _forget(self, category: int) -> None:
        """Forget names of a category: first those that came once, then those that were not seen for longest."""
        before, name = len(self._store.interner.values[category]), CATEGORIES[category]
        self._store.forget(category)
        gone = before - len(self._store.interner.values[category])
        self._observer.names_forgotten.labels(name).inc(gone)
        brought = dict(self._brought[category])
        self._brought[category].clear()
        remedy = f"find out why those senders bring ever new values of {name}; dwcp_names_forgotten_total goes on counting"
        self._report("names_forgotten", name, brought, {"category": name, "forgotten": gone, "known": before, "remedy": remedy})

    def _evict(self) -> None:
        """Forget the links that were not seen for longest, in everything that numbers links."""
        nodes, before = self._store.nodes(), len(self._store)
        slots = self._store.evict()
        self._monitored.select(slots)
        self._event_time.keep(slots)
        self._first.select(slots)
        stays = set(slots.tolist())
        evicted = Counter(node for slot, node in enumerate(nodes) if slot not in stays)
        self._observer.evicted.inc(before - len(self._store))
        remedy = "raise links.max if there is memory for more, or find who sends ever new names; dwcp_links_evicted_total goes on counting"
        self._report("links_evicted", "", evicted, {"links_max": self._store.links_max, "evicted": before - len(slots), "remedy": remedy})

    def _report(self, event: str, subject: str, brought: Mapping[str, int], fields: Mapping[str, object]) -> None:
        now_s = self._clock()
        if now_s - self._reported_s.get(event + subject, -AGAIN_S) >= AGAIN_S:
            self._reported_s[event + subject] = now_s
            most = dict(Counter(brought).most_common(NAMED_MAX))
            self._observer.emit(event, partition=str(self._partition), senders=len(brought), most_from=most, **fields)
