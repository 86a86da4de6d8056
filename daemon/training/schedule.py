"""The schedule: APScheduler only marks a training as due; daemon.training.triggers decides whether it starts."""

from __future__ import annotations

import threading
from typing import Final

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from daemon.clock import Clock, WallClock
from daemon.training.cron import cron_trigger

CLOCK_STEP_S: Final = 30.0
"""Seconds by which the wall clock moves against the monotonic one when it is set: a gradual correction moves it less between two calls."""


class Schedule:
    """Marks training as due by cron (UTC), by interval, or both.

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

    @property
    def due(self) -> bool:
        """True if a training is due."""
        ahead_s = self._wall_ahead_s()
        if abs(ahead_s - self._ahead_s) > CLOCK_STEP_S:
            self._clock_was_set(back=ahead_s < self._ahead_s)
            self._ahead_s = ahead_s
        return self._due.is_set()

    def change(self, cron: str, interval_s: float | None) -> None:
        """Replace the jobs (SIGHUP). Raises ValueError if cron is not valid."""
        self._cron, self._interval_s = cron, interval_s
        triggers: list[BaseTrigger] = [cron_trigger(cron)] if cron else []
        if interval_s is not None:
            triggers.append(IntervalTrigger(seconds=interval_s, timezone="UTC"))
        self._scheduler.remove_all_jobs()
        for trigger in triggers:
            self._scheduler.add_job(self._due.set, trigger, coalesce=True, misfire_grace_time=None)

    def start(self) -> None:
        """Begin to mark trainings as due."""
        self._scheduler.start()

    def answered(self) -> None:
        """Note that a training has started: none is due any longer."""
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
