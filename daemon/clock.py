"""What "now" means: the wall clock for a live stream, the stream's own time for a replay, in which a month passes in a minute."""

from __future__ import annotations

import math
import time
from typing import Protocol


class Clock(Protocol):
    """UTC seconds of now, and up to when a record's timestamp is believed (None: not checked)."""

    def now_s(self, event_time_s: float) -> float:
        """event_time_s: the newest event time that the stream has shown, -inf before the first record."""
        ...

    def latest_record_s(self) -> float | None: ...


class WallClock:
    """For a live stream."""

    def now_s(self, event_time_s: float) -> float:  # noqa: ARG002 - see Clock
        return time.time()

    def latest_record_s(self) -> float | None:
        return time.time()


class StreamClock:
    """For replay and demo: schedules and cool-downs run in recorded time. A recording may not lie in the future either."""

    def now_s(self, event_time_s: float) -> float:
        return event_time_s if math.isfinite(event_time_s) else 0.0

    def latest_record_s(self) -> float | None:
        return time.time()
