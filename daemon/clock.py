"""The time "now": the wall clock for a live stream, the stream's own time for a replay, in which a month passes in a minute.

A machine's clock may be wrong: before NTP has set it, after a virtual machine was paused. So it is compared with a second reference, the
times at which Kafka's records are written (see daemon.clock_watch).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, Protocol

AGREES_S: Final = 300.0
"""Largest difference, in seconds, between this machine's clock and the times of records that were written just now at which they agree. A
record's own timestamp may be wrong by as much (streams.records.validate.MAX_FUTURE_S)."""
CONFIRMED_S: Final = 60.0
"""Seconds for which an agreement holds, by the monotonic clock: a usual interval of telemetry, so that a quiet stream always agrees."""


class Clock(Protocol):
    """The daemon's only source of time. It is passed in everywhere, so that a test can simulate it."""

    def now_s(self, event_time_s: float) -> float:
        """Return UTC seconds of now.

        Args:
            event_time_s: the newest event time that the stream has shown, -inf before the first record.
        """
        ...

    def latest_record_s(self) -> float | None:
        """Return the latest timestamp that a record may have, UTC seconds; None: timestamps are not checked."""
        ...

    @property
    def confirmed(self) -> bool:
        """True if the second reference has agreed with this clock just now."""
        ...

    def compare(self, written_s: float) -> float:
        """Compare with the time at which records were written that have come just now, UTC seconds.

        Returns:
            Seconds by which this clock is ahead of it.
        """
        ...

    def wall_s(self) -> float:
        """Return the system's UTC seconds, for times that are only displayed or stored."""
        ...

    def monotonic_s(self) -> float:
        """Return monotonic seconds, for intervals and time limits."""
        ...


class WallClock:
    """The clock of a live stream.

    Time does not go back: if the system's clock is set back, this one goes on by the monotonic one until the system's has caught up. A
    record that was measured at the right time is not of the future because this machine lives in the past. Time does go back if the second
    reference agrees with the system's clock as it is now: then it was wrong before.
    """

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

    def wall_s(self) -> float:
        return self._wall()

    def monotonic_s(self) -> float:
        return self._monotonic()

    def _now_s(self) -> float:
        at_s = self._monotonic()
        self._seen_s = max(self._wall(), self._seen_s + at_s - self._seen_at_s)
        self._seen_at_s = at_s
        return self._seen_s


class StreamClock:
    """The clock of replay and demo: schedules and cool-downs run in recorded time.

    A recording may not lie in the future either: it ended before now, and before its file was written.
    """

    confirmed = False

    def __init__(
        self, written_s: float = -math.inf, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        """Start the clock.

        Args:
            written_s: UTC seconds at which the recording was written, so that it can be replayed on a machine whose clock is behind.
        """
        self._written_s, self._wall, self._monotonic = written_s, wall, monotonic

    def now_s(self, event_time_s: float) -> float:
        return event_time_s if math.isfinite(event_time_s) else 0.0

    def latest_record_s(self) -> float | None:
        return max(self._wall(), self._written_s)

    def compare(self, written_s: float) -> float:
        return self._wall() - written_s

    def wall_s(self) -> float:
        return self._wall()

    def monotonic_s(self) -> float:
        return self._monotonic()
