"""What "now" means: the wall clock for a live stream, the stream's own time for a replay, in which a month passes in a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """UTC seconds of now, and up to when a record's timestamp is believed (None: not checked)."""

    def now_s(self, event_time_s: float) -> float:
        """event_time_s: the newest event time that the stream has shown, -inf before the first record."""
        ...

    def latest_record_s(self) -> float | None: ...


class WallClock:
    """For a live stream. Time never goes back: where the system's clock is set back it goes on by the monotonic one, until the system's
    has caught up. A record that was measured at the right time is not of the future because this machine lives in the past."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._seen_s, self._seen_at_s = wall(), monotonic()

    def now_s(self, event_time_s: float) -> float:  # noqa: ARG002 - see Clock
        return self._now_s()

    def latest_record_s(self) -> float | None:
        return self._now_s()

    def _now_s(self) -> float:
        at_s = self._monotonic()
        self._seen_s = max(self._wall(), self._seen_s + at_s - self._seen_at_s)
        self._seen_at_s = at_s
        return self._seen_s


class StreamClock:
    """For replay and demo: schedules and cool-downs run in recorded time. A recording may not lie in the future either."""

    def now_s(self, event_time_s: float) -> float:
        return event_time_s if math.isfinite(event_time_s) else 0.0

    def latest_record_s(self) -> float | None:
        return time.time()
