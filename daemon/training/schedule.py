"""The schedule: APScheduler only marks training as due; whether it starts is decided in triggers.py."""

from __future__ import annotations

import threading
import time
from typing import Final

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from daemon.training.cron import cron_trigger

CLOCK_STEP_S: Final = 30.0
"""The wall clock against the monotonic one: more than any correction that is made gradually brings between two looks."""


class Schedule:
    """Marks training as due by cron (UTC), by interval, or both.

    APScheduler notes the time of the next training and sleeps until then: after the system's clock was set back it would be silent for as
    long as that, and after it was set forward it would sleep on. So both are noticed here.
    """

    def __init__(self, cron: str, interval_s: float | None) -> None:
        """cron: five fields, empty for none; ValueError where it is not valid."""
        self._due = threading.Event()
        self._scheduler = BackgroundScheduler(timezone="UTC", daemon=True)
        self._ahead_s = _wall_ahead_s()
        self.change(cron, interval_s)

    @property
    def due(self) -> bool:
        ahead_s = _wall_ahead_s()
        if abs(ahead_s - self._ahead_s) > CLOCK_STEP_S:
            self._clock_was_set(back=ahead_s < self._ahead_s)
            self._ahead_s = ahead_s
        return self._due.is_set()

    def change(self, cron: str, interval_s: float | None) -> None:
        """Replaces the jobs (SIGHUP)."""
        self._cron, self._interval_s = cron, interval_s
        triggers: list[BaseTrigger] = [cron_trigger(cron)] if cron else []
        if interval_s is not None:
            triggers.append(IntervalTrigger(seconds=interval_s, timezone="UTC"))
        self._scheduler.remove_all_jobs()
        for trigger in triggers:
            self._scheduler.add_job(self._due.set, trigger, coalesce=True, misfire_grace_time=None)

    def start(self) -> None:
        self._scheduler.start()

    def answered(self) -> None:
        """A training has started: due no longer."""
        self._due.clear()

    def _clock_was_set(self, back: bool) -> None:
        if back:
            self.change(self._cron, self._interval_s)  # the next time is one of the clock as it is now
        elif self._scheduler.running:
            self._scheduler.wakeup()  # to see whether it has come

    def close(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)


def _wall_ahead_s() -> float:
    """Of the monotonic clock: changes only when the wall clock is set."""
    return time.time() - time.monotonic()
