"""What "now" means: the wall clock for a live stream, the stream's own time for a replay, in which a month passes in a minute.

A machine's clock may be wrong: before NTP has set it, after a virtual machine was paused. So it is held against a second reference, the
times at which Kafka's records are written (see daemon.clock_watch).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, Protocol

AGREES_S: Final = 300.0
"""Seconds between this machine's clock and the times of records that were written just now: up to so many they agree. It is what a record's
own timestamp may be wrong by (streams.records.validate.MAX_FUTURE_S)."""
CONFIRMED_S: Final = 60.0
"""Seconds for which an agreement holds, by the monotonic clock: a usual interval of telemetry, so a quiet stream agrees all the time."""


class Clock(Protocol):
    """UTC seconds of now, and up to when a record's timestamp is believed (None: not checked)."""

    def now_s(self, event_time_s: float) -> float:
        """event_time_s: the newest event time that the stream has shown, -inf before the first record."""
        ...

    def latest_record_s(self) -> float | None: ...

    @property
    def confirmed(self) -> bool:
        """Whether the second reference has agreed with it just now."""
        ...

    def compare(self, written_s: float) -> float:
        """Takes in when records were written that have come just now, UTC seconds. Returns by how much this clock is ahead of it."""
        ...


class WallClock:
    """For a live stream. Time does not go back: where the system's clock is set back it goes on by the monotonic one, until the system's
    has caught up. A record that was measured at the right time is not of the future because this machine lives in the past. It does go
    back if the second reference agrees with the system's clock as it is now: then it was wrong before."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._seen_s, self._seen_at_s = wall(), monotonic()
        self._confirmed_at_s = -math.inf

    def now_s(self, event_time_s: float) -> float:  # noqa: ARG002 - see Clock
        return self._now_s()

    def latest_record_s(self) -> float | None:
        return self._now_s()

    @property
    def confirmed(self) -> bool:
        return self._monotonic() - self._confirmed_at_s <= CONFIRMED_S

    def compare(self, written_s: float) -> float:
        wall_s = self._wall()
        if self._now_s() - wall_s > AGREES_S >= abs(wall_s - written_s):
            self._seen_s = wall_s
        ahead_s = self._now_s() - written_s
        if abs(ahead_s) <= AGREES_S:
            self._confirmed_at_s = self._monotonic()
        return ahead_s

    def _now_s(self) -> float:
        at_s = self._monotonic()
        self._seen_s = max(self._wall(), self._seen_s + at_s - self._seen_at_s)
        self._seen_at_s = at_s
        return self._seen_s


class StreamClock:
    """For replay and demo: schedules and cool-downs run in recorded time. A recording may not lie in the future either: its end was before
    now, and before its file was written."""

    confirmed = False

    def __init__(self, written_s: float = -math.inf) -> None:
        """written_s: UTC seconds at which the recording was written, so that it can be replayed where this machine's clock is behind."""
        self._written_s = written_s

    def now_s(self, event_time_s: float) -> float:
        return event_time_s if math.isfinite(event_time_s) else 0.0

    def latest_record_s(self) -> float | None:
        return max(time.time(), self._written_s)

    def compare(self, written_s: float) -> float:
        return time.time() - written_s
