"""The schedule: APScheduler only marks a training as due; daemon.training.triggers decides whether it starts."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from daemon.clock import Clock, WallClock
from daemon.training.cron import cron_trigger

CLOCK_STEP_S: Final = 30.0
"""Seconds by which the wall clock moves against the monotonic one when it is set: a gradual correction moves it less between two calls."""


class Schedule(Protocol):
    """Marks training as due by cron (UTC), by interval, or both."""

    def due_at(self, now_s: float) -> bool:
        """Return whether a training is due. now_s: UTC seconds of the stream."""
        ...

    def change(self, cron: str, interval_s: float | None) -> None:
        """Replace the schedule (SIGHUP). Raises ValueError if cron is not valid."""
        ...

    def start(self) -> None:
        """Begin to mark trainings as due."""
        ...

    def answered(self) -> None:
        """Note that a training has started: none is due any longer."""
        ...

    def close(self) -> None:
        """End what runs in the background."""
        ...


class StreamSchedule:
    """The schedule of a replay: it runs in recorded time.

    >>> schedule = StreamSchedule("0 3 * * *", None)
    >>> [schedule.due_at(hour * 3600.0) for hour in (1, 2, 3, 4)]
    [False, False, True, True]
    >>> schedule.answered()
    >>> [schedule.due_at(hour * 3600.0) for hour in (5, 26, 27)]
    [False, False, True]
    """

    def __init__(self, cron: str, interval_s: float | None) -> None:
        """Mark nothing as due yet. Arguments and errors are those of WallSchedule."""
        self._due = False
        self.change(cron, interval_s)

    def due_at(self, now_s: float) -> bool:
        """See Schedule."""
        if not math.isfinite(now_s):
            return False
        now = datetime.fromtimestamp(now_s, UTC)
        for trigger, at in list(self._next.items()):
            if at is None or now < at:
                self._next[trigger] = at or self._after(trigger, now)
                continue
            self._due, self._next[trigger] = True, self._after(trigger, now)
        return self._due

    def change(self, cron: str, interval_s: float | None) -> None:
        """See Schedule."""
        self._interval_s = interval_s
        triggers = [*([cron_trigger(cron)] if cron else []), *([None] if interval_s is not None else [])]
        self._next: dict[BaseTrigger | None, datetime | None] = dict.fromkeys(triggers)  # None: the interval, or not known yet

    def start(self) -> None:
        """See Schedule."""

    def answered(self) -> None:
        """See Schedule."""
        self._due = False

    def close(self) -> None:
        """See Schedule."""

    def _after(self, trigger: BaseTrigger | None, now: datetime) -> datetime | None:
        if trigger is None:
            return now + timedelta(seconds=self._interval_s or 0.0)
        found: datetime | None = trigger.get_next_fire_time(None, now + timedelta(seconds=1))
        return found


class WallSchedule:
    """The schedule of a live stream.

    APScheduler computes the time of the next training and sleeps until then: after the system's clock was set back it would sleep longer by
    as much, and after it was set forward it would not wake. So both are noticed here.
    """

    def __init__(self, cron: str, interval_s: float | None, clock: Clock | None = None) -> None:
        """Mark nothing as due yet.

        Args:
            cron: five fields; empty for none.
            interval_s: seconds between two trainings; None for none.
            clock: to notice that the system's clock was set; None: that of the system.

        Raises:
            ValueError: cron is not valid.
        """
        self._clock = clock or WallClock()
        self._due = threading.Event()
        self._scheduler = BackgroundScheduler(timezone="UTC", daemon=True)
        self._ahead_s = self._wall_ahead_s()
        self.change(cron, interval_s)

    def due_at(self, now_s: float) -> bool:  # noqa: ARG002 - see Schedule
        """See Schedule."""
        ahead_s = self._wall_ahead_s()
        if abs(ahead_s - self._ahead_s) > CLOCK_STEP_S:
            self._clock_was_set(back=ahead_s < self._ahead_s)
            self._ahead_s = ahead_s
        return self._due.is_set()

    def change(self, cron: str, interval_s: float | None) -> None:
        """See Schedule."""
        self._cron, self._interval_s = cron, interval_s
        triggers: list[BaseTrigger] = [cron_trigger(cron)] if cron else []
        if interval_s is not None:
            triggers.append(IntervalTrigger(seconds=interval_s, timezone="UTC"))
        self._scheduler.remove_all_jobs()
        for trigger in triggers:
            self._scheduler.add_job(self._due.set, trigger, coalesce=True, misfire_grace_time=None)

    def start(self) -> None:
        """See Schedule."""
        self._scheduler.start()

    def answered(self) -> None:
        """See Schedule."""
        self._due.clear()

    def _clock_was_set(self, back: bool) -> None:
        if back:
            self.change(self._cron, self._interval_s)  # the next time is one of the clock as it is now
        elif self._scheduler.running:
            self._scheduler.wakeup()  # the time of the next training may have come

    def close(self) -> None:
        """End the scheduler's thread."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _wall_ahead_s(self) -> float:
        """Seconds by which the wall clock is ahead of the monotonic one: they change only when the wall clock is set."""
        return self._clock.wall_s() - self._clock.monotonic_s()
