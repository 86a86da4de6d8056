"""Where the daemon's events go: alerts, announcements and dead letters, flushed and closed together."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from streams.sinks import Sink

FLUSH_S: Final = 10.0
"""For events to be acknowledged before a checkpoint; it fails and is tried again where the broker takes longer."""
LAST_FLUSH_S: Final = 1.5
"""When the daemon stops: twice this (a checkpoint that runs, and the last one) and 5 s to close are less than its 10 s, whatever the
broker does."""
_SLICE_S: Final = 0.25


@dataclass
class Sinks:
    """flush_s: how long a flush may take; it may be shortened while one runs."""

    alerts: Sink
    models: Sink
    dead_letters: Sink
    flush_s: float = FLUSH_S

    def flush(self) -> None:
        """Returns once all events are durable. Raises TimeoutError after flush_s, OSError where the disk refuses."""
        began_s = time.monotonic()
        for sink in (self.dead_letters, self.alerts, self.models):
            while True:
                try:
                    sink.flush(_SLICE_S)
                    break
                except TimeoutError:
                    if time.monotonic() - began_s >= self.flush_s:
                        raise

    def pending(self) -> int:
        return self.dead_letters.pending() + self.alerts.pending() + self.models.pending()

    def close_with(self, close_source: Callable[[], None]) -> None:
        """Closes everything that may be connected, all at once: each may wait some seconds for a broker that is gone."""
        closes = (close_source, self.dead_letters.close, self.alerts.close, self.models.close)
        with ThreadPoolExecutor(len(closes)) as executor:
            for closed in [executor.submit(close) for close in closes]:
                closed.result()
