"""The sinks of the daemon's events: alerts, announcements and dead letters, flushed and closed together."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from daemon.events.topic_watch import TopicWatch
from streams.sinks import NotSentError, Sink

FLUSH_S: Final = 10.0
"""Seconds for events to be acknowledged before a checkpoint. If the broker takes longer, the checkpoint fails and is tried again."""
LAST_FLUSH_S: Final = 1.5
"""The same when the daemon stops, seconds. Twice this (a running checkpoint, and the last one) and 5 s to close are less than the 10 s that
it has, whatever the broker does."""
_SLICE_S: Final = 0.25


@dataclass
class Sinks:
    """All sinks.

    Args:
        flush_s: how long a flush may take, seconds. It may be shortened while one runs.
        topics: watches those that are Kafka topics; None: none is.
    """

    alerts: Sink
    models: Sink
    dead_letters: Sink
    flush_s: float = FLUSH_S
    topics: TopicWatch | None = None
    clock: Callable[[], float] = time.monotonic

    def flush(self) -> None:
        """Wait until all events are durable.

        Raises:
            TimeoutError: after flush_s.
            OSError: the disk refuses.
        """
        began_s = self.clock()
        for sink in (self.dead_letters, self.alerts, self.models):
            while True:
                try:
                    sink.flush(_SLICE_S)
                    break
                except TimeoutError:
                    if self.clock() - began_s >= self.flush_s:
                        raise

    def pending(self) -> int:
        """Return how many events are not durable yet."""
        return self.dead_letters.pending() + self.alerts.pending() + self.models.pending()

    def look(self) -> None:
        """Report topics that are missing or cannot be written, before an event waits for them. Once a second is enough."""
        if self.topics is not None:
            self.topics.report()

    def remedy(self, error: TimeoutError) -> str:
        """Return what to do about events that could not be flushed."""
        if self.topics is not None:
            self.topics.look_soon()
        if isinstance(error, NotSentError):
            return error.todo
        return "; ".join(self.troubles()) or "see that the broker that receives the events runs and answers; it is tried again"

    def troubles(self) -> list[str]:
        """Return why events could not be sent, each reason with what to do; empty if all is well, as far as is known."""
        return self.topics.troubles if self.topics is not None else []

    def close_with(self, close_source: Callable[[], None]) -> None:
        """Close everything that may be connected, all at once: each may wait some seconds for a broker that is gone."""
        if self.topics is not None:
            self.topics.close()
        closes = (close_source, self.dead_letters.close, self.alerts.close, self.models.close)
        with ThreadPoolExecutor(len(closes)) as executor:
            for closed in [executor.submit(close) for close in closes]:
                closed.result()
